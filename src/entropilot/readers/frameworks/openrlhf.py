"""OpenRLHF: its console prints `Global step N: {…}`; its TensorBoard and W&B logs are read as such."""

from __future__ import annotations

import re

from entropilot.readers.formats.consoles import read_dicts
from entropilot.readers.names import ACCURACY, TRAIN
from entropilot.readers.peek import Peek
from entropilot.readers.reader import Reader, known

_STEP = re.compile(rb"Global[ _]step \d{1,15}[^{}\n]{0,60}$", re.IGNORECASE)


def _sniff(peek: Peek) -> str | None:
    return "console" if any(_STEP.search(before) for before, _ in peek.printed) else None


READER = Reader(
    "openrlhf",
    read_dicts,
    sniff=_sniff,
    steps=(("train/global_step", "eval/global_step"), ("global_step",)),
    columns=(
        *known(
            "entropy",
            TRAIN,
            "nats",
            (
                2,
                "(?:train/)?entropy_loss",
                "by its name OpenRLHF's `entropy_loss`: full vocabulary, at the sampling temperature, during the update, "
                "mean over response tokens; logged where --actor.entropy_coef is set",
            ),
        ),
        *known(
            "performance",
            ACCURACY,
            "share",
            (
                1,
                "(?:eval/)?eval_(?P<set>.+)_pass1",
                "OpenRLHF's evaluation: mean reward over the samples of a problem of one data set, an accuracy if rewards "
                "are 0 or 1",
            ),
        ),
    ),
    log_entropy="OpenRLHF logs `entropy_loss` with --actor.entropy_coef set (0 will do)",
)
