"""Predict a larger model from the small ones of its family: a and b are linear in ln size (arXiv:2505.22617)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropilot.analysis.values import Interval, check_level, check_nats
from entropilot.errors import UserError
from entropilot.law.law import LawFit

Array = NDArray[np.float64]

FAR = (
    4.0  # a size beyond this factor of the sizes fitted is called far; the paper's own step is from 7B to 32B
)


class Scaled(NamedTuple):
    """Hold what a family says of one size; each interval is of what a run of that size would be fitted to."""

    params: float
    a: float
    b: float
    ceiling: float
    a_interval: Interval
    b_interval: Interval
    ceiling_interval: Interval
    caution: str | None


@dataclass(frozen=True)
class Family:
    """Lines a(N) = a₀ + a₁·ln N and b(N) = b₀ + b₁·ln N through the fits of several sizes.

    The ceiling −a + b is then linear in ln N too. Plain least squares, in which the scatter around the lines is all
    there is of error: the seeds, data and noise of each size's own run are part of it.

    Attributes:
        params: (k,) non-embedding parameters, ascending.
        a, b: (k,) of the fits.
        a_line, b_line: (intercept, slope) over ln N.
    """

    params: Array
    a: Array
    b: Array
    a_line: tuple[float, float]
    b_line: tuple[float, float]

    def predict(self, params: float, level: float = 0.95) -> Scaled:
        """Predict the law of a size, with prediction intervals of Student's t on k − 2 degrees of freedom.

        Three sizes leave one degree of freedom, whose t is 12.7 at 95 %: the interval is wide because little is known.
        """
        check_level(level)
        _check_size(params)
        x = math.log(params)
        a, b = (line[0] + line[1] * x for line in (self.a_line, self.b_line))
        half_a, half_b, half_ceiling = (
            self._half(values, x, level) for values in (self.a, self.b, self.b - self.a)
        )
        return Scaled(
            params=float(params),
            a=a,
            b=b,
            ceiling=b - a,
            a_interval=Interval(a - half_a, a + half_a),
            b_interval=Interval(b - half_b, b + half_b),
            ceiling_interval=Interval(b - a - half_ceiling, b - a + half_ceiling),
            caution=self._caution(params, a),
        )

    def interval_at(self, params: float, entropy: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
        """Return the prediction interval of −a·exp(H) + b for a size, at entropies in nats."""
        check_level(level)
        _check_size(params)
        h = np.asarray(entropy, dtype=np.float64)
        check_nats(h.ravel())
        x = math.log(params)
        centre = np.empty(h.shape)
        half = np.empty(h.shape)
        for i, power in np.ndenumerate(np.exp(h)):
            intercept, slope = (b - power * a for a, b in zip(self.a_line, self.b_line, strict=True))
            centre[i] = intercept + slope * x
            half[i] = self._half(self.b - power * self.a, x, level)
        return centre - half, centre + half

    def _half(self, values: Array, x: float, level: float) -> float:
        from scipy.special import stdtrit

        size = np.log(self.params)
        k, centred = size.size, size - size.mean()
        slope = float(centred @ values / (centred @ centred))
        residual = values - values.mean() - slope * centred
        variance = float(residual @ residual) / (k - 2)
        leverage = 1 + 1 / k + (x - size.mean()) ** 2 / float(centred @ centred)
        return float(stdtrit(k - 2, 0.5 + level / 2)) * math.sqrt(variance * leverage)

    def _caution(self, params: float, a: float) -> str | None:
        said = []
        low, high = float(self.params[0]), float(self.params[-1])
        factor = max(params / high, low / params)
        if factor > FAR:
            where = "above the largest" if params > high else "below the smallest"
            said.append(f"the size is {factor:.3g} times {where} size fitted, a long way to extrapolate")
        if a < 0:
            said.append(f"the line puts a at {a:.3g}, below 0, where the law does not hold")
        if self.params.size == 3:
            said.append("three sizes leave one degree of freedom, so the intervals are wide")
        return "; ".join(said) or None


def fit_family(fits: Mapping[float, LawFit] | Mapping[float, tuple[float, float]]) -> Family:
    """Fit a(N) and b(N) to the laws of three or more sizes of one family, trained alike on the same data.

    Args:
        fits: by non-embedding parameters, each a `LawFit` or a pair (a, b).

    Raises:
        UserError: fewer than three sizes, or a size or coefficient that is no number above 0 or not finite.
    """
    if len(fits) < 3:
        raise UserError(
            f"A family needs three sizes or more for a line with an interval, but {len(fits)} "
            f"{'is' if len(fits) == 1 else 'are'} given."
        )
    for size in fits:
        _check_size(size)
    sizes = sorted(fits)
    pairs = [fits[size] for size in sizes]
    a, b = np.array([(fit.a, fit.b) if isinstance(fit, LawFit) else fit for fit in pairs], dtype=np.float64).T
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("A family needs coefficients that are finite.")
    x = np.log(np.array(sizes, dtype=np.float64))

    def line(values: Array) -> tuple[float, float]:
        slope = float((x - x.mean()) @ values / ((x - x.mean()) @ (x - x.mean())))
        return float(values.mean()) - slope * float(x.mean()), slope

    return Family(np.exp(x), a, b, line(a), line(b))


def _check_size(params: float) -> None:
    if not (math.isfinite(params) and params > 0):
        raise UserError(f"A model's size is a number of parameters above 0, but it is {params:g}.")
