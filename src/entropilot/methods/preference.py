"""Share what methods on preferred segments need: masked sums, the biased Bradley-Terry loss, checks of settings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from entropilot.maths.tokens import full_precision


def as_mask(mask: Tensor | None, like: Float[Tensor, "b t"]) -> Tensor:
    """Return a boolean mask of the shape of `like`; None counts every step.

    Raises:
        ValueError: another shape.
    """
    if mask is None:
        return torch.ones_like(like, dtype=torch.bool)
    if mask.shape != like.shape:
        raise ValueError(f"The mask has shape {tuple(mask.shape)}, the log-probs have {tuple(like.shape)}.")
    return mask.bool()


def masked_sum(values: Float[Tensor, "b t"], mask: Tensor) -> Float[Tensor, "b"]:
    """Sum over the steps of a segment; what lies outside of the mask is never read, NaN included."""
    return torch.where(mask, full_precision(values), 0.0).sum(-1)


def preference_loss(
    score_1: Float[Tensor, "b"],
    score_2: Float[Tensor, "b"],
    first: Float[Tensor, "b"],
    alpha: float,
    lam: float,
) -> Float[Tensor, "b"]:
    """Return the Bradley-Terry loss of segment scores, one number a pair, nats.

        ℓ = −p·log σ( α·(S₁ − λ·S₂) ) − (1−p)·log σ( α·(S₂ − λ·S₁) )

    Args:
        first: p, the probability that segment 1 is preferred; a tie is 0.5 and counts in both directions.
        lam: λ; below 1 the rejected segment is pushed down less (CPL's conservative bias, arXiv:2310.13639).
    """
    score_1, score_2, first = full_precision(score_1), full_precision(score_2), first.to(score_1.dtype)
    won = logsigmoid(alpha * (score_1 - lam * score_2))
    lost = logsigmoid(alpha * (score_2 - lam * score_1))
    # 0·(−inf) would be NaN: a direction without weight is left out.
    return -(torch.where(first > 0, first * won, 0.0) + torch.where(first < 1, (1 - first) * lost, 0.0))


def check_positive(name: str, values: Mapping[str, float]) -> None:
    """Refuse settings that are no positive numbers.

    Raises:
        ValueError: the first of them.
    """
    for key, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}: {key}={value} must be a positive number.")


def check_share(name: str, key: str, value: float) -> None:
    """Refuse a setting outside of [0, 1].

    Raises:
        ValueError: it is outside.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: {key}={value} must lie in [0, 1].")
