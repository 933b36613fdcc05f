"""Advantages that are cut from below, to ask whether the strong push on a lone dissenter sets the fall off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from entropilot.methods.advantage_method import Estimate, RewardBatch


@dataclass(frozen=True)
class NegativeClip:
    """Cut advantages at `least`; those above it stay as they are.

    With EMPO's reward and groups of eight, one that disagrees with seven has A = −2.47, two of eight −1.62, three −1.21.
    Unlike without scaling, only these large ones shrink, and not all advantages alike.
    """

    least: float = -1.2  # one dissenter is pushed down no harder than each of three

    per_token: ClassVar[bool] = False
    from_rewards: ClassVar[bool] = False

    def estimate(self, batch: RewardBatch) -> Estimate:
        """Return the estimator's advantages, none below `least`."""
        return Estimate(batch.advantages.clamp(min=self.least))
