"""W-REINFORCE: punish wrong completions in full, reward right ones a little (arXiv:2506.01347)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from entropilot.methods.advantage_method import Estimate, RewardBatch


@dataclass(frozen=True)
class WReinforce:
    """W-REINFORCE (arXiv:2506.01347): learn mostly from what is wrong.

        A_i = λ where completion i is right,  −1 where it is wrong

    There is neither a baseline nor a scale, so a group whose rewards are all equal is trained on, too. λ = 0 is the
    paper's NSR (negative samples only). The authors' code scales a reward of exactly 1 by λ and subtracts 1 from one of
    exactly 0; here every reward above `right` counts as right, so that rewards other than 0 and 1 have a meaning.
    """

    weight: float = 0.1  # λ; the authors' positive_advantage_weight
    right: float = 0.5  # ours: rewards above it count as right

    per_token: ClassVar[bool] = False
    from_rewards: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(
                f"W-REINFORCE: weight={self.weight} must be a number of at least 0; the paper's is 0.1."
            )
        if not math.isfinite(self.right):
            raise ValueError(
                f"W-REINFORCE: right={self.right} must be a number; 0.5 parts rewards of 0 and 1."
            )

    def estimate(self, batch: RewardBatch) -> Estimate:
        """Return one advantage per completion; a completion that nothing scored gets 0."""
        rewards = batch.rewards
        advantages = torch.full_like(rewards, -1.0).masked_fill(rewards > self.right, self.weight)
        return Estimate(advantages.masked_fill(rewards.isnan(), 0.0))
