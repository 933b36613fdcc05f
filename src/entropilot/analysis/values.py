"""Convert rows and columns of a run to checked float64 arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropilot.errors import UserError

MAX_NATS = 700.0  # exp overflows float64 just above; a vocabulary of 150,000 tokens holds at most 11.9 nats
_ROUNDING = 1e-12  # a spread below this share of the values is rounding, not data


def flat(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return values as one row of float64."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"The law needs plain numbers as {name}, in one dimension.") from error
    if array.ndim != 1:
        raise UserError(f"The law needs {name} in one dimension, but its shape is {array.shape}.")
    return array


def constant(values: NDArray[np.float64], floor: float = 0.0) -> bool:
    """Tell whether values differ by no more than rounding."""
    return bool(np.ptp(values) <= _ROUNDING * max(floor, float(np.abs(values).max())))


def check_nats(values: NDArray[np.float64]) -> None:
    """Refuse entropies that no vocabulary has."""
    if values.size and float(np.abs(values).max()) > MAX_NATS:
        worst = float(values[np.abs(values).argmax()])
        raise UserError(
            f"An entropy of {worst:.4g} is beyond any vocabulary; give entropies per token, in nats."
        )


def check_level(level: float) -> None:
    """Refuse a level that is no probability strictly between 0 and 1."""
    if not 0 < level < 1:
        raise UserError(f"An interval needs a level between 0 and 1, such as 0.95, but it is {level:g}.")


class Interval(NamedTuple):
    """Hold the two ends of an interval."""

    low: float
    high: float
