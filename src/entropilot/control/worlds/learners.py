"""PPL and its rivals with a table for a policy, on many finite worlds at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from entropilot.control.worlds.worlds import Walks, Worlds, expected_visits, soft_optimal
from entropilot.errors import UserError
from entropilot.methods.ppl import PPL
from entropilot.methods.preference import preference_loss

Learner = Literal[
    "bc",
    "sft",
    "cpl",
    "ppl",
    "ppl_sampled",
    "ppl_dirac",
    "ppl_fitted",
    "pebble",
    "ppl_expected",
    "ppl_expected_cut",
]


@dataclass(frozen=True)
class LearnSettings:
    """Set a learner's full-batch steps of Adam from a clone of the segments, looked at after each of `stops`."""

    learner: Learner = "ppl"
    alpha: float = 0.5
    lam: float = 1.0
    gamma: float = 0.9
    look_ahead: int | None = None
    window: Literal["sum", "mean_L", "mean_terms"] = "sum"
    stops: tuple[int, ...] = (100,)
    learning_rate: float = 0.03

    def __post_init__(self) -> None:
        if self.learner not in get_args(Learner):
            raise UserError(
                f"The learner {self.learner!r} does not exist; choose one of {', '.join(get_args(Learner))}."
            )


def clone(walks: Walks, states: int, actions: int, weight: Tensor | None = None) -> Tensor:
    """Return the log-policy (m, s, a) that imitates: counts plus one, normalised."""
    flat = (walks.states * actions + walks.actions).flatten(1)
    ones = torch.ones_like(walks.states, dtype=torch.float64)
    if weight is not None:
        ones = ones * weight[..., None]
    counts = torch.zeros(len(flat), states * actions, dtype=torch.float64).scatter_add(
        1, flat, ones.flatten(1)
    )
    counts = counts.view(-1, states, actions) + 1
    return (counts / counts.sum(-1, keepdim=True)).log()


def learn(
    walks: Walks,
    pairs: Tensor,
    preferred: Tensor,
    settings: LearnSettings,
    begin: Tensor,
    worlds: Worlds | None = None,
    authors: Tensor | None = None,
) -> list[Tensor]:
    """Return the log-policy (m, s, a) at each of `stops` of a training that begins at the log-policy `begin`.

    Args:
        pairs: (m, p, 2) rows of segments; preferred: (m, p), the probability that the first is preferred.
        worlds: for the shapes, the discount and the temperature of `pebble`, which plans; its transitions are estimated
            from the segments.
        authors: (m, authors, s, a) for `ppl_expected` and `ppl_expected_cut`, which know them and the worlds' transitions.
    """
    states, actions = begin.shape[1:]
    if settings.learner == "bc":
        return [begin] * len(settings.stops)
    if settings.learner == "sft":
        wins = torch.zeros(walks.states.shape[:2], dtype=torch.float64)
        wins = wins.scatter_add(1, pairs[..., 0], preferred).scatter_add(1, pairs[..., 1], 1 - preferred)
        return [clone(walks, states, actions, wins)] * len(settings.stops)
    if settings.learner == "pebble":
        if worlds is None:
            raise UserError("pebble plans, so it needs the worlds' discount and temperature.")
        return _pebble(walks, pairs, preferred, settings, worlds)
    if settings.learner == "ppl_fitted":
        walks = replace(walks, author_logp=fit_tables(walks, states, actions))
    # Single precision is exact enough for a step of Adam, and the products are bound by memory.
    if settings.learner.startswith("ppl_expected"):
        if worlds is None or authors is None:
            raise UserError(
                f"{settings.learner} takes an expectation, so it needs the worlds and the authors."
            )
        linear = expected_scores(walks, settings, worlds, authors)
    else:
        linear = linear_scores(walks, settings, states, actions)
    counts, constant = (x.float() for x in linear)
    preferred = preferred.float()
    table = begin.float().requires_grad_()
    optimiser = torch.optim.Adam([table], lr=settings.learning_rate)
    found = []
    for step in range(1, max(settings.stops) + 1):
        log_policy = torch.log_softmax(table, -1)
        score = (counts @ log_policy.flatten(1)[..., None])[..., 0] + constant
        one, two = score.gather(1, pairs[..., 0]), score.gather(1, pairs[..., 1])
        loss = preference_loss(
            one.flatten(), two.flatten(), preferred.flatten(), settings.alpha, settings.lam
        ).view(len(counts), -1)
        # Worlds are independent: a sum over them leaves each its own gradient, and Adam works entry by entry.
        total = loss.mean(1).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        if step in settings.stops:
            found.append(torch.log_softmax(table.detach().double(), -1))
    return found


