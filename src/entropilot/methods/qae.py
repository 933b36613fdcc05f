"""QAE: take a quantile of the group's rewards, not their mean, as the baseline (arXiv:2509.22611)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from entropilot.methods.advantage_method import Estimate, RewardBatch


@dataclass(frozen=True)
class QAE:
    """QAE, quantile advantage estimation (arXiv:2509.22611): a K-quantile of the group's rewards is the baseline.

        A_i = (R_i − Q_K) / (std + ε),    Q_K = inf{ x : F(x) ≥ K }

    F is the distribution of the g rewards of a group; nothing is interpolated. With rewards 0 and 1 a group of success
    rate p has Q_K = 0 where p ≤ 1 − K, so only its right completions are trained on, and 1 otherwise, so only its
    wrong ones are. std is that of the group's g rewards, √(p(1 − p)), as in public implementations (the authors'
    repository could not be read); TRL's GRPO divides by the unbiased one.
    """

    quantile: float = 0.4  # K; the paper's default, 0.6 where entropy collapses early
    epsilon: float = 1e-8  # ε; of public implementations

    per_token: ClassVar[bool] = False
    from_rewards: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ValueError(f"QAE: quantile={self.quantile} must lie in (0, 1); the paper's is 0.4.")
        if not 0 <= self.epsilon < math.inf:
            raise ValueError(
                f"QAE: epsilon={self.epsilon} must be a number of at least 0; the paper's is 1e-8."
            )

    def estimate(self, batch: RewardBatch) -> Estimate:
        """Return one advantage per completion; a completion that nothing scored counts nowhere and gets 0."""
        groups = batch.rewards.view(-1, batch.num_generations)
        scored = ~groups.isnan()
        count = scored.sum(1, keepdim=True)
        # The first of the sorted rewards up to which a share of at least K lies; NaN sorts last.
        rank = (self.quantile * count - 1e-6).ceil().long().clamp(min=1) - 1
        baseline = groups.sort(1).values.gather(1, rank)
        spread = ((groups - groups.nanmean(1, keepdim=True)) ** 2).nansum(1, keepdim=True) / count.clamp(
            min=1
        )
        centred = torch.where(scored, groups - baseline, 0.0)
        # Equal rewards are exactly their quantile: 0, also where ε is 0.
        advantages = torch.where(centred == 0, centred, centred / (spread.sqrt() + self.epsilon))
        return Estimate(advantages.flatten())
