"""STARE: give the most surprising tokens of good completions more weight while entropy is low (arXiv:2606.19236)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from entropilot.maths.covariance import select_top
from entropilot.maths.tokens import TokenBatch
from entropilot.methods.adaptive import Memory, Reading
from entropilot.methods.token_method import Scope, Steering, check_clip


@dataclass(frozen=True)
class STARE:
    """STARE (arXiv:2606.19236): reweight the gradient of the tokens that decide over entropy.

        L⁺ = top P of { t : A_t > 0 } by surprisal −log π(a_t),    L⁻ = top P of { t : A_t < 0 }
        w_t = W on L⁺,  M on L⁻ (variant C2),  1 elsewhere;    all 1 while H ≥ H_tgt
        adaptive:  W ← clip(W + α·sgn(H_tgt − H), 1, W_max),  M ← clip(M − α·sgn(H_tgt − H), M_min, 1)

    w multiplies the gradient through log π(a_t), which for the PPO loss is the gradient of the authors' w·ℓ_t; the value
    of the loss stays. We depart in three things. Tokens are chosen over the whole rollout (`scope`), in the authors' code
    in every micro-batch. Of N candidates max(1, ⌊P·N⌋) are taken, there ⌈P·N⌉. H is the policy entropy of the rollout
    (see `Reading`), there the mean over tokens.
    """

    fraction: float = 0.1  # P; stare_top_p_ratio, of the tokens of each sign
    weight_up: float = 1.1  # W; stare_reweight_w, 1.05 for models of 14B and more
    weight_down: float = 0.9  # M; stare_reweight_m, 0.95 for models of 14B and more
    two_sided: bool = False  # variant C2; the authors' default is O1, which leaves L⁻ alone
    target: float | None = 0.3  # H_tgt, nats; stare_target_entropy. None: at all times
    adaptive: bool = False  # the paper's section 4.4; off by default in the authors' script
    step: float = 0.01  # α; stare_alpha
    highest: float = 1.5  # W_max; stare_w_max
    lowest: float = 0.5  # M_min; stare_m_min
    clip_low: float | None = 0.2  # the authors' script
    clip_high: float | None = 0.28
    scope: Scope = "rollout"
    count_zero_groups: bool = False

    draws: ClassVar[bool] = False
    needs_stale_logp: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"STARE: fraction={self.fraction} must lie in (0, 1]; the paper's is 0.1.")
        for name in ("weight_up", "weight_down", "highest", "lowest", "step"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"STARE: {name}={getattr(self, name)} must be a number of at least 0.")
        if self.target is not None and not 0 <= self.target < math.inf:
            raise ValueError(
                f"STARE: target={self.target} must be an entropy in nats, or none for all times."
            )
        if self.adaptive and self.target is None:
            raise ValueError("STARE: adaptive follows a target; set target, such as 0.3, or adaptive=false.")
        if self.adaptive and not (
            1 <= self.weight_up <= self.highest and self.lowest <= self.weight_down <= 1
        ):
            raise ValueError(
                f"STARE: adaptive moves weight_up in [1, {self.highest:g}] and weight_down in [{self.lowest:g}, 1], but "
                f"they begin at {self.weight_up:g} and {self.weight_down:g}; begin inside, or set highest and lowest."
            )
        if self.scope not in ("rollout", "update", "microbatch"):
            raise ValueError(
                f"STARE: scope {self.scope!r} does not exist; choose rollout, update or microbatch."
            )
        check_clip("STARE", self.clip_low, self.clip_high)

    @property
    def adapts(self) -> bool:
        """Tell whether the entropy of a rollout decides over what happens."""
        return self.target is not None

    def adapt(self, memory: Memory, reading: Reading) -> tuple[STARE, Memory]:
        """Return the method for this rollout: its weights moved by one step, and 1 each where H is not below H_tgt."""
        assert self.target is not None  # `adapts`
        up, down = memory.get("weight_up", self.weight_up), memory.get("weight_down", self.weight_down)
        gap = self.target - reading.entropy
        if self.adaptive:
            move = self.step * ((gap > 0) - (gap < 0))
            up = min(self.highest, max(1.0, up + move))
            down = max(self.lowest, min(1.0, down - move))
        on = gap > 0
        acting = replace(
            self, weight_up=up if on else 1.0, weight_down=down if on else 1.0, target=None, adaptive=False
        )
        return acting, {"weight_up": up, "weight_down": down, "on": float(on)}

    def driven(self, strength: float, target: float) -> STARE:
        """Return the two-sided method with W = e^strength and M = e^−strength; below 0 it lowers entropy."""
        up, down = math.exp(strength), math.exp(-strength)
        return replace(self, weight_up=up, weight_down=down, two_sided=True, target=None, adaptive=False)

    def select(self, batch: TokenBatch, generator: torch.Generator) -> Bool[Tensor, "b t"]:
        """Choose the tokens of largest surprisal among those of each sign; none where the weights are 1.

        Raises:
            ValueError: `target` is set: `adapt` has to be asked first what holds for this rollout.
        """
        if self.target is not None:
            raise ValueError(
                "STARE: target compares with the entropy of a rollout, which only a trainer of entropilot reads; in a loop "
                "of your own call adapt before, elsewhere set target to none."
            )
        if self.weight_up == 1 and (self.weight_down == 1 or not self.two_sided):
            return torch.zeros_like(batch.mask)
        # Negated log-probs rank by surprisal; `select_top` settles ties by row order.
        surprisal, valid = -batch.logp.detach(), batch.finite
        chosen = select_top(surprisal, valid & (batch.advantages > 0), self.fraction)
        if self.two_sided:
            chosen = chosen | select_top(surprisal, valid & (batch.advantages < 0), self.fraction)
        return chosen

    def steer(self, batch: TokenBatch, selected: Bool[Tensor, "b t"]) -> Steering:
        """Reweight the gradient of the chosen tokens: W where the advantage is positive, M where it is negative."""
        weight = torch.ones_like(batch.advantages)
        weight = weight.masked_fill(selected & (batch.advantages > 0), self.weight_up)
        return Steering(reweight=weight.masked_fill(selected & (batch.advantages < 0), self.weight_down))