def linear_scores(walks: Walks, settings: LearnSettings, states: int, actions: int) -> tuple[Tensor, Tensor]:
    """Return D (m, n, s·a) and c (m, n) of the score S = D·log π_θ + c: for a table every score is linear in log π_θ.

    A step adds 1 at its state and action, and w_u·π_b(·|s_u) at its state: −w_u·KL_u = w_u·(E_b[log π_θ] − E_b[log π_b]).
    CPL has no second part; a sampled or a Dirac label puts it on the action taken. Tests hold it against `PPL.score`.
    """
    m, n, steps = walks.states.shape
    ppl = PPL(settings.alpha, settings.lam, settings.gamma, settings.look_ahead, settings.window)
    weights = ppl.weights(torch.ones(1, steps, dtype=torch.bool))[0]
    rows = walks.states * actions
    counts = torch.zeros(m, n, states * actions, dtype=torch.float64)
    constant = torch.zeros(m, n, dtype=torch.float64)
    at_action = torch.ones(steps, dtype=torch.float64)
    if settings.learner in ("ppl_sampled", "ppl_dirac"):
        at_action = at_action + weights
    counts.scatter_add_(2, rows + walks.actions, at_action.expand(m, n, steps))
    if settings.learner in ("ppl", "ppl_fitted"):
        author = walks.author_logp.exp()
        constant = -(weights * (author * walks.author_logp).nan_to_num().sum(-1)).sum(-1)
        for a in range(actions):
            counts.scatter_add_(2, rows + a, weights * author[..., a])
    elif settings.learner == "ppl_sampled":
        chosen = walks.author_logp.gather(-1, walks.actions[..., None])[..., 0]
        constant = -(weights * chosen).sum(-1)
    return counts, constant


def expected_scores(
    walks: Walks, settings: LearnSettings, worlds: Worlds, authors: Tensor
) -> tuple[Tensor, Tensor]:
    """Return `linear_scores` of PPL with the expectation of its identity in place of the one future observed.

    ppl_expected looks beyond the segment, without an end: at θ = θ* its score is −regret/α, the teacher's. `_cut` stops
    with the segment, as an observed future must. Both know the transitions; they tell what an approximation costs.
    """
    m, n, steps = walks.states.shape
    states, actions = worlds.reward.shape[1:]
    world = torch.arange(m)[:, None].expand(m, n)
    visits = torch.zeros(m, n, states, dtype=torch.float64)
    endless = None if settings.learner == "ppl_expected_cut" else expected_visits(worlds, authors)
    for t in range(steps):
        reach = steps - 1 - t
        if settings.look_ahead is not None:
            reach = min(reach, settings.look_ahead)
        table = expected_visits(worlds, authors, reach) if endless is None else endless
        visits += table[world, walks.author, walks.states[..., t], walks.actions[..., t]]
    author = authors[world, walks.author]  # (m, n, s, a)
    counts = (visits[..., None] * author.exp()).flatten(2)
    counts.scatter_add_(
        2, walks.states * actions + walks.actions, torch.ones(m, n, steps, dtype=torch.float64)
    )
    constant = -(visits * (author.exp() * author).nan_to_num().sum(-1)).sum(-1)
    return counts, constant


