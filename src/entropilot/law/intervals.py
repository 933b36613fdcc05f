"""Keep the points behind a fitted law, and compute how its coefficients load on their noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entropilot.law.noise import Noise, estimate_noise, mixture_quantile

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Line:
    """Hold a weighted least-squares line R = slope·x + const on x = exp(H − top) − 1, with what its noise loads on.

    Attributes:
        entropy, performance, weights: (n,) the points used, in the order given.
        residual: (n,) what each estimate is linear in: the residuals, or, under a robust loss, ψ(e)/mean ψ'.
        top: the largest entropy.
        steps: (n,) the step of each point; None where they are not known.
    """

    entropy: Array
    performance: Array
    weights: Array
    residual: Array
    top: float
    steps: Array | None = None

    @property
    def x(self) -> Array:
        """exp(H − top) − 1."""
        return np.expm1(self.entropy - self.top)

    def design(self) -> Array:
        """Return the columns (x, smoothed along the run and standardised; 1), by which residuals lost freedom.

        Smoothed, because measured entropy is noisy itself: its noise is also in the residuals, and a likelihood that
        may explain one by the other finds a slope near 0 and noise that never ends.
        """
        own, calm = self.x, smoothed(self.x)
        return standardised(calm if calm.std() > 1e-3 * own.std() else own)

    def noise(self, quick: bool = False) -> Noise:
        """Weigh the noise models of the residuals."""
        return estimate_noise(self.design(), self.residual, 1 / np.sqrt(self.weights), quick)

    def basis(self) -> tuple[Array, float]:
        """Return how the line's value at the mean of x and its slope load on the noise, (2, n), and that mean."""
        x, w = self.x, self.weights
        mean = float((w @ x) / w.sum())
        centred = x - mean
        return np.stack([w / w.sum(), w * centred / (w @ centred**2)]), mean

    def loadings(self, *names: str) -> Array:
        """Return how a, b or ceiling load on the noise, (m, n)."""
        (level, slope), mean = self.basis()
        scale = np.exp(-self.top)  # a = −slope·scale; b is the line at x = −1, where exp(H) = 0
        rows = {"b": level - (1 + mean) * slope, "a": -slope * scale}
        rows["ceiling"] = level + (np.expm1(-self.top) - mean) * slope
        return np.stack([rows[name] for name in names])

    def half_width_at(self, noise: Noise, entropy: Array, level: float, measured: bool) -> Array:
        """Return the half width of the interval of the line at entropies, or of one R measured there."""
        basis, mean = self.basis()
        first, second, both = noise.covariances(basis)
        z = np.expm1(entropy - self.top) - mean
        variances = first[:, None] + np.multiply.outer(2 * both, z) + np.multiply.outer(second, z**2)
        if measured:
            variances = variances + noise.variance[:, None] * noise.scale[-1] ** 2
        return mixture_quantile(np.sqrt(np.maximum(variances, 0.0)), noise.weight, noise.df, level)


def smoothed(values: Array, share: float = 0.1) -> Array:
    """Return centred moving averages over a share of the points, 5 or more; the window shrinks towards both ends."""
    n = values.size
    half = min(max(2, round(share * n / 2)), (n - 1) // 2)
    reach = np.minimum(np.minimum(np.arange(n), np.arange(n)[::-1]), half)
    total = np.concatenate([[0.0], np.cumsum(values)])
    i = np.arange(n)
    return (total[i + reach + 1] - total[i - reach]) / (2 * reach + 1)


def standardised(values: Array) -> Array:
    """Return the design (values, standardised; 1), (n, 2)."""
    return np.stack([(values - values.mean()) / (values.std() or 1.0), np.ones_like(values)], axis=1)


def line_of(
    entropy: Array, performance: Array, weights: Array, residual: Array, steps: Array | None = None
) -> Line:
    """Return the line behind a fit."""
    # Rounding of a perfect fit is no noise.
    if np.abs(residual).max() <= 1e-13 * max(float(np.abs(performance).max()), 1e-300):
        residual = np.zeros_like(residual)
    return Line(entropy, performance, weights, residual, float(entropy.max()), steps)
