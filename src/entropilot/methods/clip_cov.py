"""Clip-Cov: stop the gradient of a few tokens of large covariance (arXiv:2505.22617)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from entropilot.maths.covariance import select_restrain, select_window, token_covariance
from entropilot.maths.surrogate import is_ppo_clipped
from entropilot.maths.tokens import TokenBatch
from entropilot.methods.token_method import PaperValue, Scope, Steering, check_choice, check_clip


@dataclass(frozen=True)
class ClipCov:
    """Clip-Cov (arXiv:2505.22617, Eq. 11-12): stop the gradient of a few tokens of large covariance.

        I_clip ∼ Uniform( t | ω_low < Cov(a_t) < ω_high, ⌊r·N⌋ )
        ∇ log π(a_t) = 0   for t ∈ I_clip

    Tokens that PPO already clips can't be chosen, and a chosen token stays in the denominator, as in the authors' code.
    We detach log π(a_t) instead of multiplying the loss by 0: the gradient is the same for token-level losses and,
    unlike an edit of the advantages, right for sequence-level ones too. A reference-KL gradient of a chosen
    token stops with it. We also depart in where tokens are chosen: see `scope`.
    """

    fraction: float | None = PaperValue(2e-4)  # r; paper 4.1 and the authors' clip_cov_ratio
    # ours: the top set that holds this share of the net covariance; no window, no draw
    restrain: float | None = None
    cov_low: float = 1.0  # ω_low; the authors' clip_cov_lb
    cov_high: float = 5.0  # ω_high; the authors' clip_cov_ub
    clip_low: float | None = 1.0  # the authors' 7b_clip_cov.sh: clip_ratio_low=1, practically off
    clip_high: float | None = 1.0
    scope: Scope = "rollout"  # authors and verl: "microbatch"
    count_zero_groups: bool = False  # the authors' dynamic sampling leaves such groups out before the update
    allow_large_fraction: bool = False

    draws: ClassVar[bool] = True
    needs_stale_logp: ClassVar[bool] = False

    def __post_init__(self) -> None:
        fraction = check_choice(
            "Clip-Cov", self.fraction, 2e-4, self.restrain, self.allow_large_fraction, self.scope
        )
        object.__setattr__(self, "fraction", fraction)
        check_clip("Clip-Cov", self.clip_low, self.clip_high)
        if not self.cov_low < self.cov_high:
            raise ValueError(
                f"Clip-Cov: the window (cov_low={self.cov_low}, cov_high={self.cov_high}) is empty; "
                "the paper's is (1, 5)."
            )

    def select(self, batch: TokenBatch, generator: torch.Generator) -> Bool[Tensor, "b t"]:
        """Draw tokens from the window.

        Tokens that PPO clips already are left out: those that `batch.clipped` names, where the engine filled it in, else
        by this method's own clip and the ratio of the token.
        """
        valid = batch.finite
        covariance = token_covariance(batch.logp, batch.advantages, valid)
        clipped = batch.clipped
        if clipped is None:
            clipped = is_ppo_clipped(batch, self.clip_low, self.clip_high)
        if self.fraction is None:
            assert self.restrain is not None  # check_choice leaves exactly one
            return select_restrain(covariance, valid & ~clipped, self.restrain)
        return select_window(
            covariance, valid, self.fraction, self.cov_low, self.cov_high, generator, clipped
        )

    def steer(self, batch: TokenBatch, selected: Bool[Tensor, "b t"]) -> Steering:
        """Stop the gradient of the chosen tokens."""
        return Steering(detach=selected)

    def driven(self, strength: float, target: float) -> ClipCov:
        """Return a copy whose `restrain`, or `fraction` where that is set, is e^strength times as large."""
        factor = math.exp(strength)
        if self.restrain is not None:
            return replace(self, restrain=self.restrain * factor)
        assert self.fraction is not None  # check_choice leaves exactly one
        return replace(self, fraction=min(1.0, self.fraction * factor), allow_large_fraction=True)
