"""Diagonal Gaussians: log-density, KL, and what of the KL a fixed first argument leaves constant."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from entropilot.maths.tokens import full_precision

LOG_2PI = math.log(2 * math.pi)


def gaussian_logp(
    value: Float[Tensor, "*b d"], mean: Float[Tensor, "*b d"], std: Float[Tensor, "*#b #d"]
) -> Float[Tensor, "*b"]:
    """Return log N(value; mean, diag std²), nats, summed over the last axis.

    Args:
        std: broadcast against `mean`; must be positive.
    """
    value, mean, std = full_precision(value), full_precision(mean), full_precision(std)
    deviation = (value - mean) / std
    return -(0.5 * deviation.square() + std.log() + 0.5 * LOG_2PI).sum(-1)


def gaussian_kl(
    mean_b: Float[Tensor, "*b d"],
    std_b: Float[Tensor, "*#b #d"],
    mean: Float[Tensor, "*b d"],
    std: Float[Tensor, "*#b #d"],
) -> Float[Tensor, "*b"]:
    """Return KL( N(mean_b, std_b²) ‖ N(mean, std²) ), nats, summed over the last axis.

        Σ_d [ log(σ_d/σ_b,d) + (σ_b,d² + (m_b,d − m_d)²) / (2σ_d²) − ½ ]

    For tanh-squashed Gaussians on both sides the value before the tanh is the same, the squashing being a bijection.
    """
    mean_b, std_b, mean, std = (full_precision(x) for x in (mean_b, std_b, mean, std))
    ratio = (std_b / std).square()
    return 0.5 * (ratio - 1 - ratio.log() + ((mean_b - mean) / std).square()).sum(-1)


def gaussian_entropy(std: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    """Return the differential entropy of N(·, diag std²), nats; it may be negative."""
    return (full_precision(std).log() + 0.5 * (1 + LOG_2PI)).sum(-1)
