"""Losses that bound the pull of outliers."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from entropilot.errors import UserError

Array = NDArray[np.float64]
Loss = Literal["squared", "soft_l1", "huber"]

_TUNING = 1.345  # Huber's: 95 % efficient where the noise is Gaussian after all
_FEWEST = 0.2  # share of points that Huber's loss must leave alone, for its interval
_MAD = 1.4826  # a Gaussian's standard deviation over its median absolute deviation


def robust_weights(
    x: Array, y: Array, weights: Array, loss: Loss, scale: float | None
) -> tuple[Array, Array]:
    """Return what share of its pull each point keeps at the robust line of y on x, ψ(e)/e, and ψ'(e).

    Least squares under weights × the first is the robust fit.
    """
    from scipy.optimize import least_squares

    if loss not in get_args(Loss):
        raise UserError(f"The loss {loss!r} is none of {', '.join(get_args(Loss))}.")
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise UserError(f"A robust loss needs a scale above 0, in units of R, but it is {scale:g}.")
    root = np.sqrt(weights)
    # In units of the data, so that scipy's tolerances mean the same for every run.
    centre, spread = float(np.median(y)), float(np.ptp(y)) or 1.0
    z = (x - x.mean()) / x.std()
    design = np.stack([z, np.ones_like(z)], axis=1) * root[:, None]
    target = (y - centre) / spread * root
    beta = np.linalg.lstsq(design, target, rcond=None)[0]
    bound = 1.0
    for _ in range(1 if scale is not None else 5):
        residual = target - design @ beta
        deviation = _MAD * float(np.median(np.abs(residual)))
        bound = scale / spread if scale is not None else max(_TUNING * deviation, 1e-12)
        beta = least_squares(
            lambda c: design @ c - target,
            beta,
            jac=lambda c: design,  # pyright: ignore[reportArgumentType]
            loss=loss,
            f_scale=bound,
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
        ).x
    z = ((target - design @ beta) / bound) ** 2
    if loss == "soft_l1":
        return (1 + z) ** -0.5, (1 + z) ** -1.5
    inside = z <= 1
    if inside.mean() < _FEWEST:
        raise UserError(
            f"With a scale of {bound * spread:.3g} nearly every point is an outlier of the robust loss; give a larger one."
        )
    return np.where(inside, 1.0, np.maximum(z, 1.0) ** -0.5), inside.astype(np.float64)
