"""Build a run from gathered rows: the step of each row, repeats after a resume, validations joined to entropy."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entropilot.errors import UserError
from entropilot.readers.columns import Column, option
from entropilot.readers.gather import GAPS, NO_STEP, Gathered
from entropilot.readers.lines import listed, shown
from entropilot.readers.names import ACCURACY, REWARD

JOINED = "joined/entropy_step"
_RESERVED = "kind"  # in a row of run.jsonl it tells what is no step
_LARGEST_STEP = 2.0**53

Steps = dict[int, dict[str, Any]]


def count_columns(gathered: Gathered, path: Path) -> Counter[str]:
    """Return how many numbers each column holds.

    Raises:
        UserError: there is no number at all.
    """
    kinds: Counter[tuple[str, ...]] = Counter(map(tuple, gathered.rows))  # rows of few kinds: faster by far
    counts: Counter[str] = Counter()
    for names, rows in kinds.items():
        for name in names:
            counts[name] += rows
    if not counts:
        skipped = ", ".join(f"{count} {reason}" for reason, count in gathered.skipped.items()) or "nothing"
        raise UserError(f"{path} holds no row of numbers; skipped: {skipped}.")
    return counts


def choose_step(
    asked: str | None, counts: Counter[str], axes: Sequence[tuple[str, ...]], path: Path
) -> tuple[Column, tuple[str, ...]]:
    """Take the columns of steps out of the counts; return the column, and all whose numbers count as its steps.

    Raises:
        UserError: there is none.
    """
    wanted = axes if asked is None else ((asked,),)
    axis = next((axis for axis in wanted if any(name in counts for name in axis)), None)
    if axis is None:
        lacks = "no column of steps" if asked is None else f"no column {shown(asked)} that holds a number"
        raise UserError(
            f"{path} has {lacks}; name the steps with {option('step')}, one of {listed(list(counts), 40)}."
        )
    present = [name for name in axis if counts.pop(name, 0)]
    others = [name for name in dict.fromkeys(name for axis in axes for name in axis) if name in counts]
    column = Column(
        "step", present[0], "step", asked is not None, tuple(present[1:] + others), "1", "as logged"
    )
    return column, (present[0], *(name for name in axis if name != present[0]))


def by_step(gathered: Gathered, axis: Sequence[str], roles: Sequence[str], path: Path) -> Steps:
    """Return one row per step, in order of step; of what a step has twice, the later value.

    Args:
        gathered: the rows; they are used up.
        axis: the columns of steps.
        roles: the columns of entropy and performance; a step that has one of them twice was logged again.
        path: the log, for messages.

    Raises:
        UserError: no row has a step.
    """
    steps: Steps = {}
    again: set[int] = set()
    last, aside, wanted = -1, 0, frozenset(roles)
    for row in gathered.rows:
        step = _step(row, axis)
        if step is None:
            needed = not row.keys().isdisjoint(wanted)
            gathered.skipped[NO_STEP] += needed
            aside += not needed
            continue
        kept = steps.setdefault(step, row)
        if kept is not row:
            if any(role in kept and role in row for role in roles):
                again.add(step)
            kept.update(row)
        if not row.keys().isdisjoint(wanted):
            last = step
    gathered.rows = []
    if not steps:
        raise UserError(
            f"{path} has no row whose {shown(axis[0])} is a whole number from 0 up; name the steps with "
            f"{option('step')}."
        )
    if aside:
        gathered.notes.append(
            f"{aside} rows without {listed(list(axis))} hold neither entropy nor performance, and are left out."
        )
    if again:
        _say_again(sorted(again), max(steps), last, gathered.notes)
    order = sorted(steps)
    return steps if order == list(steps) else {step: steps[step] for step in order}


def _step(row: dict[str, float], axis: Sequence[str]) -> int | None:
    for name in axis:
        value = row.get(name)
        if value is not None:
            return int(value) if 0 <= value < _LARGEST_STEP and value == int(value) else None
    return None


def _say_again(again: list[int], top: int, last: int, notes: list[str]) -> None:
    if len(again) == 1:
        notes.append(f"Step {again[0]} occurs twice; the later row is used.")
    else:
        notes.append(
            f"{len(again)} steps from {again[0]} to {again[-1]} occur more than once, as after a resume; "
            "the later row of each is used."
        )
    if last < top:
        notes.append(
            f"The log ends at step {last}, but an earlier session got to {top}; what is past {last} is that session's."
        )


def average(steps: Steps, column: Column, notes: list[str]) -> None:
    """Give each row that has all sets of a validation their mean, under the column's source."""
    if len(column.sources) < 2:
        return
    some = 0
    for row in steps.values():
        values = [row[name] for name in column.sources if name in row]
        if len(values) == len(column.sources):
            row[column.source] = statistics.fmean(values)
        else:
            some += bool(values)
    if some:
        notes.append(f"{some} steps have only some of the validation sets, and no mean.")


