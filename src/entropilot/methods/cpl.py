"""CPL: contrastive preference learning, CPL-KL, and DPO on segments."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from entropilot.methods.preference import (
    as_mask,
    check_positive,
    check_share,
    masked_sum,
    preference_loss,
)


@dataclass(frozen=True)
class CPL:
    """CPL (arXiv:2310.13639): the Bradley-Terry model of the segment's optimal advantage, α·Σ log π.

        S(ζ) = Σ_t log π_θ(a_t|s_t)                     ℓ = −log σ( α·(S(ζ⁺) − λ·S(ζ⁻)) )
        S(ζ) = Σ_t log π_θ(a_t|s_t) − log π_ref(a_t|s_t)      with a reference: CPL-KL, and at λ = 1 DPO on segments

    Steps are not discounted, as in the authors' code. CPL-KL there: α = 0.2, λ = 0.75, π_ref the policy after imitation.
    """

    alpha: float = 0.1  # authors' configs/mw_state_dense/cpl.yaml
    lam: float = 0.5  # the same; their `contrastive_bias`
    against_reference: bool = False  # whether the score needs `ref_logp`

    def __post_init__(self) -> None:
        check_positive("CPL", {"alpha": self.alpha})
        check_share("CPL", "lam", self.lam)

    def score(
        self,
        logp: Float[Tensor, "b t"],
        mask: Tensor | None = None,
        ref_logp: Float[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b"]:
        """Return S(ζ), nats, of segments padded to t steps; `ref_logp` makes it CPL-KL.

        Raises:
            ValueError: the method is against a reference, and there is no `ref_logp`.
        """
        if self.against_reference and ref_logp is None:
            raise ValueError("CPL-KL and DPO on segments compare with a reference; give ref_logp.")
        if ref_logp is not None:
            logp = logp - ref_logp.detach()
        return masked_sum(logp, as_mask(mask, logp))

    def loss(
        self, score_1: Float[Tensor, "b"], score_2: Float[Tensor, "b"], first: Float[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        """Return the loss of every pair, nats; `first` is the probability that segment 1 is preferred."""
        return preference_loss(score_1, score_2, first, self.alpha, self.lam)


def cpl_kl(alpha: float = 0.2, lam: float = 0.75) -> CPL:
    """Return CPL-KL with the authors' settings; its score needs `ref_logp`."""
    return CPL(alpha, lam, against_reference=True)


def dpo_segment(beta: float = 0.1) -> CPL:
    """Return DPO's loss (arXiv:2305.18290, Eq. 7) on whole segments; its score needs `ref_logp`."""
    return CPL(alpha=beta, lam=1.0, against_reference=True)
