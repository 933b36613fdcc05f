"""Ask what tells a fall without labels: set an alarm of every signal on some runs, and count its hits on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.errors import UserError
from entropilot.records import read_run
from experiments.label_free.falls import FALL, course_of

WINDOW = 8  # rollouts that are averaged
MAJORITY = "semantic/majority_accuracy"

# A rise (1) or a fall (-1) of the signal is taken for a warning.
SIGNALS: dict[str, tuple[str, int]] = {
    "flip rate rises": ("semantic/flip_rate", 1),
    "margin falls": ("semantic/margin", -1),
    "semantic entropy rises": ("semantic/entropy", 1),
    "reward falls": ("reward/mean", -1),
    "token entropy rises": ("entropy/policy_T1", 1),
    "token entropy falls": ("entropy/policy_T1", -1),
    "length rises": ("completion/length", 1),
    "length falls": ("completion/length", -1),
}


def smoothed(folder: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps and the means over eight rollouts of a metric; both empty where there are fewer."""
    measured = read_run(folder).column(metric)
    if len(measured) < WINDOW:
        return np.empty(0), np.empty(0)
    steps, values = map(np.array, zip(*measured, strict=True))
    return steps[WINDOW - 1 :], np.convolve(values, np.full(WINDOW, 1 / WINDOW), mode="valid")


def departure(folder: Path, metric: str, direction: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps, and how far the smoothed metric has gone in a direction from its best so far."""
    steps, values = smoothed(folder, metric)
    return steps, direction * values - np.minimum.accumulate(direction * values)


def first_beyond(folder: Path, metric: str, direction: int, limit: float) -> int | None:
    """Return the first step at which a metric has gone farther than `limit` in a direction; None if it never does."""
    steps, gone = departure(folder, metric, direction)
    places = np.flatnonzero(gone > limit + 1e-9)
    return int(steps[places[0]]) if places.size else None


def best_limit(folders: Sequence[Path], metric: str, direction: int) -> float | None:
    """Return the limit that tells runs that fall from runs that do not best; None where there are not both.

    Best is the largest share of falling runs with an alarm less that of the others; of several limits in a row the one in
    their middle.
    """
    reached = [float(departure(folder, metric, direction)[1].max(initial=0.0)) for folder in folders]
    fell = np.array([course is not None and course.fell for course in map(course_of, folders)])
    if fell.all() or not fell.any():
        return None
    edges = np.unique([0.0, *reached])
    limits = (edges[1:] + edges[:-1]) / 2
    if not limits.size:
        return None
    alarm = np.array(reached)[None, :] > limits[:, None]
    score = alarm[:, fell].mean(axis=1) - alarm[:, ~fell].mean(axis=1)
    best = np.flatnonzero(score == score.max())
    return float(limits[best[len(best) // 2]])


def limits_of(folders: Sequence[Path]) -> dict[str, float | None]:
    """Return every signal's limit, set on the runs in these folders."""
    found = {words: best_limit(folders, *signal) for words, signal in SIGNALS.items()}
    return {
        words: None if limit is None else float(f"{limit:.6g}") for words, limit in found.items()
    }  # as stored


def told(folder: Path, limits: Mapping[str, float | None]) -> dict[str, int | None]:
    """Return the first step at which each signal that the run has goes beyond its limit; None where it never does.

    A signal without a limit, and one that the run does not have, is left out: it was not silent, it was not there.
    """
    return {
        words: first_beyond(folder, metric, direction, limit)
        for words, (metric, direction) in SIGNALS.items()
        if (limit := limits.get(words)) is not None and smoothed(folder, metric)[0].size
    }


def damage(folder: Path) -> int | None:
    """Return the first step at which majority accuracy has lost 5 points; None where it never does."""
    return first_beyond(folder, MAJORITY, -1, FALL)


def alarms(limits: Mapping[str, float | None], rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a table: for every signal its limit, and what it does on runs that did not set it.

    The lead is in updates, the median over falling runs with an alarm, before majority accuracy has lost 5 points. Of
    runs that do not have a signal nothing is counted.

    Args:
        limits: by signal, as `limits_of` returns them.
        rows: of every run its `fall`, its `damage`, and what was `told` by which `limits`; rows of earlier versions were
            not told.

    Raises:
        UserError: a row was told by another limit.
    """
    table = [["signal", "limit", "falls told", "false alarms", "lead (updates)"]]
    for words in SIGNALS:
        limit = limits.get(words)
        having = [row for row in rows if words in row.get("told", {})]
        if any(row["limits"][words] != limit for row in having):
            raise UserError("Some rows were told by other limits; make them again, or give no --tuned-on.")
        if limit is None or not having:
            table.append([words, "–" if limit is None else f"{limit:.3g}", "–", "–", "–"])
            continue
        fell = [row for row in having if row["fall"] >= FALL]
        held = [row for row in having if row["fall"] < FALL]
        leads = [
            row["damage"] - row["told"][words]
            for row in fell
            if row["told"][words] is not None and row["damage"] is not None
        ]
        counts = (
            f"{sum(row['told'][words] is not None for row in group)} of {len(group)}"
            for group in (fell, held)
        )
        table.append([words, f"{limit:.3g}", *counts, f"{np.median(leads):.0f}" if leads else "–"])
    return table
