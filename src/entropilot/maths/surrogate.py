"""Find the tokens to which the PPO clip leaves no gradient."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from entropilot.maths.tokens import TokenBatch

Level = Literal["token", "sequence"]


@torch.no_grad()
def is_ppo_clipped(
    batch: TokenBatch,
    clip_low: float | None,
    clip_high: float | None,
    *,
    level: Level = "token",
    delta: float | None = None,
) -> Bool[Tensor, "b t"]:
    """Return where the clipped branch of PPO is in force, so that the token has no gradient.

        r > 1 + clip_high and A > 0,    r < 1 − clip_low and A < 0,    r > max(delta, 1 + clip_high) and A < 0

    Args:
        batch: the tokens; `logp − old_logp` is the log-ratio.
        clip_low: None does not clip below.
        clip_high: None does not clip above.
        level: "token": one ratio per token; "sequence": one per row, the exponential of its mean log-ratio (GSPO).
        delta: upper bound of the ratio where A < 0 (TRL's two-sided clip); None has none.

    Returns:
        (b, t), false outside the mask.
    """
    # Masked first: padding may hold anything, and −inf − (−inf) is NaN.
    log_ratio = torch.where(batch.mask, batch.logp - batch.old_logp, batch.logp.new_zeros(()))
    if level == "sequence":
        lengths = batch.mask.sum(-1, keepdim=True).clamp(min=1)
        log_ratio = (log_ratio.sum(-1, keepdim=True) / lengths).expand_as(log_ratio)
    ratio, advantages = log_ratio.exp(), batch.advantages
    clipped = torch.zeros_like(batch.mask)
    if clip_high is not None:
        clipped = clipped | ((ratio > 1.0 + clip_high) & (advantages > 0))
    if clip_low is not None:
        clipped = clipped | ((ratio < 1.0 - clip_low) & (advantages < 0))
    if delta is not None and clip_high is not None:
        clipped = clipped | ((ratio > max(delta, 1.0 + clip_high)) & (advantages < 0))
    return clipped & batch.mask
