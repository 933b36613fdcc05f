"""Define the batch of tokens that every method sees, and average over it with explicit counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Reduction = Literal["token_mean", "sequence_mean", "sequence_sum", "constant"]


def full_precision(x: Tensor) -> Tensor:
    """Raise half precision to float32; float32 and float64 stay as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@dataclass(frozen=True)
class TokenBatch:
    """Hold the completion tokens of b rows, padded to t.

    Attributes:
        old_logp: log π_old(a_t), nats, (b, t): the policy that the rollout is scored with.
        logp: log π_θ(a_t), nats, (b, t): the policy that is being trained.
        advantages: (b, t); given as (b,) or (b, 1) it is broadcast over the row.
        mask: (b, t), true where a token counts. Numbers of any kind are accepted, zero is false.
        entropy: full-vocabulary entropy, nats, (b, t), where it is known.
        clipped: (b, t), true where the engine's loss has clipped the token's ratio, so that its policy gradient is
            0; None where nobody said.
        span: (b, t), true on the tokens of the answer that the reward was given for; None where nobody asked for it.
        rewards: (b,), weighted reward of the row, NaN where nothing scored it; None where nobody said.
        group: (b,), number of the row's group; None where nobody said.

    Values outside the mask are never read, so padding may hold anything, NaN included.

    Raises:
        ValueError: shapes that do not fit.
    """

    old_logp: Float[Tensor, "b t"]
    logp: Float[Tensor, "b t"]
    advantages: Float[Tensor, "b *t"]
    mask: Tensor
    entropy: Float[Tensor, "b t"] | None = None
    clipped: Bool[Tensor, "b t"] | None = None
    span: Bool[Tensor, "b t"] | None = None
    rewards: Float[Tensor, " b"] | None = None
    group: Int[Tensor, " b"] | None = None

    def __post_init__(self) -> None:
        shape = self.logp.shape
        if len(shape) != 2:
            raise ValueError(f"TokenBatch needs log-probs of shape (b, t); logp has shape {tuple(shape)}.")
        advantages = self.advantages
        if advantages.ndim == 1:
            advantages = advantages.unsqueeze(1)
        if advantages.shape[0] == shape[0] and advantages.shape[1] == 1:
            advantages = advantages.expand(shape)
        fields = {
            "old_logp": self.old_logp,
            "advantages": advantages,
            "mask": self.mask,
            "entropy": self.entropy,
            "clipped": self.clipped,
            "span": self.span,
        }
        for name, value in fields.items():
            if value is not None and value.shape != shape:
                raise ValueError(
                    f"TokenBatch: {name} has shape {tuple(value.shape)}, but logp has {tuple(shape)}; "
                    "give every field per token (advantages may be per row)."
                )
        for name, value in (("rewards", self.rewards), ("group", self.group)):
            if value is not None and value.shape != shape[:1]:
                raise ValueError(
                    f"TokenBatch: {name} has shape {tuple(value.shape)}, but logp has {tuple(shape)}; give it per row."
                )
        set_field = object.__setattr__  # the dataclass is frozen for its users, not for its constructor
        set_field(self, "logp", full_precision(self.logp))
        set_field(self, "old_logp", full_precision(self.old_logp))
        set_field(self, "advantages", full_precision(advantages))
        set_field(self, "mask", self.mask.bool())
        if self.entropy is not None:
            set_field(self, "entropy", full_precision(self.entropy))

    @property
    def finite(self) -> Bool[Tensor, "b t"]:
        """Return the tokens that count and whose log-prob is finite, so that they have a covariance, (b, t)."""
        return self.mask & self.logp.detach().isfinite()

    def detach(self) -> TokenBatch:
        """Return the same numbers without a graph, for choosing tokens and for logging."""
        return replace(
            self,
            logp=self.logp.detach(),
            old_logp=self.old_logp.detach(),
            advantages=self.advantages.detach(),
            entropy=None if self.entropy is None else self.entropy.detach(),
        )


def masked_sum(values: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> tuple[Tensor, Tensor]:
    """Return (sum, count) over the mask, both scalars on the device: add them over ranks, then divide."""
    return torch.where(mask, values, values.new_zeros(())).sum(), mask.sum()


def masked_mean(values: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Tensor:
    """Return the mean over the mask; 0 where the mask is empty."""
    total, count = masked_sum(values, mask)
    return total / count.clamp(min=1)


def token_weights(
    mask: Bool[Tensor, "b t"],
    reduction: Reduction,
    *,
    tokens: Tensor | float | None = None,
    rows: int | None = None,
    max_length: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "b t"]:
    """Return w (b, t) such that the loss is Σ_t w_t·ℓ_t; 0 outside the mask.

    ==============  =======================================  ==========================
    reduction       weight of a token                        the loss type it belongs to
    ==============  =======================================  ==========================
    token_mean      1 / tokens                               DAPO, BNPO
    sequence_mean   1 / (tokens of its row · rows)           GRPO
    sequence_sum    1 / rows                                 LUSPO
    constant        1 / (rows · max_length)                  Dr. GRPO
    ==============  =======================================  ==========================

    Args:
        mask: the tokens that count.
        reduction: see the table.
        tokens: tokens of the whole optimiser batch, where `mask` is only a part of it (default: of the mask).
        rows: rows of the whole optimiser batch (default: of the mask).
        max_length: the constant of `constant`.
        dtype: of the result.

    Raises:
        ValueError: an unknown reduction, or `constant` without `max_length`.
    """
    weights = mask.to(dtype)
    rows = mask.shape[0] if rows is None else rows
    if reduction == "token_mean":
        return weights / (mask.sum().clamp(min=1) if tokens is None else tokens)
    if reduction == "sequence_mean":
        return weights / mask.sum(-1, keepdim=True).clamp(min=1) / rows
    if reduction == "sequence_sum":
        return weights / rows
    if reduction == "constant":
        if max_length is None:
            raise ValueError("The reduction 'constant' divides by rows · max_length; give max_length.")
        return weights / (rows * max_length)
    raise ValueError(
        f"Unknown reduction {reduction!r}; choose token_mean, sequence_mean, sequence_sum or constant."
    )


def reduce_tokens(
    values: Float[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    reduction: Reduction = "token_mean",
    *,
    tokens: Tensor | float | None = None,
    rows: int | None = None,
    max_length: int | None = None,
) -> Tensor:
    """Return the scalar Σ w·values with the weights of `token_weights`; values outside the mask are ignored."""
    weights = token_weights(
        mask, reduction, tokens=tokens, rows=rows, max_length=max_length, dtype=values.dtype
    )
    return (weights * torch.where(mask, values, values.new_zeros(()))).sum()
