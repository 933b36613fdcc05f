"""Turn a prediction into an interval, with constants from the errors that predictions made on public runs.

The constants are in `calibration.json`; `experiments/forecast_calibration` makes it, and docs/results/real_runs.md
says how often the intervals held the truth on runs of repositories that had been left out. Few repositories are
behind them, so they are no guarantee for a run of another kind.
"""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from entropilot.analysis.values import Interval

Array = NDArray[np.float64]

LEVEL = 0.95
MOST_NATS = 12.5  # ln of a vocabulary of 268,000 tokens; today's are smaller
SMALL = 0.01  # nats, added before the logarithm of an entropy, so that 0.001 and 0.002 are near each other


class Allowed(NamedTuple):
    """Hold the range that R can take, and a unit to compare runs in: the range of a share, else what was seen."""

    low: float
    high: float
    unit: float


class Constants(NamedTuple):
    """Hold what was calibrated for one share of a run.

    Attributes:
        share: the prefix's share of the run, at least.
        held: the share of the public runs whose last measurement lay in the interval made without their repository; None
            for a share below all that were tabulated.
        floor: a prediction's error is measured in standard deviations of the prefix plus this share of the unit.
        performance: the 2.5 % and 97.5 % quantiles of those errors, measured − predicted.
        entropy: the same quantiles of log((H + 0.01) / (predicted H + 0.01)).
    """

    share: float
    held: float | None
    floor: float
    performance: tuple[float, float]
    entropy: tuple[float, float]


def allowed_range(performance: Array, accuracy: bool) -> Allowed:
    """Say which values R can take: 0 to 1 for an accuracy, and for a reward of which all values lie there.

    For any other reward it is what was seen, widened by its own spread on both sides.
    """
    low, high = float(performance.min()), float(performance.max())
    if accuracy or (low >= 0 and high <= 1):
        low, high = min(low, 0.0), max(high, 1.0)
        return Allowed(low, high, high - low)
    spread = (high - low) or max(abs(high), 1e-6)
    return Allowed(low - spread, high + spread, spread)


def error_scale(performance: Array, allowed: Allowed, floor: float) -> float:
    """Return the size of an error that is to be expected: the prefix's standard deviation and a share of the unit."""
    return floor * allowed.unit + float(performance.std())


def performance_interval(
    predicted: float, performance: Array, allowed: Allowed, constants: Constants
) -> Interval:
    """Return the interval of one later measurement of R, within the allowed range."""
    scale = error_scale(performance, allowed, constants.floor)
    low, high = constants.performance
    ends = (predicted + min(low, 0.0) * scale, predicted + max(high, 0.0) * scale)
    return Interval(*(min(max(end, allowed.low), allowed.high) for end in ends))


def entropy_interval(predicted: float, constants: Constants, most: float = MOST_NATS) -> Interval:
    """Return the interval of one later measurement of H, from 0 to `most` nats."""
    low, high = constants.entropy
    factors = (min(low, 0.0), max(high, 0.0))
    ends = (math.exp(factor) * (predicted + SMALL) - SMALL for factor in factors)
    return Interval(*(min(max(end, 0.0), most) for end in ends))


def constants_for(share: float) -> Constants:
    """Return the constants of the longest tabulated prefix that is no longer than this share of the run.

    Below the shortest they are its own, and nobody has measured how many such intervals hold.
    """
    rows = table()
    fitting = [row for row in rows if row.share <= share + 1e-9]
    return fitting[-1] if fitting else rows[0]._replace(held=None)


@cache
def table() -> tuple[Constants, ...]:
    """Return all constants, by ascending share."""
    text = resources.files("entropilot.law").joinpath("calibration.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text)["rows"]
    return tuple(
        Constants(row["share"], row["held"], row["floor"], tuple(row["performance"]), tuple(row["entropy"]))
        for row in sorted(rows, key=lambda row: row["share"])
    )
