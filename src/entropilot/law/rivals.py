"""Predict a later performance without the law: the shapes over training steps that a forecast is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from entropilot.law.calibration import Allowed

Array = NDArray[np.float64]
Predictor = Callable[[Array, Array, float, Allowed], float]

LEAST = 6  # points below which a shape over steps is not fitted
_FLOOR = 0.01  # of 1 − R, so that one perfect batch does not decide a logarithm


def recent(values: Array) -> float:
    """Return the mean of the last tenth of the values, of 3 at least."""
    return float(values[-max(3, values.size // 10) :].mean())


def no_change(steps: Array, performance: Array, last_step: float, allowed: Allowed) -> float:
    """Predict what was measured lately: the mean of the last tenth of the points, of 3 at least."""
    return recent(performance)


def linear_in_log_step(steps: Array, performance: Array, last_step: float, allowed: Allowed) -> float:
    """Predict R = c + k·log X by least squares, X the steps trained, counted from one gap before the first point."""
    x, ahead = _compute(steps, last_step)
    slope, const = np.polyfit(np.log(x), performance, 1)
    return float(const + slope * math.log(ahead))


def log_linear(steps: Array, performance: Array, last_step: float, allowed: Allowed) -> float:
    """Predict from log(1 − R) = −k·log X + E by least squares; for R with a best value of 1, else of the allowed top."""
    x, ahead = _compute(steps, last_step)
    span = allowed.high - allowed.low
    gap = np.log(np.maximum((allowed.high - performance) / span, _FLOOR))
    slope, const = np.polyfit(np.log(x), gap, 1)
    return float(allowed.high - span * math.exp(min(const + slope * math.log(ahead), 0.0)))


def sigmoid(steps: Array, performance: Array, last_step: float, allowed: Allowed) -> float:
    """Predict ScaleRL's R₀ + (A − R₀)/(1 + (C_mid/C)^B), R₀ fixed (arXiv:2510.13786, Eq. 1).

    R₀ is the mean of the first twentieth of the points, C the steps trained. A is by least squares for each (C_mid, B)
    of a grid, within the allowed range.
    """
    x, ahead = _compute(steps, last_step)
    first = float(performance[: max(1, performance.size // 20)].mean())
    target = performance - first
    middles, powers = np.geomspace(x[0], 10 * ahead, 25), np.geomspace(0.3, 6.0, 15)
    middle = power = size = 0.0
    for _ in range(4):  # each time, the grid is laid around the best cell of the one before
        cells = [grid.ravel()[:, None] for grid in np.meshgrid(middles, powers)]
        shape = 1 / (1 + (cells[0] / x) ** cells[1])
        sizes = (shape @ target) / (shape**2).sum(axis=1)
        sizes = np.clip(sizes, allowed.low - first, allowed.high - first)
        best = int(((target - sizes[:, None] * shape) ** 2).sum(axis=1).argmin())
        middle, power, size = float(cells[0][best, 0]), float(cells[1][best, 0]), float(sizes[best])
        middles, powers = _around(middles, middle), _around(powers, power)
    return first + size / (1 + (middle / ahead) ** power)


def _around(axis: Array, centre: float) -> Array:
    """Return as many points, evenly in the logarithm, from the neighbour below to the neighbour above."""
    ratio = axis[1] / axis[0]
    return np.geomspace(max(centre / ratio, axis[0]), min(centre * ratio, axis[-1]), axis.size)


RIVALS: dict[str, Predictor] = {
    "no change": no_change,
    "sigmoid of the step": sigmoid,
    "log(1 - R) linear in log step": log_linear,
    "linear in log step": linear_in_log_step,
}


def predict_all(steps: Array, performance: Array, last_step: float, allowed: Allowed) -> dict[str, float]:
    """Predict R at a later step by every rival, held within the allowed range.

    Args:
        steps: (n,) of the prefix, increasing.
        performance: (n,) R at each.
        last_step: the step to predict.
        allowed: the range that R can take.

    Returns:
        By name; with fewer than 6 points only `no change`.
    """
    names = RIVALS if steps.size >= LEAST else ("no change",)
    return {
        name: float(np.clip(RIVALS[name](steps, performance, last_step, allowed), allowed.low, allowed.high))
        for name in names
    }


def errors_on_own_end(steps: Array, performance: Array, allowed: Allowed) -> dict[str, float]:
    """Measure each rival on the end of the prefix itself: fitted on the first two thirds, held against the last values.

    Returns:
        |predicted − mean of the last tenth| by name; empty where two thirds are fewer than 6 points.
    """
    kept = round(steps.size * 2 / 3)
    if kept < LEAST:
        return {}
    target = recent(performance)
    predicted = predict_all(steps[:kept], performance[:kept], float(steps[-1]), allowed)
    return {name: abs(value - target) for name, value in predicted.items()}


def _compute(steps: Array, last_step: float) -> tuple[Array, float]:
    """Return the steps trained at each point and at the end, counted from one gap before the first point."""
    gap = float(np.median(np.diff(steps)))
    return steps - steps[0] + gap, last_step - float(steps[0]) + gap
