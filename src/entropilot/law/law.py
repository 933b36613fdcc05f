"""Fit the law R = −a·exp(H) + b of performance and policy entropy, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropilot.analysis.values import Interval, check_level, check_nats, constant, flat
from entropilot.errors import UserError
from entropilot.law.intervals import Line, line_of
from entropilot.law.noise import Noise
from entropilot.law.robust import Loss, robust_weights
from entropilot.records import ACCURACY, ENTROPY, REWARD, Run, finite_number

__all__ = [
    "ACCURACY",
    "ENTROPY",
    "REWARD",
    "Columns",
    "Draws",
    "Interval",
    "LawFit",
    "finite_number",
    "fit_law",
    "fit_run",
]


class Draws(NamedTuple):
    """Plausible coefficients, one per draw, and the standard deviation of a measured R around the law."""

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    noise: NDArray[np.float64]


@dataclass(frozen=True)
class LawFit:
    """Hold a fitted law R = −a·exp(H) + b (arXiv:2505.22617, Eq. 6).

    Attributes:
        a: what one unit of exp(H) costs in R; below 0 the law does not hold.
        b: the intercept.
        ceiling: −a + b, what the law says of R at H = 0; nearly always an extrapolation.
        r2: the explained share of the (weighted) variance of R; nan where R never changed.
        rmse: the root of the (weighted) mean squared residual, in units of R.
        n: the points used, those of weight 0 not counted.
        covariance: 2×2, of (a, b), under plain i.i.d. residuals, with n − 2 degrees of freedom. The steps of one run
            are autocorrelated, so this is too small; `interval` knows it.
        dropped: the pairs left out because a value was not finite.
        line: the points behind the fit; None where a fit was put together by hand, which then has no interval.
    """

    a: float
    b: float
    ceiling: float
    r2: float
    rmse: float
    n: int
    covariance: tuple[tuple[float, float], tuple[float, float]]
    dropped: int = 0
    line: Line | None = field(default=None, compare=False, repr=False)

    def predict(self, entropy: ArrayLike) -> NDArray[np.float64]:
        """Return −a·exp(H) + b for entropies in nats."""
        return self.b - self.a * np.exp(np.asarray(entropy, dtype=np.float64))

    @cached_property
    def noise(self) -> Noise:
        """Return what the residuals say of the noise (`persistence`, `effective_n`); points in order of training."""
        return self._line.noise()

    def interval(self, level: float = 0.95, which: Literal["a", "b", "ceiling"] = "ceiling") -> Interval:
        """Return the interval of a coefficient, for points in order of training.

        Least squares' own error under every plausible noise (`noise.Noise`), each weighted by its restricted
        likelihood; docs/results/law_coverage.md measures how often it holds the truth, beside its rivals.
        """
        check_level(level)
        if which not in ("a", "b", "ceiling"):
            raise UserError(f"An interval is of a, b or ceiling, not of {which!r}.")
        half = float(self.noise.half_width(self._line.loadings(which), level)[0])
        value = float(getattr(self, which))
        return Interval(value - half, value + half)

    def interval_at(
        self, entropy: ArrayLike, level: float = 0.95, measured: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lower and upper ends of −a·exp(H) + b at entropies in nats.

        Args:
            entropy: H, of any shape.
            level: the probability that each interval holds the truth.
            measured: widen them so that they hold one R measured there, with the fit's noise, late in training.
        """
        check_level(level)
        h = np.asarray(entropy, dtype=np.float64)
        check_nats(h.ravel())
        half = self._line.half_width_at(self.noise, h.ravel(), level, measured).reshape(h.shape)
        centre = self.predict(h)
        return centre - half, centre + half

    def resample(self, size: int = 10_000, seed: int = 0) -> Draws:
        """Draw plausible (a, b) and noise levels, as `interval` weighs them; the same for the same seed."""
        rng = np.random.default_rng(seed)
        errors, noise = self.noise.draws(self._line.loadings("a", "b"), size, rng)
        return Draws(self.a + errors[:, 0], self.b + errors[:, 1], noise * self.noise.scale[-1])

    @property
    def _line(self) -> Line:
        if self.line is None:
            raise UserError("This fit holds no points, so it has no interval; fit them with fit_law.")
        return self.line


class Columns(NamedTuple):
    """Hold the metrics that a fit of a run used, by the names they have in its rows."""

    entropy: str
    performance: str


