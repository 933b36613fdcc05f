"""slime: its console prints `rollout N: {…}`, `step N: {…}` and `eval N: {…}`, which count differently.

A rollout trains one or more steps: step = rollout · steps per rollout + place. So a rollout's numbers, its reward among
them, belong to the first step that is trained on it.
"""

from __future__ import annotations

import re

from entropilot.readers.formats.notebooks import open_text
from entropilot.readers.formats.printed import Printed
from entropilot.readers.gather import Gathered
from entropilot.readers.names import HELD_OUT, REWARD, TRAIN
from entropilot.readers.peek import Peek
from entropilot.readers.reader import Log, Reader, Source, known

_KIND = re.compile(rb"\b(rollout|step|eval|perf) (\d{1,15}): ?$")
_PREFIXES = ("rollout/", "train/", "eval/", "perf/")


def _sniff(peek: Peek) -> str | None:
    for before, row in peek.printed:
        if _KIND.search(before) and any(name.startswith(_PREFIXES) for name in row):
            return "console"
    return None


def read_slime(log: Log, gathered: Gathered, run: str | None) -> Source:
    """Gather a console of slime; the steps are those of training."""
    of_rollouts: list[tuple[int, dict[str, float]]] = []
    trained: list[int] = []
    with open_text(log.path) as file:
        for before, row in Printed(gathered).read(file):
            match = _KIND.search(before)
            if match is None:
                continue
            number = int(match[2])
            gathered.add(row)
            if match[1] == b"step":
                trained.append(number)
                row["step"] = float(number)
            else:
                of_rollouts.append((number, row))
    per_rollout = _steps_per_rollout(trained, [number for number, row in of_rollouts if _is_rollout(row)])
    for number, row in of_rollouts:
        row["step"] = float(number * per_rollout)
    if per_rollout > 1:
        gathered.notes.append(
            f"A rollout trains {per_rollout} steps; its numbers stand at the first of them."
        )
    return Source([log.path], log.path.stem)


def _is_rollout(row: dict[str, float]) -> bool:
    return any(name.startswith("rollout/") for name in row)


def _steps_per_rollout(trained: list[int], rollouts: list[int]) -> int:
    """Return how many steps are trained on a rollout; at the end of a log one of them may be under way."""
    return max(1, round(len(set(trained)) / max(1, len(set(rollouts)))))


READER = Reader(
    "slime",
    read_slime,
    sniff=_sniff,
    steps=(("step",), ("train/step",), ("rollout/step",)),
    columns=(
        *known(
            "performance",
            REWARD,
            "reward",
            (
                3,
                "rollout/raw_reward",
                "slime's `rollout/raw_reward`: mean reward over the rollout, before normalisation",
            ),
            reward=True,
        ),
    ),
    own_columns=(
        *known(
            "entropy",
            TRAIN,
            "nats",
            (2, "train/entropy_loss", "slime's `train/entropy_loss`: mean over response tokens"),
        ),
        *known(
            "performance",
            HELD_OUT,
            "reward",
            (1, r"eval/(?P<set>[\w.]+)", "slime's evaluation: mean reward of one set"),
        ),
    ),
    log_entropy="slime logs `train/entropy_loss`",
)
