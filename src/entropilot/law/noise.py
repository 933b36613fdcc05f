"""Estimate the noise of a fit from its residuals: how long it lasts, how much of it lasts, where it is large."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_FLOOR = 0.1  # the local variance is held above this share of its mean
_NEGATIVE = (-0.8, -0.65, -0.5, -0.35, -0.2)


@dataclass(frozen=True, eq=False)
class Noise:
    """Plausible noise models of one residual series, with their weights.

        u_i = scale_i·(√share·v_i + √(1 − share)·ε_i),   v_i = φ·v_{i−1} + √(1 − φ²)·η_i

    A slow part v (an AR(1) process) beside a white part ε, as when accuracy wanders and is measured on a sample of
    problems. Each cell g is one (φ, share); its weight is its restricted likelihood, so that the bias of a fit's
    residuals towards independence is allowed for, times a prior that is flat in φ and in share.

    Attributes:
        phi, share: (g,) of the cells.
        weight: (g,) summing to 1.
        variance: (g,) of u / scale.
        scale: (n,) local standard deviation, relative.
        df: degrees of freedom of each variance.
    """

    phi: Array
    share: Array
    weight: Array
    variance: Array
    scale: Array
    df: int

    @property
    def persistence(self) -> float:
        """Return the autocorrelation of neighbouring points, mean over the cells."""
        return float(self.weight @ (self.share * self.phi))

    @property
    def effective_n(self) -> float:
        """Return the number of independent points whose mean is as precise as the mean of these n: n²/Σ_ij ρ_|i−j|."""
        n = self.scale.size
        inflation = _correlated(np.full((1, n), 1.0 / n), self.phi, self.share)[:, 0] * n
        return float(n / max(1.0, self.weight @ inflation))

    def variances(self, loadings: Array) -> Array:
        """Return Var(ℓ·u) for rows ℓ of (m, n) loadings, per cell: (g, m)."""
        return self.variance[:, None] * _correlated(loadings * self.scale, self.phi, self.share)

    def half_width(self, loadings: Array, level: float) -> Array:
        """Return q with P(|ℓ·u| ≤ q) = level over the mixture of scaled t distributions, per row of (m, n)."""
        return mixture_quantile(np.sqrt(self.variances(loadings)), self.weight, self.df, level)

    def covariances(self, loadings: Array) -> tuple[Array, Array, Array]:
        """Return, per cell, Var(ℓ₁·u), Var(ℓ₂·u) and their covariance of two loadings (2, n): each (g,)."""
        first, second, both = self.variances(np.vstack([loadings, loadings.sum(axis=0)])).T
        return first, second, (both - first - second) / 2

    def draws(self, loadings: Array, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw errors ℓ·u of two loadings (2, n), jointly, and the noise's standard deviation: (size, 2), (size,)."""
        cell = rng.choice(self.weight.size, size, p=self.weight)
        first, second, both = (values[cell] for values in self.covariances(loadings))
        root = np.sqrt(np.maximum(first, 1e-300))
        rest = np.sqrt(np.maximum(second - (both / root) ** 2, 0.0))
        t = np.sqrt(self.df / rng.chisquare(self.df, size))
        z = t * rng.standard_normal((2, size))
        errors = np.stack([root * z[0], both / root * z[0] + rest * z[1]], axis=1)
        return errors, t * np.sqrt(self.variance[cell])


def estimate_noise(design: Array, residual: Array, scale: Array | None = None, quick: bool = False) -> Noise:
    """Weigh the noise models of a residual series.

    Args:
        design: (n, k), what was regressed on; its first column also carries the change of variance.
        residual: (n,) in order of training, of a (weighted) least-squares fit on `design`.
        scale: (n,) relative standard deviations that are known beforehand, 1/√weight.
        quick: fewer cells, for use while training.
    """
    n, k = design.shape
    scale = np.ones(n) if scale is None else scale
    scale = scale * local_scale(design / scale[:, None], residual / scale)
    phi, share, prior = _cells(quick)
    log_det, log_gram, rss = _profile(design / scale[:, None], residual / scale, phi, share)
    spread = float(residual @ residual)
    if spread <= 0:
        weight = prior / prior.sum()
        return Noise(phi, share, weight, np.zeros_like(phi), scale, n - k)
    log_weight = -0.5 * (log_det + log_gram + (n - k) * np.log(rss)) + np.log(prior)
    weight = np.exp(log_weight - log_weight.max())
    keep = weight > 1e-7
    weight = weight[keep] / weight[keep].sum()
    return Noise(phi[keep], share[keep], weight, rss[keep] / (n - k), scale, n - k)


def log_likelihood(design: Array, residual: Array, scale: Array | None = None) -> float:
    """Return the largest Gaussian log-likelihood of design·β + u over β, the variance, φ and share."""
    n = residual.size
    scale = np.ones(n) if scale is None else scale
    phi, share, _ = _cells(False)
    log_det, _, rss = _profile(design / scale[:, None], residual / scale, phi, share)
    rss = np.maximum(rss, np.finfo(float).tiny)
    return float((-0.5 * (log_det + n * np.log(rss / n))).max() - np.log(scale).sum())


