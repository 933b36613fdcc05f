"""Finite worlds where the soft-optimal policy and every regret are exact; many worlds, one a seed, in one tensor.

Letters of shapes: m worlds, n segments, t steps, s states, a actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from entropilot.errors import UserError

Teacher = Literal["author", "advantage", "return"]
F64 = torch.float64


@dataclass(frozen=True)
class Worlds:
    """m Markov decision processes with entropy-regularised values.

    Attributes:
        transition: (m, s, a, s). reward: (m, s, a). start: (m, s) distribution of the first state.
        gamma: discount. alpha: temperature of the entropy.
        value: (m, s) soft-optimal V*. log_best: (m, s, a) log π*.
    """

    transition: Tensor
    reward: Tensor
    start: Tensor
    gamma: float
    alpha: float
    value: Tensor
    log_best: Tensor

    def __len__(self) -> int:
        return len(self.reward)

    def evaluate(self, log_policy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the soft values of a policy, V^π (m, s) and Q^π (m, s, a), by a linear solve."""
        return policy_values(self.transition, self.reward, log_policy, self.gamma, self.alpha)

    def regret(self, log_policy: Tensor) -> Tensor:
        """Return V* − V^π from the start, a share of the uniform policy's, (m,); 0 is optimal, 1 no better than chance."""
        uniform = torch.full_like(log_policy, 1 / log_policy.shape[-1]).log()
        gap = (self.start * (self.value - self.evaluate(log_policy)[0])).sum(-1)
        return gap / (self.start * (self.value - self.evaluate(uniform)[0])).sum(-1)


