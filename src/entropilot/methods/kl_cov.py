"""KL-Cov: penalise how far the few tokens of largest covariance drift (arXiv:2505.22617)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from entropilot.maths.covariance import select_restrain, select_top, token_covariance
from entropilot.maths.tokens import TokenBatch
from entropilot.methods.token_method import PaperValue, Scope, Steering, check_choice, check_clip


@dataclass(frozen=True)
class KLCov:
    """KL-Cov (arXiv:2505.22617, Eq. 13-14): penalise drift on the tokens of largest covariance.

        I_KL = { t | Rank(Cov(a_t)) ≤ k·N },    Cov(a_t) = (log π(a_t) − mean)·(A_t − mean)
        ℓ_t  = −ratio_t·A_t  +  β·|log π_θ(a_t) − log π_old(a_t)|   for t ∈ I_KL

    The absolute log-ratio is what the paper's listing and the authors' code use for D_KL(π_old ‖ π_θ). Its gradient
    is exactly 0 while log π_θ = log π_old, so at least two updates per rollout are needed. We depart in where the
    tokens are chosen: over the whole rollout (`scope`), not in every micro-batch.
    """

    # k; the authors' 7b_kl_cov.sh: k_percent=0.2, a percentage. 2e-4 for 32B
    fraction: float | None = PaperValue(2e-3)
    # ours: choose until this share of the net covariance is held; excludes fraction
    restrain: float | None = None
    coef: float = 1.0  # β; authors' ppo_kl_coef=1
    clip_low: float | None = None  # the published method has no PPO clip
    clip_high: float | None = None
    scope: Scope = "rollout"  # authors and verl: "microbatch"
    count_zero_groups: bool = False  # the authors' dynamic sampling leaves such groups out before the update
    allow_large_fraction: bool = False

    draws: ClassVar[bool] = False
    needs_stale_logp: ClassVar[bool] = True

    def __post_init__(self) -> None:
        fraction = check_choice(
            "KL-Cov", self.fraction, 2e-3, self.restrain, self.allow_large_fraction, self.scope
        )
        object.__setattr__(self, "fraction", fraction)
        check_clip("KL-Cov", self.clip_low, self.clip_high)
        if not 0 <= self.coef < float("inf"):
            raise ValueError(f"KL-Cov: coef={self.coef} must be a number of at least 0; the paper's is 1.")

    def select(self, batch: TokenBatch, generator: torch.Generator) -> Bool[Tensor, "b t"]:
        """Choose the tokens of largest covariance; `generator` is not used, nothing here is random."""
        valid = batch.finite
        covariance = token_covariance(batch.logp, batch.advantages, valid)
        if self.fraction is None:
            assert self.restrain is not None  # check_choice leaves exactly one
            return select_restrain(covariance, valid, self.restrain)
        return select_top(covariance, valid, self.fraction)

    def steer(self, batch: TokenBatch, selected: Bool[Tensor, "b t"]) -> Steering:
        """Add β·|log π_θ − log π_old| to the loss of the chosen tokens."""
        drift = (batch.logp - batch.old_logp).abs()
        return Steering(extra=torch.where(selected, self.coef * drift, drift.new_zeros(())))

    def driven(self, strength: float, target: float) -> KLCov:
        """Return a copy whose coef is e^strength times as large."""
        return replace(self, coef=self.coef * math.exp(strength))
