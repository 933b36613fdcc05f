"""Define what an advantage method is: a rule from a rollout's rewards to its advantages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class RewardBatch:
    """Hold a whole rollout of all ranks, b = p·g rows, the g completions of a prompt in a row.

    Attributes:
        rewards: (b,), NaN where nothing scored the completion.
        num_generations: g.
        advantages: (b,) of the estimator in force, for a rule that changes them.
        logp: log-probs of the sampled tokens at the policy that sampled them, nats, (b, t).
        mask: tokens that the loss counts, (b, t).
        entropy: full-vocabulary entropy, nats, (b, t).
    """

    rewards: Float[Tensor, " b"]
    num_generations: int
    advantages: Float[Tensor, " b"]
    logp: Float[Tensor, "b t"]
    mask: Bool[Tensor, "b t"]
    entropy: Float[Tensor, "b t"]


@dataclass(frozen=True)
class Estimate:
    """Hold a rule's advantages, (b,) or (b, t), and what it counted on the way, for the record."""

    advantages: Float[Tensor, "b *t"]
    counts: dict[str, float] = field(default_factory=dict)


class AdvantageMethod(Protocol):
    """Turn a rollout's rewards into advantages; nothing is random, so every rank gets the same."""

    per_token: ClassVar[bool]  # the advantages are (b, t)
    from_rewards: ClassVar[
        bool
    ]  # takes the place of the estimator; False: changes the estimator's advantages

    def estimate(self, batch: RewardBatch) -> Estimate: ...
