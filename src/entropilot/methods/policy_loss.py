"""Compute the PPO-clip surrogate steered by a method, for loops without an engine."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool
from torch import Tensor

from entropilot.maths.tokens import Reduction, TokenBatch, reduce_tokens
from entropilot.methods.token_method import Steering

if TYPE_CHECKING:
    from entropilot.methods.token_method import Method


def _losses(batch: TokenBatch, clip_low: float | None, clip_high: float | None) -> tuple[Tensor, Tensor]:
    """Return −ratio·A and −clip(ratio)·A, (b, t) each; a bound of None does not clip."""
    # Masked first: padding may hold anything, and exp(NaN) would poison the gradient through where.
    ratio = torch.where(batch.mask, batch.logp - batch.old_logp, batch.logp.new_zeros(())).exp()
    low = None if clip_low is None else 1.0 - clip_low
    high = None if clip_high is None else 1.0 + clip_high
    clipped = ratio if low is None and high is None else ratio.clamp(low, high)
    return -batch.advantages * ratio, -batch.advantages * clipped


def policy_loss(
    batch: TokenBatch,
    *,
    method: Method | None = None,
    selected: Bool[Tensor, "b t"] | None = None,
    generator: torch.Generator | None = None,
    clip_low: float | None = None,
    clip_high: float | None = None,
    reduction: Reduction = "token_mean",
    max_length: int | None = None,
) -> Tensor:
    """Return the scalar surrogate loss, steered by a method.

        ℓ_t = max(−ratio_t·A_t, −clip(ratio_t, 1 − ε_low, 1 + ε_high)·A_t),   loss = Σ w_t·ℓ_t

    Clip-Cov's chosen tokens contribute 0 and stay in the denominator; KL-Cov's get their penalty: values and
    gradients are those of the authors' code and of verl (tests/parity).

    Args:
        batch: the tokens; `logp` carries the graph.
        method: a covariance method, or None for plain PPO.
        selected: (b, t), tokens chosen before (for example over a whole rollout); by default the method chooses
            in this batch, at its current log-probs.
        generator: source of randomness of the choice, where the method draws and `selected` is not given; None
            takes torch's global one.
        clip_low: ε_low; None is the method's own clip, and no clip where there is no method.
        clip_high: ε_high, likewise.
        reduction: token_mean, sequence_mean, sequence_sum or constant (see `token_weights`).
        max_length: of `constant`.
    """
    if method is not None:
        if clip_low is not None or clip_high is not None:
            # The clip in force also decides which tokens Clip-Cov may choose.
            overrides = {"clip_low": clip_low, "clip_high": clip_high}
            changes: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
            method = cast("Method", dataclasses.replace(cast(Any, method), **changes))
        clip_low, clip_high = method.clip_low, method.clip_high
    steering = Steering()
    if method is not None:
        if selected is None:
            if generator is None:  # as in torch: no generator means the global one
                seed = int(torch.randint(2**62, ())) if method.draws else 0
                generator = torch.Generator(batch.logp.device).manual_seed(seed)
            selected = method.select(batch.detach(), generator)
        steering = method.steer(batch, selected)
    if steering.reweight is not None:
        batch = dataclasses.replace(batch, logp=Steering(reweight=steering.reweight).applied(batch.logp))
    losses = torch.maximum(*_losses(batch, clip_low, clip_high))
    if steering.detach is not None:
        losses = losses.masked_fill(steering.detach, 0.0)
    if steering.extra is not None:
        losses = losses + steering.extra
    return reduce_tokens(losses, batch.mask, reduction, max_length=max_length)
