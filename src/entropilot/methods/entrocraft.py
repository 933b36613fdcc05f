"""Entrocraft: leave out of training the completions that push entropy further out of its band (arXiv:2604.26326)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from entropilot.methods.adaptive import Memory, Reading
from entropilot.methods.advantage_method import Estimate, RewardBatch


@dataclass(frozen=True)
class Entrocraft:
    """Entrocraft (arXiv:2604.26326): hold entropy H in a band by keeping only completions of one sign.

        m = 1[H > h_high] − 1[H < h_low],    completion i is kept where m·A_i ≥ 0, else A_i = 0

    Above the band only A > 0 is trained on, which sharpens the policy; below it only A < 0, which flattens it; inside
    it all are. The band moves linearly over the training, as in the authors' script. Their code (`grpo_range_linear`)
    departs from the formula: outside the band it trains on raw scores clipped at 0, not on the group's advantages.
    We follow the formula. H is the policy entropy of the rollout (see `Reading`).
    """

    low: float = 0.6  # h_low at the start, nats; the authors' entropy_lower_bound_range = [0.6, 0.4]
    high: float = 0.7  # h_high at the start, nats; entropy_upper_bound_range = [0.7, 0.5]
    low_end: float | None = 0.4  # at the end of training; none: as at the start
    high_end: float | None = 0.5  # the same for h_high
    width: float = 0.05  # ours: half the band, as a share of the target, under `entropy_target`
    sign: int = 0  # m of the rollout; set by `adapt`, 0 keeps all

    per_token: ClassVar[bool] = False
    from_rewards: ClassVar[bool] = False
    adapts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        ends = (
            (self.low, self.high),
            (
                self.low if self.low_end is None else self.low_end,
                self.high if self.high_end is None else self.high_end,
            ),
        )
        for low, high in ends:
            if not 0 <= low <= high < math.inf:
                raise ValueError(
                    f"Entrocraft: the band from low={low} to high={high} is empty; low must not exceed high, and neither "
                    "be negative."
                )
        if not 0 <= self.width < 1:
            raise ValueError(
                f"Entrocraft: width={self.width} must be a share of the target in [0, 1), such as 0.05."
            )
        if self.sign not in (-1, 0, 1):
            raise ValueError(
                f"Entrocraft: sign={self.sign} must be -1, 0 or 1; leave it out, training sets it."
            )

    def adapt(self, memory: Memory, reading: Reading) -> tuple[Entrocraft, Memory]:
        """Return the rule for this rollout: the band as far as it has moved, and the sign that it asks for."""
        done = min(1.0, reading.step / max(1, reading.steps))
        low = self.low if self.low_end is None else self.low + (self.low_end - self.low) * done
        high = self.high if self.high_end is None else self.high + (self.high_end - self.high) * done
        sign = int(reading.entropy > high) - int(reading.entropy < low)
        return replace(self, sign=sign), {"band_low": low, "band_high": high, "sign": float(sign)}

    def driven(self, strength: float, target: float) -> Entrocraft:
        """Return the rule with its band around the target; it has no strength, only two sides."""
        low, high = target * (1 - self.width), target * (1 + self.width)
        return replace(self, low=low, high=high, low_end=None, high_end=None)

    def estimate(self, batch: RewardBatch) -> Estimate:
        """Return the estimator's advantages, 0 for the completions that are left out; count those."""
        left_out = self.sign * batch.advantages < 0
        advantages = batch.advantages.masked_fill(left_out, 0.0)
        return Estimate(advantages, {"left_out": float(torch.count_nonzero(left_out))})
