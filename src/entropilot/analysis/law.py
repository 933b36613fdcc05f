"""The law of entropy and performance: what a policy gives up in entropy, it gains in reward, up to a ceiling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropilot.errors import UserError
from entropilot.records import Run

ENTROPY = "entropy/policy_T1"
ACCURACY = "validation/accuracy"
REWARD = "reward/mean"

_MAX_NATS = 700.0  # exp overflows float64 just above; a vocabulary of 150,000 tokens holds at most 11.9 nats
_ROUNDING = 1e-12  # a spread below this share of the values is rounding, not data


@dataclass(frozen=True)
class LawFit:
    """A fitted law R = −a·exp(H) + b (arXiv:2505.22617, Eq. 6).

    Attributes:
        a: what one unit of exp(H) costs in R; below 0 the law does not hold.
        b: the intercept.
        ceiling: −a + b, what the law says of R at H = 0; nearly always an extrapolation.
        r2: the explained share of the (weighted) variance of R; nan where R never changed.
        rmse: the root of the (weighted) mean squared residual, in units of R.
        n: the points used, those of weight 0 not counted.
        covariance: 2×2, of (a, b), under plain i.i.d. residuals, with n − 2 degrees of freedom. The steps of one run
            are autocorrelated, so this is too small, and no interval is offered yet.
        dropped: the pairs left out because a value was not finite.
    """

    a: float
    b: float
    ceiling: float
    r2: float
    rmse: float
    n: int
    covariance: tuple[tuple[float, float], tuple[float, float]]
    dropped: int = 0

    def predict(self, entropy: ArrayLike) -> NDArray[np.float64]:
        """Return −a·exp(H) + b for entropies in nats."""
        return self.b - self.a * np.exp(np.asarray(entropy, dtype=np.float64))


class Columns(NamedTuple):
    """The metrics that a fit of a run used, by the names they have in its rows."""

    entropy: str
    performance: str


def fit_law(entropy: ArrayLike, performance: ArrayLike, weights: ArrayLike | None = None) -> LawFit:
    """Fit R = −a·exp(H) + b by (weighted) least squares; closed form, since it is linear in a and b.

        min over a, b of  Σ_i w_i·(R_i + a·exp(H_i) − b)²

    Args:
        entropy: H, policy entropies in nats.
        performance: R, validation accuracy in the paper, one value per entropy.
        weights: relative precision of each R, at least 0; a weight of 2 moves a and b as the point given twice would.

    Raises:
        UserError: shapes differ, fewer than 3 points are usable, all entropies are equal or beyond any vocabulary, or
            a weight is negative or not finite.
    """
    h, r = _flat("entropy", entropy), _flat("performance", performance)
    w = np.ones_like(h) if weights is None else _flat("weights", weights)
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
    top = float(h.max())
    if abs(top) > _MAX_NATS:
        raise UserError(
            f"An entropy of {top:.4g} is beyond any vocabulary; give entropies per token, in nats."
        )
    if _constant(h, floor=1.0):
        raise UserError(
            f"The law can't be fitted because all {h.size} entropies are equal ({top:.4g} nats); it needs points "
            "at different entropies, from more steps of training."
        )
    w = w / w.max()
    # x = exp(H − max H) − 1: no overflow, and nearby entropies keep their difference. R = slope·x + const.
    x = np.expm1(h - top)
    total = w.sum()
    x_mean, r_mean = (w @ x) / total, (w @ r) / total
    dx, dr = x - x_mean, r - r_mean
    s_xx = w @ (dx * dx)
    slope = (w @ (dx * dr)) / s_xx
    residual = dr - slope * dx
    rss, tss = float(w @ residual**2), float(w @ dr**2)
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
        r2=math.nan if _constant(r) else 1.0 - rss / tss,
        rmse=math.sqrt(rss / total),
        n=int(h.size),
        covariance=((float(var_a), float(cov_ab)), (float(cov_ab), float(var_b))),
        dropped=int((~finite).sum()),
    )


def fit_run(run: Run, entropy: str = ENTROPY, performance: str | None = None) -> tuple[LawFit, Columns]:
    """Fit the law to the rows of a run that hold both metrics; return the fit and which metrics it used.

    Args:
        run: a run read by `records.read_run`.
        entropy: the metric taken as H, in nats.
        performance: the metric taken as R; by default validation accuracy where the run has it, else the mean
            training reward, which is not what the law speaks of: `verdict` and the returned names say so.

    Raises:
        UserError: a metric is missing, or the law can't be fitted to what there is.
    """
    if performance is None:
        performance = ACCURACY if run.column(ACCURACY) else REWARD
    for name in (entropy, performance):
        if not run.column(name):
            known = sorted(
                {key for row in run.rows for key, value in row.items() if finite_number(value) is not None}
            )
            has = ", ".join(name for name in known if "/" in name) or "no metric at all"
            raise UserError(f"The run {run.name} has no {name}, which the law needs; it has {has}.")
    points = [(finite_number(h), finite_number(r)) for _, h, r in run.column(entropy, performance)]
    h = [math.nan if value is None else value for value, _ in points]
    r = [math.nan if value is None else value for _, value in points]
    try:
        fit = fit_law(h, r)
    except UserError as error:
        raise UserError(f"Run {run.name}, {performance} on {entropy}: {error}") from error
    return fit, Columns(entropy, performance)


def finite_number(value: object) -> float | None:
    """Return a number of a row as float; None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def verdict(fit: LawFit, performance_name: str = ACCURACY) -> str:
    """Say in one sentence how far a fit can be trusted, without capital letter or full stop."""
    share = f"the fit explains {100 * fit.r2:.0f} % of the variance of {fit.n} points"
    if math.isnan(fit.r2):
        text = f"performance is the same at all {fit.n} points, so there is nothing to explain and no ceiling"
    elif fit.a < 0:
        text = (
            f"performance rose with entropy (a = {fit.a:.3g} is below 0, R² = {fit.r2:.2f}), so the law does not "
            "hold here and −a + b is no ceiling"
        )
    elif fit.r2 < 0.5:
        text = f"{share}: do not trust this ceiling"
    elif performance_name == ACCURACY and fit.ceiling > 1:
        text = f"{share}, but a ceiling of {fit.ceiling:.3g} is above 1, which no accuracy reaches: do not trust it"
    elif fit.n < 10:
        text = f"{share}: too few points to trust this ceiling"
    elif fit.r2 < 0.9:
        text = f"{share}: take this ceiling as a rough guide"
    else:
        text = (
            f"{share}: the law describes this run well, and its ceiling is an extrapolation to zero entropy"
        )
    if performance_name == ACCURACY:
        return text
    what = (
        f"the training reward ({performance_name})"
        if performance_name.startswith("reward/")
        else performance_name
    )
    return f"{text}; R is {what} here, not the validation accuracy of the law"


def _flat(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return values as one row of float64."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"The law needs plain numbers as {name}, in one dimension.") from error
    if array.ndim != 1:
        raise UserError(f"The law needs {name} in one dimension, but its shape is {array.shape}.")
    return array


def _constant(values: NDArray[np.float64], floor: float = 0.0) -> bool:
    """Whether values differ by no more than rounding."""
    return bool(np.ptp(values) <= _ROUNDING * max(floor, float(np.abs(values).max())))
