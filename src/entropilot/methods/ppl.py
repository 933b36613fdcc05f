"""PPL: preferences explained by the regret of the policy that acted (arXiv:2505.06273)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from entropilot.maths.gaussian import gaussian_entropy, gaussian_kl
from entropilot.methods.preference import (
    as_mask,
    check_positive,
    check_share,
    masked_sum,
    preference_loss,
)

Window = Literal["sum", "mean_L", "mean_terms"]
Constant = Literal["keep", "drop", "means"]


@dataclass(frozen=True)
class PPL:
    """PPL (arXiv:2505.06273): the Bradley-Terry model of the regret of each segment's own author π_b.

        S(ζ; π_b) = Σ_t { log π_θ(a_t|s_t) − Σ_{l=1}^{min(L,T−1−t)} γ^l·KL( π_b(·|s_{t+l}) ‖ π_θ(·|s_{t+l}) ) }
                  = Σ_u { log π_θ(a_u|s_u) − w_u·KL_u }
        ℓ         = −log σ( α·(S(ζ⁺; π_b⁺) − λ·S(ζ⁻; π_b⁻)) )

    The second form has one term a step: state u is seen by each of the L steps before it. The weights w_u are

        sum         Σ_{l=1}^{min(L,u)} γ^l                          the formula above
        mean_L      the same, divided by L
        mean_terms  Σ_{l=1}^{min(L,u)} γ^l / min(L, T−1−(u−l))      each inner sum divided by its number of terms

    The loss is derived from the score on the authors' project page; their own α, γ, L, λ and whether they use λ at all
    are not public. Ours for want of theirs: α and λ are CPL's, the rest is said in docs/methods/ppl.md.
    """

    alpha: float = 0.1  # CPL's, for 64 steps; the paper's is not public
    lam: float = 0.5  # CPL's; 1 is the pure model
    gamma: float = 1.0  # γ, discount of the steps ahead
    look_ahead: int | None = 16  # L; None looks to the end of the segment
    window: Window = "mean_L"  # how the steps ahead are weighed, see above
    constant: Constant = (
        "keep"  # keep: the whole KL; drop: without the author's own entropy; means: of the means alone
    )

    def __post_init__(self) -> None:
        check_positive("PPL", {"alpha": self.alpha})
        check_share("PPL", "lam", self.lam)
        check_share("PPL", "gamma", self.gamma)
        if self.look_ahead is not None and self.look_ahead < 0:
            raise ValueError(
                f"PPL: look_ahead={self.look_ahead} must be at least 0, or none for the whole segment."
            )
        for name, kind in (("window", Window), ("constant", Constant)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(
                    f"PPL: {name} {getattr(self, name)!r} does not exist; choose {', '.join(get_args(kind))}."
                )

    def weights(self, mask: Tensor, dtype: torch.dtype = torch.float64) -> Float[Tensor, "b t"]:
        """Return w_u of every step, (b, t), 0 outside of the mask; segments begin at column 0."""
        return window_weights(mask, self.look_ahead, self.gamma, self.window, dtype)

    def score(
        self,
        logp: Float[Tensor, "b t"],
        kl: Float[Tensor, "b t"],
        mask: Tensor | None = None,
        weights: Float[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b"]:
        """Return S(ζ; π_b), nats.

        Args:
            logp: log π_θ(a_u|s_u), (b, t).
            kl: KL_u, (b, t), from `gaussian_label`, `sampled_label`, `dirac_label`, or any other.
            mask: true where the segment has a step; its steps come first, padding after them.
            weights: what `weights` returned, where they are wanted once for many batches.
        """
        mask = as_mask(mask, logp)
        if weights is None:
            weights = self.weights(mask, torch.promote_types(logp.dtype, torch.float32))
        return masked_sum(logp - weights * kl, mask)

    def loss(
        self, score_1: Float[Tensor, "b"], score_2: Float[Tensor, "b"], first: Float[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        """Return the loss of every pair, nats; `first` is the probability that segment 1 is preferred."""
        return preference_loss(score_1, score_2, first, self.alpha, self.lam)


def window_weights(
    mask: Tensor,
    look_ahead: int | None,
    gamma: float,
    window: Window,
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "b t"]:
    """Return the weights w_u of the collapsed sum, (b, t); 0 outside of the mask.

    Raises:
        ValueError: padding before or between the steps of a segment, or a look-ahead of 0 divided by.
    """
    mask = mask.bool()
    rows, steps = mask.shape
    lengths = mask.sum(-1)
    places = torch.arange(steps, device=mask.device)
    if not torch.equal(mask, places < lengths[:, None]):
        raise ValueError(
            "A segment's steps must be the first columns of its row; the mask has a gap or begins late."
        )
    reach = steps if look_ahead is None else min(look_ahead, steps)
    if reach == 0 or steps == 0:
        return torch.zeros(rows, steps, dtype=dtype, device=mask.device)
    powers = gamma ** torch.arange(1, reach + 1, dtype=dtype, device=mask.device)
    # sums[n] = Σ_{l=1}^{n} γ^l
    sums = torch.cat([powers.new_zeros(1), powers.cumsum(0)])
    if window == "mean_terms":
        # Step t = u−l divides its window by min(L, T−1−t): a convolution of γ^l with those inverses.
        terms = (lengths[:, None] - 1 - places).clamp(min=1, max=reach)
        inverse = torch.where(places < lengths[:, None] - 1, 1.0 / terms.to(dtype), 0.0)
        padded = torch.nn.functional.pad(inverse, (reach, 0))[:, None, :-1]
        weights = torch.nn.functional.conv1d(padded, powers.flip(0)[None, None, :])[:, 0, :]
    else:
        weights = sums[places.clamp(max=reach)].expand(rows, steps)
        if window == "mean_L":
            # A look-ahead to the end has no L of its own: each segment's T − 1, its longest window.
            length = (
                (lengths - 1).clamp(min=1)[:, None].to(dtype) if look_ahead is None else float(look_ahead)
            )
            weights = weights / length
    return torch.where(mask, weights, 0.0)


def gaussian_label(
    mean_b: Float[Tensor, "*b d"],
    std_b: Float[Tensor, "*#b #d"],
    mean: Float[Tensor, "*b d"],
    std: Float[Tensor, "*#b #d"],
    constant: Constant = "keep",
) -> Float[Tensor, "*b"]:
    """Return KL_u of an author known as N(mean_b, std_b²), nats.

    What of the KL is free of θ cancels between two segments only if λ = 1, the lengths and the authors' spreads are equal.

        keep    the KL itself
        drop    KL + H(π_b) = −E_b[log π_θ]: without the label's entropy, the part that is free of θ for every policy;
                its limit at std_b → 0 is `dirac_label`
        means   Σ_d (m_b − m)²/(2σ²): without the spreads too, which are free of θ where the policy's std is fixed
    """
    if constant == "means":
        return 0.5 * ((mean_b - mean) / std).square().sum(-1)
    kl = gaussian_kl(mean_b, std_b, mean, std)
    return kl + gaussian_entropy(std_b.expand(mean_b.shape)) if constant == "drop" else kl


def sampled_label(
    logp_b: Float[Tensor, "b t"], logp: Float[Tensor, "b t"], constant: Constant = "keep"
) -> Float[Tensor, "b t"]:
    """Return the one-sample estimate of KL_u from the author's log-probs of its own actions: log π_b − log π_θ, nats.

    log π_b is free of θ, yet it shifts the logit, so it is kept; `drop` and `means` leave it out, which is `dirac_label`.
    """
    return logp_b.detach() - logp if constant == "keep" else -logp


def dirac_label(logp: Float[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """Return KL_u of an unknown author, taken for a Dirac at its action: −log π_θ(a_u|s_u) up to a constant, nats.

    The score becomes Σ_u (1 + w_u)·log π_θ(a_u|s_u), CPL with weights; with L = 0 it is CPL.
    """
    return -logp
