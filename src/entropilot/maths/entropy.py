"""Entropies of a policy, in nats, and how the exact gradient changes them to first order."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from entropilot.maths.tokens import full_precision


def token_entropy(logits: Float[Tensor, "*b v"], temperature: float = 1.0) -> Float[Tensor, "*b"]:
    """Return H = logsumexp(z) − Σ_v softmax(z)_v·z_v with z = logits / temperature, over the full vocabulary.

    Half precision is raised to float32. For long sequences use the engine's fused head instead: it never keeps
    logits of shape (b, t, v).
    """
    logp = (full_precision(logits) / temperature).log_softmax(-1)
    # A logit of −inf (a banned token) contributes 0·(−inf); xlogy-like handling keeps it 0.
    return -(logp.exp() * logp.clamp(min=-1e30)).sum(-1)


def policy_entropy(entropy: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> tuple[Tensor, Tensor]:
    """Return (sum, count) of per-sequence token means: H(π, D) of arXiv:2505.22617, Eq. 5, is sum / count.

        H(π_θ, D) = (1/|D|) Σ_x (1/|y|) Σ_t H(π_θ(· | y_<t, x))

    Every sequence weighs the same, however long it is; rows without a token are left out. Measured before the
    first update of a rollout, at T = 1, on all its rows (the authors' dp_actor.py,
    `compute_entropy_for_every_source`). Sum and count travel apart so that ranks can be added.
    """
    lengths = mask.sum(-1)
    per_row = full_precision(entropy).masked_fill(~mask, 0.0).sum(-1) / lengths.clamp(min=1)
    return per_row.sum(), (lengths > 0).sum()
