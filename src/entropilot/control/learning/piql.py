"""P-IQL on segments: a reward model from pairs, then IQL on the same segments."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from entropilot.control.learning.phase import Data, Phase
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.segments.actor import Actor, action_logp
from entropilot.methods.piql import PIQL

AVERAGING = 0.005  # of the target critic, IQL's
STATES = 512  # a batch


def _mlp(inputs: int, hidden: tuple[int, ...]) -> nn.Sequential:
    sizes, layers = [inputs, *hidden], []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))


class ImplicitQ(Phase):
    """P-IQL: the first `reward_steps` updates train the reward model, the next `steps` train V, Q and the policy.

    All of them take `learning_rate`; CPL's configs have 3e-4 for P-IQL.
    """

    def __init__(self, actor: Actor, data: Data, settings: TrainSettings, method: PIQL) -> None:
        self.actor, self.data, self.settings, self.method = actor, data, settings, method
        self.lead_in = settings.reward_steps()
        self.step, self.last = 0, self.lead_in + settings.steps
        state, action = data.inputs.shape[-1], data.actions.shape[-1]
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.reward = _mlp(state + action, settings.hidden)
            self.critic = _mlp(state + action, settings.hidden)
            self.value = _mlp(state, settings.hidden)
        self.target = copy.deepcopy(self.critic)
        self.generator = torch.Generator().manual_seed(2 * settings.seed + 5)
        self.both = torch.cat([data.inputs, data.actions], -1)
        rate = settings.learning_rate
        self.optimiser = torch.optim.Adam(self.reward.parameters(), lr=rate, fused=True)
        self.rewards: Tensor | None = None  # of every step; known when the reward model is trained

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        if self.step < self.lead_in:
            return self._reward_loss()
        if self.rewards is None:
            self._use_rewards()
        return self._policy_loss()

    def _reward_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        data, batch = self.data, self.settings.batch
        drawn = torch.randint(len(data.first), (batch,), generator=self.generator)
        rows = torch.cat([data.first[drawn], data.second[drawn]])
        one, two = self.reward(self.both[rows])[..., 0].split(batch)
        mask_1, mask_2 = data.mask[rows].split(batch)
        return self.method.reward_loss(one, two, data.preferred[drawn], mask_1, mask_2).mean(), {}

    def _use_rewards(self) -> None:
        """Give every step its reward by the trained model, standardised; begin with V, Q and the policy."""
        data = self.data
        with torch.no_grad():
            learned = torch.cat([self.reward(part)[..., 0] for part in self.both.split(64)])
            learned = (learned - learned[data.mask].mean()) / learned[data.mask].std().clamp(min=1e-6)
        self.rewards = learned.flatten()
        # A segment's last step has no successor in the data; it is no end of the episode, so it is left out.
        usable = data.mask.clone()
        usable[:, :-1] &= data.mask[:, 1:]
        usable[:, -1] = False
        self.places = usable.flatten().nonzero()[:, 0]
        networks = [*self.critic.parameters(), *self.value.parameters(), *self.actor.parameters()]
        self.optimiser = torch.optim.Adam(networks, lr=self.settings.learning_rate, fused=True)

    def _policy_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.rewards is not None
        inputs, both = self.data.inputs.flatten(0, 1), self.both.flatten(0, 1)
        rows = self.places[torch.randint(len(self.places), (STATES,), generator=self.generator)]
        with torch.no_grad():
            aim = self.target(both[rows])[:, 0]
        v = self.value(inputs[rows])[:, 0]
        next_v = self.value(inputs[rows + 1])[:, 0]
        q = self.critic(both[rows])[:, 0]
        logp = action_logp(self.actor(inputs[rows]), self.data.actions.flatten(0, 1)[rows])
        policy_loss = self.method.policy_loss(logp, aim, v).mean()
        loss = (
            self.method.value_loss(aim, v).mean()
            + self.method.critic_loss(q, self.rewards[rows], next_v).mean()
            + policy_loss
        )
        return loss, {}

    def update(self) -> dict[str, Tensor]:
        values = super().update()
        if self.step > self.lead_in:
            with torch.no_grad():
                for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                    slow.lerp_(fast, AVERAGING)
        return values

    def _networks(self) -> dict[str, nn.Module]:
        return {"reward": self.reward, "critic": self.critic, "value": self.value, "target": self.target}

    def state(self) -> dict[str, Any]:
        return super().state() | {"networks": {k: net.state_dict() for k, net in self._networks().items()}}

    def load(self, state: dict[str, Any]) -> None:
        for name, network in self._networks().items():
            network.load_state_dict(state["networks"][name])
        if state["step"] > self.lead_in:  # the reward model is final: what it gives is computed again
            self._use_rewards()
        super().load(state)
