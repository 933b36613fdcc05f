"""Ask what tells a fall without labels: set an alarm of every signal on some runs, and count its hits on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from entropilot.records import Run
from experiments.label_free.falls import FALL

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


def rises_of(run: Run, metric: str, direction: int) -> list[list[float]] | None:
    """Return the steps at which a metric has gone farther than ever before in a direction from its best, and how far.

    The metric is a mean over eight rollouts, and how far has six digits. Empty where it never does; None where the run has
    fewer rollouts with it. It is all that an alarm of any limit needs.
    """
    measured = run.column(metric)
    if len(measured) < WINDOW:
        return None
    steps, values = map(np.array, zip(*measured, strict=True))
    smooth = direction * np.convolve(values, np.full(WINDOW, 1 / WINDOW), mode="valid")
    gone = smooth - np.minimum.accumulate(smooth)
    found: list[list[float]] = []
    for step, distance in zip(steps[WINDOW - 1 :].tolist(), gone.tolist(), strict=True):
        if distance > (found[-1][1] if found else 0.0) + 1e-9:
            found.append([step, float(f"{distance:.6g}")])
    return found


def first_beyond(rises: Sequence[Sequence[float]], limit: float) -> float | None:
    """Return the first step at which a metric has gone farther than `limit`; None if it never does."""
    return next((step for step, gone in rises if gone > limit + 1e-9), None)


def signals_of(run: Run) -> dict[str, list[list[float]]]:
    """Return the rises of every signal that a run has.

    A signal that the run does not have is left out: it was not silent, it was not there.
    """
    found = {words: rises_of(run, *signal) for words, signal in SIGNALS.items()}
    return {words: rises for words, rises in found.items() if rises is not None}


def damage(run: Run) -> float | None:
    """Return the first step at which majority accuracy has lost 5 points; None where it never does."""
    return first_beyond(rises_of(run, MAJORITY, -1) or [], FALL)


def limits_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return every signal's limit: the one that tells runs that fall from runs that do not best.

    Best is the largest share of falling runs with an alarm less that of the others; of several limits in a row the one in
    their middle. None where not both kinds have the signal.

    Args:
        rows: of every run its `fall` and its `signals`.
    """
    found: dict[str, float | None] = {}
    for words in SIGNALS:
        having = [row for row in rows if words in row.get("signals", {})]
        fell = np.array([row["fall"] >= FALL for row in having], dtype=bool)
        found[words] = None
        if not having or fell.all() or not fell.any():
            continue
        reached = [row["signals"][words][-1][1] if row["signals"][words] else 0.0 for row in having]
        edges = np.unique([0.0, *reached])
        limits = (edges[1:] + edges[:-1]) / 2
        if limits.size:
            alarm = np.array(reached)[None, :] > limits[:, None]
            score = alarm[:, fell].mean(axis=1) - alarm[:, ~fell].mean(axis=1)
            best = np.flatnonzero(score == score.max())
            found[words] = float(f"{limits[best[len(best) // 2]]:.6g}")  # as it is stored
    return found


def alarms(limits: Mapping[str, float | None], rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a table: for every signal its limit, and what it does on runs that did not set it.

    The lead is in updates, the median over falling runs with an alarm, before majority accuracy has lost 5 points. Of
    runs that do not have a signal nothing is counted.

    Args:
        limits: by signal, as `limits_of` returns them.
        rows: of every run its `fall`, its `damage` and its `signals`; rows of earlier versions have none.
    """
    table = [["signal", "limit", "falls told", "false alarms", "lead (updates)"]]
    for words in SIGNALS:
        limit = limits.get(words)
        having = [row for row in rows if words in row.get("signals", {})]
        if limit is None or not having:
            table.append([words, "–" if limit is None else f"{limit:.3g}", "–", "–", "–"])
            continue
        told = [(row, first_beyond(row["signals"][words], limit)) for row in having]
        groups = [[at for row, at in told if (row["fall"] >= FALL) == fell] for fell in (True, False)]
        counts = (f"{sum(at is not None for at in group)} of {len(group)}" for group in groups)
        leads = [
            row["damage"] - at
            for row, at in told
            if row["fall"] >= FALL and at is not None and row["damage"] is not None
        ]
        table.append([words, f"{limit:.3g}", *counts, f"{np.median(leads):.0f}" if leads else "–"])
    return table