def _pebble(
    walks: Walks, pairs: Tensor, preferred: Tensor, settings: LearnSettings, worlds: Worlds
) -> list[Tensor]:
    """A reward table from Bradley-Terry on its sums, then planning in the transitions counted: PEBBLE's two halves.

    PEBBLE (arXiv:2106.05091) plans by SAC from a replay buffer relabelled with the learned reward; in a finite world
    that is soft value iteration on the empirical model. Its exploration phase and reward ensemble are left out.
    """
    states, actions = worlds.reward.shape[1:]
    flat = (walks.states * actions + walks.actions).flatten(1)
    m, n, steps = walks.states.shape
    place = flat.view(m, n, steps)[..., :-1] * states + walks.states[..., 1:]
    counts = torch.zeros(m, states * actions * states, dtype=torch.float64)
    counts = counts.scatter_add(1, place.flatten(1), torch.ones_like(place, dtype=torch.float64).flatten(1))
    counts = counts.view(m, states, actions, states) + 0.1 / states
    transition = counts / counts.sum(-1, keepdim=True)
    sums = torch.zeros(m, n, states * actions, dtype=torch.float64)
    sums.scatter_add_(2, flat.view(m, n, steps), torch.ones(m, n, steps, dtype=torch.float64))
    table = torch.zeros(m, states * actions, 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([table], lr=settings.learning_rate)
    found = []
    for step in range(1, max(settings.stops) + 1):
        score = (sums @ table)[..., 0]
        one, two = score.gather(1, pairs[..., 0]), score.gather(1, pairs[..., 1])
        loss = preference_loss(one.flatten(), two.flatten(), preferred.flatten(), 1.0, 1.0).view(m, -1)
        total = loss.mean(1).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        if step in settings.stops:
            reward = table.detach().view(m, states, actions)
            found.append(soft_optimal(transition, reward, worlds.gamma, worlds.alpha)[1])
    return found


def fit_tables(walks: Walks, states: int, actions: int, largest: int = 4) -> Tensor:
    """Return (m, n, t, a) log-probs of fitted authors: a mixture of tables by EM, their number by held-out likelihood."""
    found = torch.empty_like(walks.author_logp)
    m, n = walks.states.shape[:2]
    flat = (walks.states * actions + walks.actions).numpy()
    for world in range(m):
        rng = np.random.default_rng(world)
        counts = np.zeros((n, states * actions))
        np.add.at(counts, (np.arange(n)[:, None], flat[world]), 1)
        order = rng.permutation(n)
        test, train = order[: n // 5], order[n // 5 :]
        best, best_score = 1, -np.inf
        for count in range(1, largest + 1):
            tables, share = _mixture(counts[train], count, states, actions, rng)
            joint = counts[test] @ tables.T + np.log(share)
            score = float(np.logaddexp.reduce(joint, 1).sum())
            if score <= best_score:
                break
            best, best_score = count, score
        tables, share = _mixture(counts, best, states, actions, rng)
        nearest = (counts @ tables.T + np.log(share)).argmax(1)
        table = torch.as_tensor(tables[nearest]).view(n, states, actions)
        found[world] = table[torch.arange(n)[:, None], walks.states[world]]
    return found


def _mixture(
    counts: np.ndarray, count: int, states: int, actions: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """EM from three random starts; the likeliest is kept. Tables are log-probs (k, s·a)."""
    best, best_score = None, -np.inf
    for _ in range(3 if count > 1 else 1):
        resp = rng.dirichlet(np.ones(count), len(counts))
        for _ in range(40):
            share = resp.mean(0) + 1e-9
            tables = (resp.T @ counts).reshape(count, states, actions) + 0.5
            tables = np.log(tables / tables.sum(-1, keepdims=True)).reshape(count, -1)
            joint = counts @ tables.T + np.log(share)
            total = np.logaddexp.reduce(joint, 1)
            resp = np.exp(joint - total[:, None])
        if total.sum() > best_score:
            best, best_score = (tables, share), total.sum()
    assert best is not None
    return best
