"""Say in three sentences what happened in a run, in words that need no paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from entropilot.records import ACCURACY, ENTROPY, REWARD, Run
from entropilot.reports.table import entropy_name, series
from entropilot.reports.text import mapping, number, one_line

WINDOW = 0.05  # share of the points that are averaged before a peak is looked for


class Course(NamedTuple):
    """Hold how a metric went: averages over a few neighbouring points, so that noise makes no peak."""

    first_step: int
    start: float
    last_step: int
    end: float
    peak_step: int
    peak: float


def course(steps: Sequence[int], values: Sequence[float]) -> Course | None:
    """Return start, end and peak of a series; None without a value."""
    if not values:
        return None
    width = max(1, round(WINDOW * len(values)))
    means = [sum(values[i : i + width]) / width for i in range(len(values) - width + 1)]
    top = max(range(len(means)), key=means.__getitem__)
    middle = top + width // 2
    return Course(steps[0], values[0], steps[-1], values[-1], steps[middle], means[top])


ENTROPY_IS = (
    "Entropy measures how undecided the model is about its next word: at 0 nats it is certain, 0.69 nats is a coin toss "
    "between two words. A certain model gives the same answer again and again, and stops improving."
)


def sentences(run: Run, summary: Mapping[str, Any]) -> list[str]:
    """Return what the numbers of a run say: entropy, performance, and the law with its verdict."""
    return [_entropy(run), *_performance(run), _law(summary), *_end(run)]


def _entropy(run: Run) -> str:
    name = entropy_name(run)
    if name is None:
        return "Entropy was not recorded."
    steps, values = series(run, name)
    went = course(steps, values)
    assert went is not None
    which = (
        "" if name == ENTROPY else f" (here {name}, the training entropy: policy entropy was not recorded)"
    )
    lead = f"Entropy{which} "
    updates = went.last_step - went.first_step
    over = f" in {updates:,} update{'' if updates == 1 else 's'}" if updates else ""
    start, end = number(went.start), number(went.end)
    if start == end:
        return f"{lead}stayed at {end} nats{over}."
    text = f"{lead}{'fell' if went.end < went.start else 'rose'} from {start} to {end} nats"
    if went.start > 0:
        text += f" ({100 * (went.end / went.start - 1):+.0f} %)".replace("-", "−")
    text += over
    if went.peak > 1.1 * max(went.start, went.end) and went.end < went.start:
        text += f", after a peak of {number(went.peak)} at step {went.peak_step:,}"
    return text + "."


def _performance(run: Run) -> list[str]:
    said = []
    for metric, words in ((ACCURACY, "Accuracy on held-out problems"), (REWARD, "The training reward")):
        steps, values = series(run, metric)
        went = course(steps, values)
        if went is None:
            continue
        start, end = number(went.start), number(went.end)
        moved = (
            f"stayed at {end}"
            if start == end
            else f"{'rose' if went.end > went.start else 'fell'} from {start} to {end}"
        )
        text = f"{words} {moved}"
        drop = went.peak - went.end
        if drop > 0.05 * max(abs(went.peak), abs(went.peak - went.start), 1e-12):
            text += f"; its peak was {number(went.peak)} at step {went.peak_step:,}, and it fell by {number(drop)}"
            text += " after that"
        said.append(text + ".")
    return said[:1] or ["Neither held-out accuracy nor a training reward was recorded."]


def _law(summary: Mapping[str, Any]) -> str:
    verdict = one_line(summary["verdict"]).rstrip(".")
    if not summary["has_ceiling"]:
        return f"{verdict[:1].upper()}{verdict[1:]}."
    low, high = summary.get("ceiling_interval") or (None, None)
    range_ = f" (95 % interval {number(low)} to {number(high)})" if _finite(low) and _finite(high) else ""
    performance = "accuracy" if summary["performance"] == ACCURACY else summary["performance"]
    return (
        f"Drawn on to zero entropy, the curve of {performance} over entropy ends at {number(summary['ceiling'])}{range_}, "
        f"the ceiling: {verdict}."
    )


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _end(run: Run) -> list[str]:
    end = mapping(run.header.get("end"))
    if not end:
        return (
            []
            if "framework" in run.header
            else ["The record has no end: the run was killed, or still goes on."]
        )
    reason = one_line(end.get("reason", ""), 200).rstrip(".")
    return (
        []
        if reason in ("finished", "converted")
        else [f"The run did not finish: {reason or 'no reason was recorded'}."]
    )