def fit_law(
    entropy: ArrayLike,
    performance: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    steps: ArrayLike | None = None,
    loss: Loss = "squared",
    loss_scale: float | None = None,
) -> LawFit:
    """Fit R = −a·exp(H) + b by (weighted) least squares; closed form, since it is linear in a and b.

        min over a, b of  Σ_i w_i·(R_i + a·exp(H_i) − b)²

    Args:
        entropy: H, policy entropies in nats, in order of training if intervals are wanted.
        performance: R, validation accuracy in the paper, one value per entropy.
        weights: relative precision of each R, at least 0; a weight of 2 moves a and b as the point given twice would.
        steps: the training step of each point, which `assess` and `diagnose` use; they do not change the fit.
        loss: `soft_l1` or `huber` bound the pull of outliers (scipy's `least_squares`); r2 and rmse then weigh each
            point as the loss did.
        loss_scale: the residual, in units of R, from which a robust loss holds back; by default 1.345 robust
            standard deviations.

    Raises:
        UserError: shapes differ, fewer than 3 points are usable, all entropies are equal or beyond any vocabulary, or
            a weight is negative or not finite.
    """
    h, r, w, used_points, dropped = _usable(entropy, performance, weights)
    time = None if steps is None else flat("steps", steps)
    if time is not None and time.shape != used_points.shape:
        raise UserError(
            f"The law needs one step per point, but there are {time.size} for {used_points.size}."
        )
    top = float(h.max())
    w = w / w.max()
    # x = exp(H − max H) − 1: no overflow, and nearby entropies keep their difference. R = slope·x + const.
    x = np.expm1(h - top)
    kept, slopes = np.ones_like(w), np.ones_like(w)
    if loss != "squared":
        kept, slopes = robust_weights(x, r, w, loss, loss_scale)
    used = w * kept
    total = used.sum()
    x_mean, r_mean = (used @ x) / total, (used @ r) / total
    dx, dr = x - x_mean, r - r_mean
    s_xx = used @ (dx * dx)
    slope = (used @ (dx * dr)) / s_xx
    residual = dr - slope * dx
    rss, tss = float(used @ residual**2), float(used @ dr**2)
    scale = math.exp(-top)  # x + 1 = scale·exp(H)
    a, b = -slope * scale, r_mean - slope * (1.0 + x_mean)

    variance = rss / (h.size - 2)
    var_a = variance / s_xx * scale**2
    cov_ab = variance * (1.0 + x_mean) / s_xx * scale
    var_b = variance * (1.0 / total + (1.0 + x_mean) ** 2 / s_xx)
    return LawFit(
        a=float(a),
        b=float(b),
        ceiling=float(b - a),
        r2=math.nan if constant(r) else 1.0 - rss / tss,
        rmse=math.sqrt(rss / total),
        n=int(h.size),
        covariance=((float(var_a), float(cov_ab)), (float(cov_ab), float(var_b))),
        dropped=dropped,
        # A robust estimate moves as if each point's error were ψ(e)/mean ψ' (Huber's expansion).
        line=line_of(
            h,
            r,
            w,
            kept * residual * (w.sum() / (w @ slopes)),
            None if time is None else time[used_points],
        ),
    )


def _usable(
    entropy: ArrayLike, performance: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], int]:
    """Return what can be fitted: entropies, performances, weights, which points these are; and how many were not finite."""
    h, r = flat("entropy", entropy), flat("performance", performance)
    w = np.ones_like(h) if weights is None else flat("weights", weights)
    if not h.shape == r.shape == w.shape:
        sizes = f"{h.size} entropies, {r.size} values of performance and {w.size} weights"
        raise UserError(f"The law needs as many values of each, but there are {sizes}.")
    if not (np.isfinite(w).all() and (w >= 0).all()):
        raise UserError("The law needs weights that are finite and at least 0.")
    finite = np.isfinite(h) & np.isfinite(r)
    keep = finite & (w > 0)
    h, r, w = h[keep], r[keep], w[keep]
    if h.size < 3:
        raise UserError(
            f"The law has two coefficients and needs 3 or more points, but {h.size} "
            f"{'is' if h.size == 1 else 'are'} usable; measure entropy and performance together more often."
        )
    check_nats(h)
    if constant(h, floor=1.0):
        raise UserError(
            f"The law can't be fitted because all {h.size} entropies are equal ({h.max():.4g} nats); it needs points "
            "at different entropies, from more steps of training."
        )
    return h, r, w, keep, int((~finite).sum())


def need_metric(run: Run, argument: str, name: str, what: str = "the law") -> None:
    """Refuse a run without a metric.

    Args:
        run: the run.
        argument: that names the metric: entropy or performance.
        name: of the metric.
        what: needs it.

    Raises:
        UserError: it is in no row; the sentence names those that are, and how to take another entropy.
    """
    if any(finite_number(value) is not None for _, value in run.column(name)):
        return
    known = sorted(
        {key for row in run.rows for key, value in row.items() if finite_number(value) is not None}
    )
    has = ", ".join(name for name in known if "/" in name) or "no metric at all"
    other = next((name for name in known if argument == "entropy" and name.startswith("entropy/")), None)
    way = "" if other is None else f"; to take another, give {argument}={other!r}"
    raise UserError(f"The run {run.name} has no {name}, which {what} needs; it has {has}{way}.")


def fit_run(run: Run, entropy: str = ENTROPY, performance: str | None = None) -> tuple[LawFit, Columns]:
    """Fit the law to the rows of a run that hold both metrics; return the fit and which metrics it used.

    Args:
        run: a run read by `records.read_run`.
        entropy: the metric taken as H, in nats.
        performance: the metric taken as R; by default validation accuracy where the run has it, else the mean
            training reward, which is not what the law speaks of: `assess` and the returned names say so.

    Raises:
        UserError: a metric is missing, or the law can't be fitted to what there is.
    """
    if performance is None:
        performance = ACCURACY if run.column(ACCURACY) else REWARD
    need_metric(run, "entropy", entropy)
    need_metric(run, "performance", performance)
    rows = run.column(entropy, performance)
    h, r = ([math.nan if (x := finite_number(row[i])) is None else x for row in rows] for i in (1, 2))
    try:
        fit = fit_law(h, r, steps=[row[0] for row in rows])
    except UserError as error:
        raise UserError(f"Run {run.name}, {performance} on {entropy}: {error}") from error
    return fit, Columns(entropy, performance)
