"""Measure the peak of a run's validation accuracy and the fall after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from entropilot.records import ACCURACY, Run

WINDOW = 3  # measurements that are averaged
FALL = 0.05  # from here on a run counts as fallen


@dataclass(frozen=True)
class Course:
    """Hold the end and the peak of a run's accuracy, each a mean of three measurements.

    Attributes:
        start: the first measurement, of the base model.
        peak: the highest mean.
        peak_step: the optimiser step of its last measurement.
        lowest: the lowest mean from the peak on.
        end: the last mean.
    """

    start: float
    peak: float
    peak_step: int
    lowest: float
    end: float

    @property
    def fall(self) -> float:
        """Return what is lost between the peak and the end."""
        return self.peak - self.end

    @property
    def fell(self) -> bool:
        """Return whether 5 points or more are lost at the end."""
        return self.fall >= FALL


def course(steps: Sequence[int], accuracy: Sequence[float]) -> Course | None:
    """Return the course of a run; None where it has fewer than three measurements."""
    if len(accuracy) < WINDOW:
        return None
    smooth = np.convolve(accuracy, np.full(WINDOW, 1 / WINDOW), mode="valid")
    top = int(smooth.argmax())  # the first of several
    return Course(
        start=float(accuracy[0]),
        peak=float(smooth[top]),
        peak_step=int(steps[top + WINDOW - 1]),
        lowest=float(smooth[top:].min()),
        end=float(smooth[-1]),
    )


def course_of(run: Run, horizon: int | None = None) -> Course | None:
    """Return the course of a run, up to an optimiser step."""
    measured = [(s, a) for s, a in run.column(ACCURACY) if horizon is None or s <= horizon + 1]
    steps, accuracy = zip(*measured, strict=True) if measured else ((), ())
    return course(steps, accuracy)
