"""Find reasons to doubt a fit of the law, each with its evidence."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropilot.analysis.values import flat
from entropilot.errors import UserError
from entropilot.law.intervals import Line, smoothed, standardised
from entropilot.law.law import LawFit
from entropilot.law.noise import estimate_noise, log_likelihood

Array = NDArray[np.float64]
Name = Literal["sign", "narrow", "noisy entropy", "trend", "alternative", "few points"]

TREND_LEVEL = 0.99  # a drift of the residuals is reported when 0 is outside of its interval at this level
AIC_MARGIN = 4.0  # an alternative is reported when its AIC is lower by this much
FEW = 8.0  # independent points, below which 95 % intervals were measured to hold less (law_coverage.md)


class Finding(NamedTuple):
    """Hold one reason for doubt: which, and in a clause without capital letter or full stop."""

    name: Name
    words: str


class Alternative(NamedTuple):
    """Another shape of R, and by how much its AIC is lower than the law's; below 0 the law is better."""

    name: str
    gain: float


def diagnose(fit: LawFit, steps: ArrayLike | None = None) -> list[Finding]:
    """List what speaks against a fit, the gravest first; an empty list where nothing does.

    Args:
        fit: from `fit_law`, on points in order of training.
        steps: the step of each point used, for the sigmoid and the drift; by default the fit's own steps, and even
            spacing where it has none.

    Raises:
        UserError: the fit holds no points, or steps are not as many.
    """
    line = fit.line
    if line is None:
        raise UserError("This fit holds no points, so it can't be examined; fit them with fit_law.")
    time = _time(line.steps if steps is None else steps, fit.n)
    if math.isnan(fit.r2):
        return []
    findings = [_sign(fit, line) or _range(fit, line) or _entropy_noise(fit, line)]
    if fit.n >= 12:
        findings += [_trend(line, time), _better(fit, line, time)]
    findings.append(_few(fit))
    return [finding for finding in findings if finding is not None]


def alternatives(fit: LawFit, steps: ArrayLike | None = None) -> list[Alternative]:
    """Compare the law with R linear in H and with R a sigmoid of the step, by corrected AIC.

    The likelihood of each is that of Gaussian noise with a slow AR(1) part and a white part, at its best (φ, share),
    so autocorrelated residuals do not count as so many observations. For the law and for the line, the better of
    measured and smoothed entropy counts. Parameters: 5, 5 and 7, with the noise's three.
    """
    line = fit.line
    if line is None or fit.n < 12:
        raise UserError("Shapes of R are compared on 12 points or more, from a fit of fit_law.")
    y, scale, n = line.performance, fit.noise.scale, fit.n

    def aic(columns: list[Array], coefficients: int) -> float:
        k = coefficients + 3
        best = max(log_likelihood(standardised(column), y, scale) for column in columns)
        return 2 * k - 2 * best + 2 * k * (k + 1) / (n - k - 1)

    law = aic([line.x, smoothed(line.x)], 2)
    linear = aic([line.entropy, smoothed(line.entropy)], 2)
    curve = aic([_sigmoid(_time(line.steps if steps is None else steps, n), y, 1 / scale**2)], 4)
    return [
        Alternative("a straight line in H", law - linear),
        Alternative("a sigmoid of the step", law - curve),
    ]


def entropy_noise(fit: LawFit) -> float:
    """Return the share of the variance of exp(H) that is noise from point to point.

    Taken from second differences, which a smooth course leaves near 0 and white noise multiplies by 6. Noise in the
    regressor shrinks a by this share, and no interval of least squares knows it.
    """
    line = fit.line
    if line is None or fit.n < 8:
        return 0.0
    second = np.diff(line.x, 2)
    # The median, so that a steep start is not taken for noise; 0.455 is the median of a squared standard normal.
    return float(min(0.9, np.median(second**2) / 0.455 / 6 / line.x.var()))


def _sign(fit: LawFit, line: Line) -> Finding | None:
    low, high = fit.interval(which="a")
    if high >= 0:
        return None
    return Finding("sign", f"a is below 0 (95 % interval {low:.3g} to {high:.3g}), so the law does not hold")


def _range(fit: LawFit, line: Line) -> Finding | None:
    low, high = fit.interval(which="a")
    span = f"entropy ranges only from {line.entropy.min():.3g} to {line.entropy.max():.3g} nats"
    if low <= 0 <= high:
        return Finding(
            "narrow",
            f"{span}, too little amid the noise to tell a from 0 (95 % interval {low:.3g} to {high:.3g})",
        )
    rise = abs(fit.a) * float(np.ptp(np.exp(line.entropy)))
    low, high = fit.interval()
    if high - low <= rise:
        return None
    return Finding(
        "narrow",
        f"{span}, too little for a ceiling: its 95 % interval, {low:.3g} to {high:.3g}, is wider than the change "
        f"of R over that range ({rise:.2g})",
    )


