"""P-IQL on segments: a reward model from pairs, then IQL on the same segments."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from entropilot.control.learning.phase import Data
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.segments.actor import Actor, action_logp
from entropilot.control.segments.types import Pairs, Segments

AVERAGING = 0.005  # of the target critic, IQL's
STATES = 512  # a batch


def _mlp(inputs: int, hidden: tuple[int, ...]) -> nn.Sequential:
    sizes, layers = [inputs, *hidden], []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))


def train_piql(
    actor: Actor,
    segments: Segments,
    pairs: Pairs,
    settings: TrainSettings,
    on_step: Callable[[Actor, int, dict[str, Tensor]], Any],
) -> Actor:
    """Return a policy: half of `steps` train the reward model, then `steps` train V, Q and the policy together.

    All of them take `learning_rate`; CPL's configs have 3e-4 for P-IQL.
    """
    method, reward_steps = settings.piql_settings()
    data = Data(segments, pairs, actor)
    state, action = data.inputs.shape[-1], data.actions.shape[-1]
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        reward, critic, value = (
            _mlp(state + action, settings.hidden),
            _mlp(state + action, settings.hidden),
            _mlp(state, settings.hidden),
        )
    target = copy.deepcopy(critic)
    generator = torch.Generator().manual_seed(2 * settings.seed + 5)
    both = torch.cat([data.inputs, data.actions], -1)
    optimiser = torch.optim.Adam(reward.parameters(), lr=settings.learning_rate, fused=True)
    for _ in range(reward_steps):
        drawn = torch.randint(len(data.first), (settings.batch,), generator=generator)
        rows = torch.cat([data.first[drawn], data.second[drawn]])
        one, two = reward(both[rows])[..., 0].split(settings.batch)
        mask_1, mask_2 = data.mask[rows].split(settings.batch)
        loss = method.reward_loss(one, two, data.preferred[drawn], mask_1, mask_2).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        learned = torch.cat([reward(part)[..., 0] for part in both.split(64)])
        learned = (learned - learned[data.mask].mean()) / learned[data.mask].std().clamp(min=1e-6)
    # A segment's last step has no successor in the data; it is no end of the episode, so it is left out.
    usable = data.mask.clone()
    usable[:, :-1] &= data.mask[:, 1:]
    usable[:, -1] = False
    places = usable.flatten().nonzero()[:, 0]
    inputs, flat_both = data.inputs.flatten(0, 1), both.flatten(0, 1)
    actions, rewards = data.actions.flatten(0, 1), learned.flatten()
    networks = [*critic.parameters(), *value.parameters(), *actor.parameters()]
    optimiser = torch.optim.Adam(networks, lr=settings.learning_rate, fused=True)
    for step in range(1, settings.steps + 1):
        rows = places[torch.randint(len(places), (STATES,), generator=generator)]
        with torch.no_grad():
            aim = target(flat_both[rows])[:, 0]
        v = value(inputs[rows])[:, 0]
        next_v = value(inputs[rows + 1])[:, 0]
        q = critic(flat_both[rows])[:, 0]
        logp = action_logp(actor(inputs[rows]), actions[rows])
        policy_loss = method.policy_loss(logp, aim, v).mean()
        loss = (
            method.value_loss(aim, v).mean()
            + method.critic_loss(q, rewards[rows], next_v).mean()
            + policy_loss
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), critic.parameters(), strict=True):
                slow.lerp_(fast, AVERAGING)
        on_step(actor, step, {"loss": loss.detach()})
    return actor
