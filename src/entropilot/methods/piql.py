"""Learn a policy by P-IQL: a reward model from preferences, then implicit Q-learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
class PIQL:
    """P-IQL: the reward r̂ explains preferences by Bradley-Terry, and IQL (arXiv:2110.06169, Eq. 5-7) uses it.

    reward   −log σ( Σ r̂(ζ⁺) − Σ r̂(ζ⁻) )
    V        E[ |τ − 1(Q̄ − V < 0)|·(Q̄ − V)² ]
    Q        E[ (r̂ + γ·V(s′) − Q)² ]
    π        −E[ min(exp((Q̄ − V)/β), limit)·log π(a|s) ]
    """

    expectile: float = 0.7  # τ; CPL's configs for P-IQL
    beta: float = 1 / 3  # the same
    gamma: float = 0.99
    limit: float = 100.0  # on the weights; IQL's code

    def __post_init__(self) -> None:
        check_positive("P-IQL", {"beta": self.beta, "limit": self.limit})
        check_share("P-IQL", "expectile", self.expectile)
        check_share("P-IQL", "gamma", self.gamma)

    def reward_loss(
        self,
        rewards_1: Float[Tensor, "b t"],
        rewards_2: Float[Tensor, "b t"],
        first: Float[Tensor, "b"],
        mask_1: Tensor | None = None,
        mask_2: Tensor | None = None,
    ) -> Float[Tensor, "b"]:
        """Return the loss of the reward model, one number a pair, nats."""
        score_1 = masked_sum(rewards_1, as_mask(mask_1, rewards_1))
        score_2 = masked_sum(rewards_2, as_mask(mask_2, rewards_2))
        return preference_loss(score_1, score_2, first, 1.0, 1.0)

    def value_loss(self, q: Float[Tensor, "n"], value: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Return the expectile loss of V against a target Q̄, which is not trained by it."""
        error = q.detach() - value
        return (self.expectile - (error < 0).to(error.dtype)).abs() * error.square()

    def critic_loss(
        self,
        q: Float[Tensor, "n"],
        reward: Float[Tensor, "n"],
        next_value: Float[Tensor, "n"],
        last: Tensor | None = None,
    ) -> Float[Tensor, "n"]:
        """Return the squared error of Q; where `last` is true the episode ended and V(s′) is 0."""
        if last is not None:
            next_value = torch.where(last.bool(), 0.0, next_value)
        return (reward.detach() + self.gamma * next_value.detach() - q).square()

    def policy_loss(
        self, logp: Float[Tensor, "n"], q: Float[Tensor, "n"], value: Float[Tensor, "n"]
    ) -> Float[Tensor, "n"]:
        """Return the advantage-weighted imitation loss, nats."""
        weight = ((q - value).detach() / self.beta).exp().clamp(max=self.limit)
        return -weight * logp