def _entropy_noise(fit: LawFit, line: Line) -> Finding | None:
    share = entropy_noise(fit)
    low, high = fit.interval(which="a")
    a = fit.a / (1 - share)
    if share < 0.02 or abs(a - fit.a) < (high - low) / 4:
        return None
    x = np.exp(line.entropy)
    ceiling = fit.ceiling + (a - fit.a) * (float(line.weights @ x / line.weights.sum()) - 1)
    return Finding(
        "noisy entropy",
        f"about {100 * share:.0f} % of the variance of exp(H) is noise from point to point, which pulls a toward 0 "
        f"and is not part of the interval; corrected for it, a is near {a:.3g} and the ceiling near {ceiling:.3g}",
    )


def _trend(line: Line, time: Array) -> Finding | None:
    """Test for a linear drift beside the law: the coefficient of time in R on (exp H, 1, time), at 99 %.

    Its interval is `LawFit.interval`'s, for three regressors; exp(H) is smoothed, because its noise would leave part
    of the law's own course to the time.
    """
    x = smoothed(line.x)
    clock = (time - time.mean()) / np.ptp(time)
    design = np.column_stack([standardised(x), clock])
    root = np.sqrt(line.weights)[:, None]
    if np.linalg.cond(design * root) > 1e4:
        return None
    solve = np.asarray(np.linalg.pinv(design * root) * root.T, dtype=np.float64)
    coefficients = solve @ line.performance
    residual = line.performance - design @ coefficients
    if np.abs(residual).max() <= 1e-12 * max(float(np.abs(line.performance).max()), 1e-300):
        return None
    noise = estimate_noise(design, residual, 1 / np.sqrt(line.weights))
    half = float(noise.half_width(solve[2:], TREND_LEVEL)[0])
    drift = float(coefficients[2])
    if abs(drift) <= max(half, 1e-9):
        return None
    return Finding(
        "trend",
        f"measured from the law's curve R {'rose' if drift > 0 else 'fell'} by {abs(drift):.2g} from the first point "
        f"to the last (99 % interval of the drift: {drift - half:.2g} to {drift + half:.2g}), so something besides "
        "entropy moves it, or it follows entropy along another curve",
    )


def _better(fit: LawFit, line: Line, time: Array) -> Finding | None:
    if not line.residual.any():
        return None
    best = max(alternatives(fit, time), key=lambda other: other.gain)
    if best.gain <= AIC_MARGIN:
        return None
    return Finding(
        "alternative", f"{best.name} describes R better than the law (AIC lower by {best.gain:.0f})"
    )


def _few(fit: LawFit) -> Finding | None:
    points = fit.noise.effective_n
    if points >= FEW or not fit.noise.variance.any():
        return None
    are, noun = ("is", "point") if round(points) == 1 else ("are", "points")
    return Finding(
        "few points",
        f"there {are} only about {points:.0f} effectively independent {noun} (autocorrelation "
        f"{fit.noise.persistence:.2f}), so the interval may be too narrow",
    )


def _time(steps: ArrayLike | None, n: int) -> Array:
    time = np.arange(n, dtype=np.float64) if steps is None else flat("steps", steps)
    if time.shape != (n,) or not (np.isfinite(time).all() and (np.diff(time) > 0).all()):
        raise UserError(f"The fit has {n} points and needs as many steps, finite and increasing.")
    return time


def _sigmoid(time: Array, y: Array, weights: Array) -> Array:
    """Return 1/(1 + exp(−(t − centre)/width)) at the least-squares centre and width, by a grid that zooms in."""
    t = (time - time[0]) / (time[-1] - time[0])
    w = weights / weights.sum()
    target = y - w @ y
    centre, width, reach = 0.25, 0.1, (0.75, np.log(10.0))
    best = t
    for _ in range(4):
        centres = centre + np.linspace(-1, 1, 13) * reach[0]
        widths = width * np.exp(np.linspace(-1, 1, 13) * reach[1])
        c, s = (grid.ravel() for grid in np.meshgrid(centres, widths))
        curves = 1 / (1 + np.exp(np.clip((c[:, None] - t) / s[:, None], -500, 500)))
        centred = curves - (curves @ w)[:, None]
        power = (centred**2) @ w
        explained = np.where(power > 1e-12, (centred @ (w * target)) ** 2 / np.maximum(power, 1e-300), -1.0)
        i = int(explained.argmax())
        centre, width, best = float(c[i]), float(s[i]), curves[i]
        reach = (reach[0] / 5, reach[1] / 5)
    return best
