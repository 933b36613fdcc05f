"""Measure about how long a recipe trains on this machine: take its first rollouts, and throw away what they left."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropilot.recipes.schema import Recipe
from entropilot.training.plan import check
from entropilot.training.run import run

ROLLOUTS = 3  # the first is slower than the others, and not counted


class _Enough(Exception):
    """Training may end: all that was asked for is measured."""


@dataclass(frozen=True)
class Duration:
    """Hold how long a training takes, in seconds.

    Attributes:
        whole: all its steps, and held-out accuracy as often as it is measured.
        step: one optimiser step, its share of the rollout included.
        validation: measuring held-out accuracy once; 0 where it is not measured.
        steps: optimiser steps.
    """

    whole: float
    step: float
    validation: float
    steps: int

    def __str__(self) -> str:
        validation = f", held-out accuracy {self.validation:.2g} s each time" if self.validation else ""
        return f"about {spoken(self.whole)} on this machine ({self.step:.2g} s a step{validation}, measured)"


def spoken(seconds: float) -> str:
    """Say a length of time in the unit that one would use, not more exactly than it is known."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    if minutes < 120:
        return f"{round(minutes)} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"


def seconds_from(rows: Sequence[Mapping[str, Any]], steps: int, every: int | None) -> Duration:
    """Return how long a training takes, from the rows of its first rollouts.

    Args:
        rows: of the optimiser steps, in order, with `seconds/step`; a rollout begins where `rollout` is.
        steps: of the whole training.
        every: rollouts from one measurement of held-out accuracy to the next; None where it is not measured.
    """
    held_out = [row["seconds/validation"] for row in rows if row.get("seconds/validation") is not None]
    validation = sum(held_out) / len(held_out) if held_out else 0.0
    begins = [i for i, row in enumerate(rows) if "rollout" in row] or list(range(len(rows)))
    # Whole rollouts, without the first where there are others.
    counted = rows[begins[1] : begins[-1]] if len(begins) > 2 else rows
    taken = sum(row["seconds/step"] - (row.get("seconds/validation") or 0.0) for row in counted)
    step = taken / len(counted)
    updates = begins[-1] / (len(begins) - 1) if len(begins) > 1 else len(rows)
    times = steps / updates / every + 1 if every and validation else 0.0
    return Duration(steps * step + times * validation, step, validation, steps)


def measure(recipe: Recipe) -> list[Duration]:
    """Train the first rollouts of every stage, and return how long each stage takes, in order.

    A later stage is measured on the model that the first begins with. Everything is written to a folder of its own,
    which is removed; no checkpoint is saved.

    Raises:
        UserError: what the recipe names can't be loaded, or its training fails.
    """
    found = []
    for _, stage in recipe.expanded():
        grpo = {**stage.grpo, "save_strategy": "no", "report_to": "none"}  # no tracker hears of it
        stage = stage.model_copy(update={"grpo": grpo, "model": recipe.model})
        with tempfile.TemporaryDirectory(prefix="entropilot-time-") as folder:
            found.append(_of_one(stage, Path(folder) / "run"))
    return found


def _of_one(recipe: Recipe, out: Path) -> Duration:
    rows: list[dict[str, Any]] = []
    total = 0

    def begin(steps: int) -> None:
        nonlocal total
        total = steps

    def take(_: int, values: dict[str, Any]) -> None:
        if "seconds/step" in values:
            rows.append(values)
        begun = sum("rollout" in row for row in rows) or len(rows)
        if begun > ROLLOUTS:
            raise _Enough

    with suppress(_Enough):
        run(check(recipe, out), on_start=begin, on_row=take)
    every = None if recipe.validation is None else recipe.validation.every
    return seconds_from(rows, total, every)
