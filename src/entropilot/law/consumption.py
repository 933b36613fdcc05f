"""Measure how early a run loses its entropy, and how early it gains."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropilot.analysis.values import flat
from entropilot.errors import UserError

Array = NDArray[np.float64]


class Consumption(NamedTuple):
    """Hold what the first share of the steps of a run took and gave.

    The paper has 73 % of the entropy and 76 % of the gain in the first twelfth (200 of 2,400 gradient steps).

    Attributes:
        share: of the steps.
        step: the step at which it ends.
        entropy: the share of the whole fall of H that was over by then; nan where H did not fall.
        gain: the share of the whole rise of R; nan where R did not rise.
    """

    share: float
    step: float
    entropy: float
    gain: float


def consumption(
    steps: ArrayLike,
    entropy: ArrayLike,
    performance: ArrayLike,
    share: float = 1 / 12,
    window: float = 0.05,
) -> Consumption:
    """Return the shares of entropy and of gain of the first share of the steps.

    A run starts at its first values, and ends at the means of the last `window` of its steps; in between, values are
    means over `window` of the steps around (narrower near the start, so that a fast fall is not smoothed away).

    Args:
        steps: increasing.
        entropy: H, nats; a value that is not finite counts as not measured.
        performance: R, likewise.
        share: of the steps from the first to the last.
        window: of the steps.

    Raises:
        UserError: fewer than 3 values of either, or a share that is not between 0 and 1.
    """
    t, h, r = flat("steps", steps), flat("entropy", entropy), flat("performance", performance)
    if not t.shape == h.shape == r.shape:
        raise UserError(
            f"Steps, entropies and performances must be as many, but are {t.size}, {h.size}, {r.size}."
        )
    if not (np.isfinite(t).all() and (np.diff(t) > 0).all()):
        raise UserError("The steps of a run must be finite and increasing.")
    for name, value in (("share", share), ("window", window)):
        if not 0 < value < 1:
            raise UserError(f"The {name} of the steps must be between 0 and 1, but it is {value:g}.")
    if min(np.isfinite(h).sum(), np.isfinite(r).sum()) < 3:
        raise UserError("What a run spent needs 3 or more entropies and 3 or more performances.")
    step = float(t[0] + share * (t[-1] - t[0]))
    reach = min(window / 2 * (t[-1] - t[0]), step - t[0])
    return Consumption(share, step, _spent(t, -h, step, reach, window), _spent(t, r, step, reach, window))


def _spent(t: Array, values: Array, step: float, reach: float, window: float) -> float:
    """Return the share of the whole rise of values that is over at a step."""
    known = np.isfinite(values)
    t, values = t[known], values[known]
    last = t >= t[-1] - window * (t[-1] - t[0])
    first, end = float(values[0]), float(values[last].mean())
    if end <= first:
        return math.nan
    near = np.abs(t - step) <= reach
    # Between two measurements, the straight line is taken.
    here = float(values[near].mean()) if near.any() else float(np.interp(step, t, values))
    return (here - first) / (end - first)
