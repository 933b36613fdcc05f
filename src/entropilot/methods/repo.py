"""REPO-R: make advantages larger for rare tokens that paid off, smaller for rare ones that did not (arXiv:2603.11682)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from entropilot.methods.adaptive import Memory, Reading
from entropilot.methods.advantage_method import Estimate, RewardBatch


@dataclass(frozen=True)
class REPO:
    """REPO-R (arXiv:2603.11682): an advantage per token that grows with its surprisal.

        A_t = A·(1 − ζ log π(a_t))   where A > 0
        A_t = A·(1 + ζ log π(a_t))   where A < 0
        ζ ← 2ζ while H < H_0,  ζ/2 while H > H_0

    H_0 is the entropy of the first rollout. π is the policy that sampled, so ζ is the same for all updates of a rollout.
    The factor of a negative advantage would change its sign where log π < −1/ζ, and reward what failed; the paper does
    not say what then. We stop at 0 and count these tokens (`adapted/clamped`). The authors published no code, and we
    know no value of theirs for ζ: its start and its bounds are ours.
    """

    zeta: float = 0.01  # ours: ζ of the first rollout
    lowest: float = 1e-4  # ours: doubling and halving stop at these bounds, so that ζ comes back in time
    highest: float = 1.0  # ours, too
    target: float | None = None  # H_0, nats; none: the entropy of the first rollout, as in the paper
    adaptive: bool = True  # False keeps ζ

    per_token: ClassVar[bool] = True
    from_rewards: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.lowest <= self.zeta <= self.highest < math.inf:
            raise ValueError(
                f"REPO: zeta={self.zeta} must lie between lowest={self.lowest} and highest={self.highest}, all above 0."
            )
        if self.target is not None and not 0 <= self.target < math.inf:
            raise ValueError(
                f"REPO: target={self.target} must be an entropy in nats, or none for the first rollout's."
            )

    @property
    def adapts(self) -> bool:
        """Tell whether ζ changes while training."""
        return self.adaptive

    def adapt(self, memory: Memory, reading: Reading) -> tuple[REPO, Memory]:
        """Return the rule for this rollout: ζ doubled below the target, halved above it; the first rollout keeps ζ."""
        target = memory.get("target", reading.entropy if self.target is None else self.target)
        zeta = memory.get("zeta", self.zeta)
        if memory and reading.entropy != target:
            zeta = 2 * zeta if reading.entropy < target else zeta / 2
        zeta = min(self.highest, max(self.lowest, zeta))
        return replace(self, zeta=zeta), {"zeta": zeta, "target": target}

    def estimate(self, batch: RewardBatch) -> Estimate:
        """Return an advantage per token, (b, t), 0 outside the mask; count the tokens whose factor stops at 0."""
        base = batch.advantages.unsqueeze(1)
        factor = 1 - self.zeta * base.sign() * batch.logp
        # A log-prob of −inf (a token that the policy can't give) has no finite factor; it keeps its advantage.
        factor = torch.where(batch.logp.isfinite(), factor, 1.0)
        clamped = batch.mask & (factor < 0)
        advantages = torch.where(batch.mask, base * factor.clamp(min=0.0), 0.0)
        return Estimate(advantages, {"clamped": float(torch.count_nonzero(clamped))})