def as_share(steps: Steps, column: Column, notes: list[str]) -> None:
    """Divide an accuracy in percent by 100, in the rows of a run; the log's own column stays as it is."""
    values = [row[ACCURACY] for row in steps.values() if ACCURACY in row]
    if column.name != ACCURACY or column.source == ACCURACY or not values:
        return
    if 1 < max(values) <= 100 and min(values) >= 0:
        for row in steps.values():
            if ACCURACY in row:
                row[ACCURACY] /= 100
        notes.append(
            f"{shown(column.source)} reaches {max(values):.4g}, so it is taken as percent; {ACCURACY} is a hundredth of it."
        )


def count_gaps(steps: Steps, entropy: str, gathered: Gathered) -> int:
    """Return the interval at which entropy was logged, and count the steps at which it was due and is missing."""
    logged = [step for step, row in steps.items() if entropy in row]
    apart = [after - before for before, after in zip(logged, logged[1:], strict=False)]
    if not apart:
        return 1
    interval = int(statistics.median_low(apart))
    missing = sum(max(0, gap // interval - 1) for gap in apart)
    if missing:
        gathered.skipped[GAPS] += missing
    return interval


def rename(steps: Steps, columns: Sequence[Column], gathered: Gathered) -> None:
    """Give each row the chosen values under the names of a run, beside the log's own.

    Of a log that was thinned, the rest is dropped: a row of five values takes two thirds of the room of one of six.
    """
    taken = {column.name for column in columns if column.name != column.source}
    dropped = sorted({name for row in steps.values() for name in taken if name in row})
    pairs = [(column.name, column.source) for column in columns]
    for step, row in steps.items():
        values = {name: row[source] for name, source in pairs if source in row}
        if gathered.thinned:
            steps[step] = {column.source: row[column.source] for column in columns if column.source in row}
            row = steps[step]
        for name in (*dropped, _RESERVED):
            row.pop(name, None)
        row.update(values)
        row["step"] = step
    if gathered.thinned:
        gathered.notes.append(
            f"The log holds so many values that only {listed([column.source for column in columns])} are kept."
        )
    elif dropped:
        gathered.notes.append(
            f"The log's own {listed(dropped)} is left out, because another column is read under that name."
        )


def join(steps: Steps, entropy: Column, performance: Column, interval: int, notes: list[str]) -> None:
    """Give each row with a validation the entropy of its step, else the nearest before it within one interval.

    A training reward has the entropy of its step, or none: where that is missing, it was not measured or not finite.
    """
    logged = [step for step, row in steps.items() if entropy.name in row]
    joined: Counter[str] = Counter()
    for step, row in steps.items():
        if performance.name not in row:
            continue
        if entropy.name in row:
            joined["same"] += 1
            continue
        at = bisect_right(logged, step) - 1
        if performance.name != REWARD and at >= 0 and step - logged[at] <= interval:
            row[entropy.name] = steps[logged[at]][entropy.name]
            row[JOINED] = logged[at]
            joined["before"] += 1
        else:
            joined["none"] += 1
    total = sum(joined.values())
    if joined["same"] < total or total < len(logged):
        text = f"Of {total} values of {shown(performance.source)}, {joined['same']} have the entropy of their step"
        text += (
            f", {joined['before']} the nearest before it (at most {interval} steps)"
            if joined["before"]
            else ""
        )
        text += f", {joined['none']} none and take no part in a law" if joined["none"] else ""
        notes.append(text + ".")


def doubts(steps: Steps, columns: Sequence[Column], performance: Column, gathered: Gathered) -> list[str]:
    """Return sentences on values that can't be what their column's name says, or were left out of it."""
    notes = []
    for column in columns:
        if count := gathered.unusable[column.source]:
            notes.append(f"{shown(column.source)}: {count} of its values are NaN or ±inf and were skipped.")
    for entropy in (column for column in columns if column.role == "entropy"):
        if below := sum(row.get(entropy.name, 0.0) < 0 for row in steps.values()):
            notes.append(
                f"{shown(entropy.source)} is below 0 at {below} steps, which the entropy of a token never is; check its "
                "sign."
            )
    if performance.name == ACCURACY:
        top = max((row[ACCURACY] for row in steps.values() if ACCURACY in row), default=0.0)
        if top > 1:
            notes.append(
                f"{shown(performance.source)} reaches {top:.4g}, so it is neither a share between 0 and 1 nor percent."
            )
    return notes
