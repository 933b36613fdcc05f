"""Make behaviour policies with a biased mean: early checkpoints of imitation, chosen by their success rate.

Noise around the script leaves no headroom: imitation averages it away and solves the task (metaworld: 48 % behaviour,
100 % clone). An early checkpoint is wrong on average, which only preferences can mend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from entropilot.control.segments.policies import NumpyPolicy
from entropilot.control.segments.workers import env_of, success_rate

NOISE = 0.3  # of every author's actions; CPL's roll-outs have the same
SCRIPT_NOISE = 0.3
SELECT_SEED, MEASURE_SEED = 900_000, 910_000  # starts of episodes that no data set and no evaluation uses


def script_episodes(
    seeds: list[int], task: str, std: float, steps: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (states, actions) of the scripted expert with Gaussian noise, an episode a seed."""
    env, episodes = env_of(task), []
    for seed in seeds:
        rng = np.random.default_rng([1, seed])
        state, states, actions = env.reset(seed), [], []
        for _ in range(steps):
            noise = std * rng.standard_normal(4).astype(np.float32)
            action = np.clip(env.script_action() + noise, -1, 1)
            states.append(state)
            actions.append(action)
            state, _, _ = env.step(action)
        episodes.append((np.stack(states), np.stack(actions)))
    return episodes


def imitation_checkpoints(
    task: str, seed: int, count: int, episodes: int = 10, steps: int = 150
) -> dict[int, NumpyPolicy]:
    """Return a clone of the noisy script after each of its first optimiser steps."""
    import torch

    from entropilot.control.segments.actor import Actor

    seeds = [800_000 + 1_000 * seed + i for i in range(episodes)]
    data = script_episodes(seeds, task, SCRIPT_NOISE, steps)
    states = torch.as_tensor(np.concatenate([s for s, _ in data]))
    actions = torch.as_tensor(np.concatenate([a for _, a in data]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        actor = Actor(states.shape[-1], actions.shape[-1])
    actor.standardise_by(states)
    inputs = actor.standardise(states)
    optimiser = torch.optim.Adam(actor.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for step in range(1, count + 1):
        rows = torch.randint(len(inputs), (256,), generator=generator)
        loss = (actor(inputs[rows]) - actions[rows]).square().sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found[step] = actor.to_numpy(f"{task} clone {seed} step {step}").with_std(NOISE)
    return found


def find_behaviours(
    task: str,
    targets: tuple[float, ...] = (0.5, 0.2),
    seed: int = 0,
    stride: int = 3,
    count: int = 90,
    episodes: int = 25,
    processes: int = 1,
    report: Callable[[str], Any] = lambda _: None,
) -> list[tuple[NumpyPolicy, float]]:
    """Return a policy for each target success rate, and its rate on 100 fresh episodes.

    Every `stride`-th checkpoint is tried on `episodes` starts, then all steps around the nearest; the three nearest
    are measured again on 100 other starts and the best of those is taken, so that a lucky draw decides nothing.
    """
    checkpoints = imitation_checkpoints(task, seed, count)
    rates: dict[int, float] = {}
    measured: dict[int, float] = {}

    def rate(step: int, known: dict[int, float], episodes: int, first_seed: int) -> float:
        if step not in known:
            known[step] = success_rate(task, checkpoints[step], episodes, first_seed, processes)
            report(f"{task}: clone at step {step}: {100 * known[step]:.0f} % success ({episodes} episodes)")
        return known[step]

    for step in range(stride, count + 1, stride):
        rate(step, rates, episodes, SELECT_SEED)
        if len(rates) >= 3 and min(list(rates.values())[-3:]) >= 0.9:
            break
    chosen = []
    for target in targets:
        nearest = min(rates, key=lambda step: abs(rates[step] - target))
        # The rate jumps between checkpoints: the steps on the side of the target are tried one by one.
        beyond = range(max(1, nearest - stride + 1), min(count, nearest + stride - 1) + 1)
        for step in beyond:
            rate(step, rates, episodes, SELECT_SEED)
        near = sorted(rates, key=lambda step: abs(rates[step] - target))[:3]
        best = min(near, key=lambda step: abs(rate(step, measured, 100, MEASURE_SEED) - target))
        chosen.append((checkpoints[best], measured[best]))
    return chosen