def mixture_quantile(sd: Array, weight: Array, df: float, level: float) -> Array:
    """Return q with Σ_g weight_g·P(|t_df|·sd_g ≤ q) = level, per column of (g, m) standard deviations."""
    from scipy.special import stdtr, stdtrit

    single = float(stdtrit(df, 0.5 + level / 2))
    low, high = sd.min(axis=0) * single, sd.max(axis=0) * single
    safe = np.maximum(sd, 1e-300)
    for _ in range(40):
        middle = (low + high) / 2
        below = weight @ (2 * stdtr(df, middle / safe) - 1) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def local_scale(design: Array, residual: Array) -> Array:
    """Estimate how the noise's standard deviation changes along the first column of the design; mean square 1.

    The variance is taken as linear in that column, as the noise of a mean of n right-or-wrong answers nearly is. The
    slope is shrunk by 1 − 1/t², t its own ratio to its error, so that a slope which may be chance counts for nothing.
    """
    n = residual.size
    gram, power = np.linalg.pinv(design.T @ design), residual**2
    leverage = np.einsum("ij,jk,ik->i", design, gram, design)
    power = power / np.maximum(1 - leverage, 0.1)
    mean = float(power.mean())
    z = design[:, 0] - design[:, 0].mean()
    z = z / (z.std() or 1.0)
    slope = float((power * z).mean())
    if n < 8 or mean <= 0 or slope == 0:
        return np.ones(n)
    error = power - mean - slope * z
    lag = max(0.0, float(residual[1:] @ residual[:-1] / (residual @ residual))) ** 2
    variance = float(error @ error) / (n - 2) / n * (1 + lag) / (1 - lag)
    trust = max(0.0, 1 - variance / slope**2)
    local = np.maximum(mean + trust * slope * z, _FLOOR * mean)
    return np.sqrt(local / local.mean())


@cache
def _cells(quick: bool) -> tuple[Array, Array, Array]:
    """Return φ, share and prior of the cells; a cell of φ ≤ 0 has no white part, which φ near 0 stands for."""
    count, shares = (9, (1.0, 0.5, 0.2)) if quick else (17, (1.0, 0.75, 0.5, 0.3, 0.15))
    positive = 1 - np.geomspace(1, 0.01, count)
    axis = np.concatenate([_NEGATIVE, positive])
    cells = []
    for phi, width in zip(axis, np.gradient(axis), strict=True):
        kept = shares if phi > 0 else (1.0,)
        cells += [(phi, share, width / len(kept)) for share in kept]
    phi, share, prior = np.array(cells).T
    return phi, share, prior


def _correlated(loadings: Array, phi: Array, share: Array) -> Array:
    """Return ℓ'Ω(φ, share)ℓ for rows ℓ of (m, n), Ω the correlation matrix of a cell: (g, m)."""
    n = loadings.shape[1]
    width = 1 << (2 * n - 1).bit_length()
    lagged = np.fft.irfft(np.abs(np.fft.rfft(loadings, width)) ** 2, width)[:, :n]
    lagged[:, 1:] *= 2
    distinct, where = np.unique(phi, return_inverse=True)
    # Powers below 1e-14 are left out: as far as the slowest process reaches, and no further.
    slowest = max(float(np.abs(distinct).max()), 1e-9)
    lagged = lagged[:, : min(n, int(np.log(1e-14) / np.log(slowest)) + 2)]
    powers = distinct[:, None] ** np.arange(lagged.shape[1])
    slow = (powers @ lagged.T)[where]
    own = (loadings**2).sum(axis=1)
    return np.maximum(share[:, None] * slow + (1 - share[:, None]) * own, 0.0)


def _profile(design: Array, residual: Array, phi: Array, share: Array) -> tuple[Array, Array, Array]:
    """Return per cell log |Ω|, log |X'Ω⁻¹X| and the residual sum of squares under Ω⁻¹, at its own best β.

    Q = (1 − φ²)·Ω_AR⁻¹ is tridiagonal, so Ω = share·Ω_AR + (1 − share)·I = Q⁻¹M with M = share·(1 − φ²)·I + (1 − share)·Q,
    and Ω⁻¹ = M⁻¹Q takes one tridiagonal solve.
    """
    from scipy.linalg import get_lapack_funcs

    factor, solve = get_lapack_funcs(("pttrf", "pttrs"), dtype=np.float64)
    n, k = design.shape
    size = np.sqrt(np.mean(residual**2)) or 1.0
    columns = np.asfortranarray(np.column_stack([design, residual / size]))
    inner, beside = columns.copy(order="F"), np.zeros_like(columns, order="F")
    inner[[0, -1]] = 0
    beside[1:] += columns[:-1]
    beside[:-1] += columns[1:]
    log_det, gram = np.empty(phi.size), np.empty((phi.size, k + 1, k + 1))
    for i, (p, s) in enumerate(zip(phi, share, strict=True)):
        right = columns + p * p * inner - p * beside
        if s == 1:
            solved = right / (1 - p * p)
            log_det[i] = (n - 1) * np.log1p(-p * p)
        else:
            diagonal = np.full(n, s * (1 - p * p) + (1 - s) * (1 + p * p))
            diagonal[[0, -1]] = s * (1 - p * p) + (1 - s)
            d, e, _ = factor(diagonal, np.full(n - 1, -(1 - s) * p))
            solved, _ = solve(d, e, right)
            log_det[i] = np.log(d).sum() - np.log1p(-p * p)
        gram[i] = columns.T @ solved
    inside, cross = gram[:, :k, :k], gram[:, :k, k:]
    rss = gram[:, k, k] - (cross * np.linalg.solve(inside, cross)).sum(axis=(1, 2))
    log_gram = np.linalg.slogdet(inside)[1]
    return log_det, log_gram, np.maximum(rss, 1e-300) * size**2
