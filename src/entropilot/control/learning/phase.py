"""Train one phase on segments: what a phase is, and the first one, imitation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from entropilot.control.learning.settings import TrainSettings
from entropilot.control.segments.actor import Actor, action_logp
from entropilot.control.segments.types import Pairs, Segments
from entropilot.machine import cpu_has_bf16


class Data:
    """Segments and pairs as tensors, states standardised once."""

    def __init__(self, segments: Segments, pairs: Pairs | None, actor: Actor) -> None:
        self.inputs = actor.standardise(torch.as_tensor(segments.states))
        self.actions = torch.as_tensor(segments.actions)
        steps = self.inputs.shape[1]
        self.mask = torch.arange(steps) < torch.as_tensor(segments.lengths)[:, None]
        self.mean_b = torch.as_tensor(segments.mean_b)
        self.std_b = torch.as_tensor(segments.std_b)
        self.rewards = torch.as_tensor(segments.rewards)
        if pairs is not None:
            self.first = torch.as_tensor(pairs.first)
            self.second = torch.as_tensor(pairs.second)
            self.preferred = torch.as_tensor(pairs.preferred, dtype=torch.float32)
            # How often each segment is preferred: what SFT imitates.
            wins = torch.zeros(len(self.inputs))
            wins.index_add_(0, self.first, self.preferred)
            wins.index_add_(0, self.second, 1 - self.preferred)
            self.wins = wins


def new_actor(segments: Segments, settings: TrainSettings) -> Actor:
    """Return an untrained policy, its inputs standardised by the segments."""
    bf16 = cpu_has_bf16() if settings.bf16 is None else settings.bf16
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        actor = Actor(segments.states.shape[-1], segments.actions.shape[-1], settings.hidden, bf16)
    states = torch.as_tensor(segments.states)
    inside = torch.arange(states.shape[1]) < torch.as_tensor(segments.lengths)[:, None]
    actor.standardise_by(states[inside])
    return actor


class Phase(ABC):
    """Base of all phases: the loss on a batch, the optimiser, the generator; `state` and `load` make it resumable.

    Attributes:
        name: `bc` or `preference`; a checkpoint says in which of them it was written.
        step: updates done so far.
        last: updates in all.
        lead_in: updates at the beginning that leave the policy as it is (P-IQL's reward model).
    """

    name: ClassVar[str] = "preference"
    lead_in: int = 0

    def __init__(self, actor: Actor, data: Data, settings: TrainSettings) -> None:
        self.actor, self.data, self.settings = actor, data, settings
        self.step, self.last = 0, settings.steps
        self.optimiser = torch.optim.Adam(actor.parameters(), lr=settings.learning_rate, fused=True)
        self.generator = torch.Generator().manual_seed(2 * settings.seed)

    @abstractmethod
    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the next batch, and what else is recorded of it."""

    def update(self) -> dict[str, Tensor]:
        """Take one optimiser step; return what is recorded."""
        loss, values = self.loss()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.step += 1
        return {"loss": loss.detach(), **values}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "phase": self.name,
            "step": self.step,
            "actor": self.actor.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.step = state["step"]
        self.actor.load_state_dict(state["actor"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])


class Imitation(Phase):
    """Behaviour cloning of all segments, the first phase of every method."""

    name: ClassVar[str] = "bc"

    def __init__(self, actor: Actor, data: Data, settings: TrainSettings) -> None:
        super().__init__(actor, data, settings)
        self.last = settings.bc_steps
        self.optimiser = torch.optim.Adam(actor.parameters(), lr=settings.bc_learning_rate, fused=True)
        self.generator = torch.Generator().manual_seed(2 * settings.seed + 1)
        inside = data.mask.flatten().nonzero()[:, 0]
        self.flat_inputs = data.inputs.flatten(0, 1)[inside]
        self.flat_actions = data.actions.flatten(0, 1)[inside]

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        rows = torch.randint(len(self.flat_inputs), (self.settings.bc_batch,), generator=self.generator)
        logp = action_logp(self.actor(self.flat_inputs[rows]), self.flat_actions[rows])
        return -logp.mean(), {}
