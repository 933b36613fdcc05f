"""Read a table from anywhere, or a console that prints dicts, where no framework recognises its own log."""

from __future__ import annotations

from entropilot.readers.formats.consoles import read_dicts
from entropilot.readers.formats.rows import FORMS, read_table
from entropilot.readers.names import ACCURACY, HELD_OUT, REWARD, TRAIN, UNKNOWN, UNKNOWN_ENTROPY
from entropilot.readers.peek import Peek
from entropilot.readers.reader import Reader, known


def _sniff(peek: Peek) -> str | None:
    return peek.kind if peek.kind in FORMS else None


def _sniff_console(peek: Peek) -> str | None:
    return "console" if peek.printed else None


READER = Reader(
    "table",
    read_table,
    sniff=_sniff,
    fallback=True,
    steps=(
        ("step",),
        ("global_step",),
        ("train/global_step", "eval/global_step"),
        ("training/global_step",),
        ("_step",),
        ("Step",),
        ("iteration",),
        ("iter",),
        ("trainer/step",),
        ("training_step",),
        ("train_step",),
    ),
    columns=(
        *known(
            "entropy",
            TRAIN,
            "nats",
            (2, "(?:train/)?(?:entropy|policy_entropy|mean_entropy|token_entropy)", UNKNOWN_ENTROPY),
            (2, "(?:train/)?(?:entropy_mean|entropy_avg|avg_entropy)", UNKNOWN_ENTROPY),
        ),
        *known(
            "performance",
            ACCURACY,
            "share",
            (1, "(?:val|validation|eval|test)(?:_|/)(?:acc|accuracy)", UNKNOWN),
        ),
        *known("performance", HELD_OUT, "reward", (1, "(?:val|validation|test)(?:_|/)reward", UNKNOWN)),
        *known(
            "performance",
            REWARD,
            "reward",
            (3, "reward|rewards|mean_reward|reward_mean|reward_avg|avg_reward|train_reward", UNKNOWN),
            reward=True,
        ),
        # Of these not even that is known, so that they keep their names.
        *known("performance", "", "as logged", (3, "acc|accuracy|score|performance", UNKNOWN)),
    ),
)

CONSOLE = Reader(
    "console",
    read_dicts,
    sniff=_sniff_console,
    fallback=True,
    steps=READER.steps,
)
