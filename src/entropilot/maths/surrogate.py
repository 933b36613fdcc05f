"""The plain PPO-clip surrogate, for loops without an engine and as the twin in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from entropilot.maths.tokens import TokenBatch

if TYPE_CHECKING:
    pass


def _losses(batch: TokenBatch, clip_low: float | None, clip_high: float | None) -> tuple[Tensor, Tensor]:
    """Return −ratio·A and −clip(ratio)·A, (b, t) each; a bound of None does not clip."""
    # Masked first: padding may hold anything, and exp(NaN) would poison the gradient through where.
    ratio = torch.where(batch.mask, batch.logp - batch.old_logp, batch.logp.new_zeros(())).exp()
    low = None if clip_low is None else 1.0 - clip_low
    high = None if clip_high is None else 1.0 + clip_high
    clipped = ratio if low is None and high is None else ratio.clamp(low, high)
    return -batch.advantages * ratio, -batch.advantages * clipped


@torch.no_grad()
def is_ppo_clipped(batch: TokenBatch, clip_low: float | None, clip_high: float | None) -> Bool[Tensor, "b t"]:
    """Return where the clipped branch of PPO is in force, so that the token has no gradient."""
    plain, clipped = _losses(batch, clip_low, clip_high)
    return (clipped > plain) & batch.mask
