"""Model entropy over the steps of a run, and draw plausible continuations of a prefix under all models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from entropilot.law.noise import estimate_noise

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """Hold a family H(t) = low + size·shape(t; θ), linear but for θ.

    Attributes:
        name: for people.
        shape: of times (t,) and the θ of the cells, (g, 1) each, (g, t).
        bounds: the least and the greatest of each θ, for the gap between points and the time to the end.
        low: what `low` is: 0, a floor of at least 0, or free, where entropy stops at 0.
        free: how many θ there are; a shape without one gets one that it ignores.
    """

    name: str
    shape: Callable[..., Array]
    bounds: Callable[[float, float], list[tuple[float, float]]]
    low: Literal["zero", "floor", "free"] = "zero"
    free: int = 1


def _rate(gap: float, end: float) -> list[tuple[float, float]]:
    return [(gap / 2, 10 * end)]


COURSES = (
    Course("exponential to 0", lambda t, rate: np.exp(-t / rate), _rate),
    Course("exponential to a floor", lambda t, rate: np.exp(-t / rate), _rate, "floor"),
    Course("hyperbola", lambda t, rate: 1 / (1 + t / rate), _rate),
    Course(
        "power law",
        lambda t, rate, power: (1 + t / (rate * power)) ** -power,  # falls at once as exp(−t/rate) does
        lambda gap, end: [(gap / 4, 10 * end), (0.2, 4.0)],
        free=2,
    ),
    Course("linear in the logarithm of the step", lambda t, rate: -np.log1p(t / rate), _rate, "free"),
    # A straight line up or down; a rise is its case that no other course has.
    Course("linear in the step", lambda t, rate: t + 0 * rate, lambda gap, end: [(gap, end)], "free", free=0),
    Course("plateau", lambda t, rate: 1 + 0 * t * rate, lambda gap, end: [(gap, end)], free=0),
)
WALK = "random walk"


@dataclass(frozen=True)
class Continuations:
    """Plausible courses of entropy.

    Attributes:
        weights: share of each model, by AIC on the prefix.
        paths: (d, t) entropies of the draws at the times asked for, from 0 to `most`.
        best: (t,) the best model's own course.
    """

    weights: dict[str, float]
    paths: Array
    best: Array

    @property
    def model(self) -> str:
        """Return the name of the best model."""
        return max(self.weights, key=self.weights.__getitem__)


def continuations(
    steps: Array, entropy: Array, at: Array, draws: int, rng: np.random.Generator, most: float = np.inf
) -> Continuations:
    """Draw courses of entropy that fit a prefix, over all models.

    Each model is fitted on a grid of its nonlinear parameters, where the rest is linear. A draw picks a model by its
    Akaike weight, a cell by its likelihood (flat over the grid, the linear part integrated out), then the linear part.
    Autocorrelated noise (AR(1), by the best model's residuals) is whitened first. Beside the courses there is a random
    walk from the last value, with the increments of the prefix.

    Args:
        steps: (n,) of the prefix, increasing.
        entropy: (n,) in nats.
        at: (t,) the steps to continue to.
        draws: how many courses.
        rng: the source of all randomness.
        most: the largest entropy there can be, ln of the vocabulary.
    """
    start, n = steps[0], steps.size
    time, ahead = steps - start, at - start
    gap, end = float(np.median(np.diff(time))), float(max(ahead.max(), time[-1]))
    phi = 0.0
    fits = []
    for _ in range(2):
        fits = [_Fit(course, time, entropy, gap, end, phi) for course in COURSES]
        best = min(fits, key=lambda fit: fit.aic)
        residual = entropy - best.at(time)
        if n >= 8 and residual.any():
            design = np.stack([time / end, np.ones(n)], axis=1)
            phi = min(max(estimate_noise(design, residual, quick=True).persistence, 0.0), 0.95)
    models: list[_Fit | _Walk] = [*fits, _Walk(time, entropy)]
    aic = np.array([model.aic for model in models])
    weight = np.exp(-(aic - aic.min()) / 2)
    weight /= weight.sum()
    counts = rng.multinomial(draws, weight)
    paths = [model.draw(ahead, count, rng) for model, count in zip(models, counts, strict=True) if count]
    return Continuations(
        {model.name: float(share) for model, share in zip(models, weight, strict=True)},
        np.clip(np.concatenate(paths), 0.0, most),
        np.clip(models[int(aic.argmin())].at(ahead), 0.0, most),
    )


class _Walk:
    """A random walk from the last value, whose increments have the mean square of those of the prefix."""

    name = WALK

    def __init__(self, time: Array, entropy: Array) -> None:
        self.time, self.entropy, n = time, entropy, time.size
        # Per unit of time, so that steps left out do not count as calm.
        squares = np.diff(entropy) ** 2 / np.diff(time)
        self.variance = float(squares.mean())
        gap = float(np.median(np.diff(time)))
        self.aic = n * np.log(self.variance * gap + 1e-300) + 2 * 2

    def at(self, time: Array) -> Array:
        """Return the measured entropies, joined by straight lines, and the last one from there on."""
        return np.interp(time, self.time, self.entropy)

    def draw(self, time: Array, count: int, rng: np.random.Generator) -> Array:
        """Return walks at times, (count, t)."""
        gaps = np.maximum(np.diff(time, prepend=time[:1]), 0.0) * (time > self.time[-1])
        steps = rng.standard_normal((count, time.size)) * np.sqrt(self.variance * gaps)
        return self.at(time) + np.cumsum(steps, axis=1)


class _Fit:
    """One family on one prefix: for every cell of a grid of θ, the linear part and its likelihood."""

    def __init__(
        self, course: Course, time: Array, entropy: Array, gap: float, end: float, phi: float
    ) -> None:
        self.course, self.name, n = course, course.name, time.size
        y, one = _whitened(entropy[None], phi)[0], _whitened(np.ones((1, n)), phi)[0]
        linear = 1 if course.low == "zero" else 2
        self.df = n - linear
        box = np.log(course.bounds(gap, end))
        log = smallest = np.empty(0)
        for _ in range(10):  # each time, the grid is laid over what the one before left plausible
            axes = [np.linspace(low, high, 50 if len(box) == 1 else 18) for low, high in box]
            self.theta = [np.exp(axis.ravel()) for axis in np.meshgrid(*axes, indexing="ij")]
            g = _whitened(course.shape(time, *(theta[:, None] for theta in self.theta)), phi)
            gg, go, gy = (g**2).sum(axis=1), g @ one, g @ y
            oo, oy = float(one @ one), float(one @ y)
            alone = gy / gg
            if linear == 1:
                self.size, self.low, det = alone, np.zeros_like(gy), gg
                self.inverse = np.stack([1 / gg, 0 * gg, 0 * gg])
            else:
                det = np.maximum(gg * oo - go**2, 1e-14 * gg * oo)
                self.size, self.low = (oo * gy - go * oy) / det, (gg * oy - go * gy) / det
                self.inverse = np.stack([oo + 0 * gg, -go, gg]) / det
            rss = _squares(y, g, self.size, one, self.low)
            self.variance = rss / self.df
            log = -0.5 * np.log(det) - 0.5 * self.df * np.log(rss)
            smallest, self.best_size, self.best_low = rss, self.size, self.low
            if course.low == "floor":
                log = log + _log_ndtr(self.low / np.sqrt(self.variance * self.inverse[2]))
                self.best_size = np.where(self.low < 0, alone, self.size)
                self.best_low = np.maximum(self.low, 0.0)
                smallest = _squares(y, g, self.best_size, one, self.best_low)
            plausible = (log > log.max() - 15).reshape([axis.size for axis in axes])
            wide = np.ptp(box, axis=1)
            box = np.array([_around(axis, plausible, i) for i, axis in enumerate(axes)])
            if (np.ptp(box, axis=1) > 0.7 * wide).all():
                break
        weight = np.exp(log - log.max())
        self.weight = weight / weight.sum()
        k = linear + course.free + 1
        self.aic = n * np.log(smallest.min() / n) + 2 * k
        self.best = int(smallest.argmin())

    def at(self, time: Array) -> Array:
        """Return the best cell's course."""
        shape = self.course.shape(time, *(theta[self.best, None, None] for theta in self.theta))[0]
        return self.best_low[self.best] + self.best_size[self.best] * shape

    def draw(self, time: Array, count: int, rng: np.random.Generator) -> Array:
        """Return courses at times, (count, t)."""
        from scipy.special import ndtr, ndtri

        cell = rng.choice(self.weight.size, count, p=self.weight)
        sd = np.sqrt(self.variance[cell] * self.df / rng.chisquare(self.df, count))
        own, both, other = self.inverse[:, cell]
        low, size = self.low[cell], self.size[cell]
        uniform, normal = rng.random(count), rng.standard_normal(count)
        if self.course.low != "zero":
            spread = sd * np.sqrt(other)
            # A floor is drawn from the part of its distribution that is at least 0.
            least = ndtr(-low / spread) if self.course.low == "floor" else 0.0
            drawn = low + spread * ndtri(np.clip(least + uniform * (1 - least), 1e-12, 1 - 1e-12))
            drawn = np.maximum(drawn, 0.0) if self.course.low == "floor" else drawn
            size, low = size + both / other * (drawn - low), drawn
            own = own - both**2 / other
        size = size + sd * np.sqrt(np.maximum(own, 0.0)) * normal
        shape = self.course.shape(time, *(theta[cell][:, None] for theta in self.theta))
        return low[:, None] + size[:, None] * shape


def _squares(y: Array, g: Array, size: Array, one: Array, low: Array) -> Array:
    """Return the residual sums of squares of the cells, (g,), held above rounding."""
    residual = y - size[:, None] * g - np.outer(low, one)
    return (residual**2).sum(axis=1) + 1e-26 * float(y @ y) + 1e-300


def _around(axis: Array, plausible: NDArray[np.bool_], i: int) -> tuple[float, float]:
    """Return the part of an axis with plausible cells, and one cell more on both sides."""
    kept = np.flatnonzero(plausible.any(axis=tuple(j for j in range(plausible.ndim) if j != i)))
    return float(axis[max(kept[0] - 1, 0)]), float(axis[min(kept[-1] + 1, axis.size - 1)])


def _log_ndtr(z: Array) -> Array:
    from scipy.special import log_ndtr

    return np.asarray(log_ndtr(z))


def _whitened(rows: Array, phi: float) -> Array:
    """Return rows without their AR(1) correlation along the last axis (Prais and Winsten)."""
    if phi == 0:
        return rows
    first = rows[:, :1] * np.sqrt(1 - phi**2)
    return np.concatenate([first, rows[:, 1:] - phi * rows[:, :-1]], axis=1)