def policy_values(
    transition: Tensor, reward: Tensor, log_policy: Tensor, gamma: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """Return V^π (m, s) and Q^π (m, s, a) with entropy, by a linear solve."""
    policy = log_policy.exp()
    kernel = (policy[..., None, :] @ transition)[..., 0, :]
    own = (policy * (reward - alpha * log_policy)).nan_to_num().sum(-1)
    eye = torch.eye(kernel.shape[-1], dtype=kernel.dtype)
    value = torch.linalg.solve(eye - gamma * kernel, own)
    return value, reward + gamma * (transition @ value[:, None, :, None])[..., 0]


def soft_optimal(transition: Tensor, reward: Tensor, gamma: float, alpha: float) -> tuple[Tensor, Tensor]:
    """Return V* (m, s) and log π* (m, s, a) of V*(s) = α·log Σ_a exp(Q*(s, a)/α), to rounding.

    Soft policy iteration: π ← softmax(Q^π/α) improves until it stands still, in about ten solves.
    """
    log_policy = torch.log_softmax(reward / alpha, -1)
    value, q = policy_values(transition, reward, log_policy, gamma, alpha)
    for _ in range(200):
        log_policy = torch.log_softmax(q / alpha, -1)
        before = value
        value, q = policy_values(transition, reward, log_policy, gamma, alpha)
        if (value - before).abs().max() < 1e-13 * (1 + value.abs().max()):
            break
    return alpha * torch.logsumexp(q / alpha, -1), torch.log_softmax(q / alpha, -1)


def make_worlds(
    seeds: list[int],
    slip: float = 0.3,
    sparse: bool = False,
    gamma: float = 0.9,
    alpha: float = 0.5,
    states: int = 20,
    actions: int = 4,
) -> Worlds:
    """Return a random world a seed: an action leads to one state, or with probability `slip` to any.

    Args:
        sparse: reward 3 for leaving one of two states and 0 elsewhere, instead of N(0, 1) for every state and action.

    Raises:
        UserError: settings outside of their ranges.
    """
    if not (0 <= slip <= 1 and 0 <= gamma < 1 and alpha > 0 and states >= 3 and actions >= 2):
        raise UserError(
            f"A world needs slip in [0, 1], gamma in [0, 1), alpha > 0; got {slip}, {gamma}, {alpha}."
        )
    transitions, rewards = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        goes = torch.randint(states, (states, actions), generator=generator)
        sure = torch.nn.functional.one_hot(goes, states).to(F64)
        transitions.append((1 - slip) * sure + slip / states)
        dense = torch.randn(states, actions, dtype=F64, generator=generator)
        goals = torch.zeros(states, 1, dtype=F64)
        goals[torch.randperm(states, generator=generator)[:2]] = 3.0
        rewards.append(goals.expand(states, actions) if sparse else dense)
    transition, reward = torch.stack(transitions), torch.stack(rewards)
    value, log_best = soft_optimal(transition, reward, gamma, alpha)
    start = torch.full((len(seeds), states), 1 / states, dtype=F64)
    return Worlds(transition, reward, start, gamma, alpha, value, log_best)


def make_authors(worlds: Worlds, skills: tuple[float, ...], bias: float, seeds: list[int]) -> Tensor:
    """Return log-policies (m, authors, s, a): softmax(skill·log π* + bias·z), z ~ N(0, 1) fixed for an author.

    skill 1 without bias is optimal, 0 knows nothing; the bias is what makes an author wrong on average.
    """
    found = []
    for k, skill in enumerate(skills):
        noise = torch.stack(
            [
                torch.randn(
                    worlds.reward.shape[1:],
                    dtype=F64,
                    generator=torch.Generator().manual_seed(1_000 * (k + 1) + s),
                )
                for s in seeds
            ]
        )
        found.append(torch.log_softmax(skill * worlds.log_best + bias * noise, -1))
    return torch.stack(found, 1)


@dataclass
class Walks:
    """n segments in each of m worlds.

    Attributes:
        states, actions: (m, n, t). author: (m, n). author_logp: (m, n, t, a), the author's log-probs of all actions.
    """

    states: Tensor
    actions: Tensor
    author: Tensor
    author_logp: Tensor


def walk(worlds: Worlds, authors: Tensor, count: int, steps: int, generator: torch.Generator) -> Walks:
    """Sample `count` segments a world from the start; the authors take turns."""
    m, size = len(worlds), worlds.reward.shape[1]
    author = (torch.arange(count) % authors.shape[1]).expand(m, count)
    world = torch.arange(m)[:, None].expand(m, count)
    state = torch.multinomial(worlds.start, count, True, generator=generator)
    states, actions, logps = [], [], []
    for _ in range(steps):
        logp = authors[world, author, state]
        action = torch.multinomial(logp.exp().flatten(0, 1), 1, generator=generator).view(m, count)
        states.append(state)
        actions.append(action)
        logps.append(logp)
        chances = worlds.transition[world, state, action].view(-1, size)
        state = torch.multinomial(chances, 1, generator=generator).view(m, count)
    return Walks(torch.stack(states, -1), torch.stack(actions, -1), author, torch.stack(logps, -2))


def teach(worlds: Worlds, walks: Walks, authors: Tensor, teacher: Teacher) -> Tensor:
    """Return a score a segment, (m, n), in units of reward.

    author     Σ Q^{π_b}(s, a) − V*(s): minus the regret of the author, what PPL takes preferences to be
    advantage  Σ Q*(s, a) − V*(s): what CPL takes them to be
    return     Σ r(s, a)
    """
    world = torch.arange(len(worlds))[:, None, None].expand_as(walks.states)
    if teacher == "return":
        return worlds.reward[world, walks.states, walks.actions].sum(-1)
    if teacher == "advantage":
        return worlds.alpha * worlds.log_best[world, walks.states, walks.actions].sum(-1)
    q = torch.stack([worlds.evaluate(authors[:, k])[1] for k in range(authors.shape[1])], 1)
    author = walks.author[..., None].expand_as(walks.states)
    regret = worlds.value[world, walks.states] - q[world, author, walks.states, walks.actions]
    return -regret.sum(-1)


def expected_visits(worlds: Worlds, authors: Tensor, horizon: int | None = None) -> Tensor:
    """Return Σ_{l=1}^{horizon} γ^l·P(s_{t+l} = x | s_t, a_t, π_b from there), (m, authors, s, a, x); none has no end.

    With it the expectation in PPL's regret identity is exact: E_{π_b}[ Σ_l γ^l·KL(s_{t+l}) ] = Σ_x visits·KL(x).
    """
    kernel = (authors.exp()[..., None, :] @ worlds.transition[:, None])[..., 0, :]  # (m, authors, s, x)
    one = worlds.gamma * worlds.transition[:, None]
    if horizon is None:
        eye = torch.eye(kernel.shape[-1], dtype=kernel.dtype)
        return one @ torch.linalg.inv(eye - worlds.gamma * kernel)[:, :, None]
    total = torch.zeros_like(one.expand(-1, authors.shape[1], -1, -1, -1))
    for _ in range(horizon):  # M_h = γP·(1 + (what follows) ) = γP + M_{h−1}·γP_b
        total = one + total @ (worlds.gamma * kernel)[:, :, None]
    return total


def prefer_by(
    score: Tensor,
    pairs: Tensor,
    noisy: bool,
    generator: torch.Generator,
) -> Tensor:
    """Return which of each pair is preferred, (m, p): the higher score, or drawn from Bradley-Terry with `noisy`."""
    one, two = score.gather(1, pairs[..., 0]), score.gather(1, pairs[..., 1])
    if noisy:
        return torch.bernoulli(torch.sigmoid(one - two), generator=generator)
    return (one > two).to(score.dtype)
