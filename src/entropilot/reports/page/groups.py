"""Put runs into groups: by method, by a key of the recipe, or as controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from entropilot.errors import UserError
from entropilot.records import Run
from entropilot.reports.text import mapping, method_name, one_line

MISSING = "not set"


def group_names(runs: Sequence[Run], by: str | None) -> list[str]:
    """Return the name of each run's group.

    Args:
        runs: the runs.
        by: `method`, a dotted key of the recipe such as `grpo.learning_rate`, or None for one group per run.

    Raises:
        UserError: no run's recipe has the key.
    """
    if by is None:
        return [f"run {number}" for number in range(1, len(runs) + 1)]
    if by == "method":
        return [method_name(run) for run in runs]
    values = [_value(run, by) for run in runs]
    if all(value is None for value in values):
        raise UserError(
            f"--group-by {by}: no run has this key in its recipe; give `method`, or a key such as grpo.learning_rate."
        )
    return [f"{by} = {MISSING if value is None else one_line(value, 60)}" for value in values]


def _value(run: Run, key: str) -> Any:
    here: Any = mapping(run.header.get("recipe"))
    for part in key.split("."):
        here = mapping(here).get(part)
    return here
