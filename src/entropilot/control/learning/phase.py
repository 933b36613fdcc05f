"""One phase of training on segments: imitation or preferences."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from entropilot.control.learning.settings import TrainSettings
from entropilot.control.segments.actor import STD, Actor, action_logp, cpu_has_bf16
from entropilot.control.segments.types import Pairs, Segments
from entropilot.methods.cpl import CPL
from entropilot.methods.imitation import imitation_loss
from entropilot.methods.ppl import PPL, dirac_label, gaussian_label, sampled_label


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


def _author_logp(data: Data) -> Tensor:
    """log π_b(a) in the convention of `action_logp`, that is plus (d/2)·log π, (n, t)."""
    from entropilot.maths.gaussian import gaussian_logp

    return gaussian_logp(data.actions, data.mean_b, data.std_b) + 0.5 * data.actions.shape[-1] * math.log(
        math.pi
    )


class Phase:
    """One phase of a run: its loss on a batch, its optimiser, its generator. `state` and `load` make it resumable."""

    def __init__(self, actor: Actor, data: Data, settings: TrainSettings, name: str) -> None:
        self.actor, self.data, self.settings, self.name, self.step = actor, data, settings, name, 0
        imitation = name == "bc"
        self.last = settings.bc_steps if imitation else settings.steps
        rate = settings.bc_learning_rate if imitation else settings.learning_rate
        self.optimiser = torch.optim.Adam(actor.parameters(), lr=rate, fused=True)
        self.generator = torch.Generator().manual_seed(2 * settings.seed + imitation)
        self.method = settings.loss()
        self.reference: Tensor | None = None
        if imitation:
            inside = data.mask.flatten().nonzero()[:, 0]
            self.flat_inputs, self.flat_actions = (
                data.inputs.flatten(0, 1)[inside],
                data.actions.flatten(0, 1)[inside],
            )
        elif settings.method in ("cpl_kl", "dpo"):
            with torch.no_grad():
                self.reference = action_logp(actor(data.inputs), data.actions)
        elif settings.method == "ppl_sampled":
            self.author_logp = _author_logp(data)
        if isinstance(self.method, PPL):
            self.weights = self.method.weights(data.mask, torch.float32)
            self.std = torch.full((data.actions.shape[-1],), STD)

    def update(self) -> dict[str, Tensor]:
        """Take one optimiser step; return what is recorded."""
        loss, values = self._imitate() if self.name == "bc" else self._prefer()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.step += 1
        return {"loss": loss.detach(), **values}

    def _imitate(self) -> tuple[Tensor, dict[str, Tensor]]:
        rows = torch.randint(len(self.flat_inputs), (self.settings.bc_batch,), generator=self.generator)
        logp = action_logp(self.actor(self.flat_inputs[rows]), self.flat_actions[rows])
        return -logp.mean(), {}

    def _prefer(self) -> tuple[Tensor, dict[str, Tensor]]:
        data, settings = self.data, self.settings
        if settings.method == "sft":
            rows = torch.multinomial(data.wins, 2 * settings.batch, True, generator=self.generator)
            logp = action_logp(self.actor(data.inputs[rows]), data.actions[rows])
            return imitation_loss(logp, data.mask[rows]), {}
        pairs = torch.randint(len(data.first), (settings.batch,), generator=self.generator)
        rows = torch.cat([data.first[pairs], data.second[pairs]])
        score_1, score_2 = self.score(rows).split(settings.batch)
        preferred = data.preferred[pairs]
        assert self.method is not None
        loss = self.method.loss(score_1, score_2, preferred).mean()
        right = ((score_1 > score_2) == (preferred > 0.5)).float().mean()
        return loss, {"ranked_right": right.detach()}

    def score(self, rows: Tensor) -> Tensor:
        """Return S of segments, (b,)."""
        data, settings = self.data, self.settings
        mean, mask = self.actor(data.inputs[rows]), data.mask[rows]
        logp = action_logp(mean, data.actions[rows])
        if isinstance(self.method, CPL):
            return self.method.score(logp, mask, None if self.reference is None else self.reference[rows])
        assert isinstance(self.method, PPL)
        if settings.method in ("ppl", "ppl_fitted"):
            kl = gaussian_label(
                data.mean_b[rows], data.std_b[rows], mean, self.std.expand_as(mean), settings.constant
            )
            if settings.constant == "drop":
                # −E_b[log π_θ] in the convention of `action_logp`, as the other labels and log π_θ itself are.
                kl = kl - 0.5 * mean.shape[-1] * math.log(math.pi)
        elif settings.method == "ppl_sampled":
            kl = sampled_label(self.author_logp[rows], logp, settings.constant)
        else:
            kl = dirac_label(logp)
        return self.method.score(logp, kl, mask, self.weights[rows])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "phase": self.name,
            "step": self.step,
            "actor": self.actor.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "reference": self.reference,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.actor.load_state_dict(state["actor"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.step, self.reference = state["step"], state["reference"]
