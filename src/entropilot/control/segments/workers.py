"""Whole episodes in worker processes; a pipe for every step would cost more than the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from entropilot.control.segments.envs import HORIZON, ControlEnv
from entropilot.control.segments.policies import NumpyPolicy

_ENVS: dict[str, ControlEnv] = {}


def env_of(task: str) -> ControlEnv:
    """Return this process's environment of a task; making one costs a tenth of a second."""
    if task not in _ENVS:
        _ENVS[task] = ControlEnv(task)
    return _ENVS[task]


def in_processes(
    work: Callable[..., list[Any]], items: Sequence[Any], processes: int, *arguments: Any
) -> list[Any]:
    """Return `work(items, *arguments)`, the items dealt out in blocks; the result is the same for any number."""
    if processes <= 1 or len(items) < 2:
        return work(list(items), *arguments)
    parts = [list(part) for part in np.array_split(np.arange(len(items)), min(4 * processes, len(items)))]
    blocks = [[items[i] for i in part] for part in parts]
    # spawn: a fork of a process with threads of torch may hang.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(work, block, *arguments) for block in blocks]
        return [result for future in futures for result in future.result()]


@dataclass
class Outcome:
    """Hold how an episode went: solved at any step, at the last, the sum of rewards, the steps taken."""

    success: bool
    at_end: bool
    total: float
    steps: int


def run_episodes(
    seeds: list[int],
    task: str,
    policy: NumpyPolicy | None,
    noise_seed: int = 0,
    stop_at_success: bool = True,
    horizon: int = HORIZON,
) -> list[Outcome]:
    """Run an episode a seed; without a policy the scripted expert acts."""
    env = env_of(task)
    outcomes = []
    for seed in seeds:
        rng = np.random.default_rng([noise_seed, seed])
        state, success, solved, total, steps = env.reset(seed), False, False, 0.0, 0
        while steps < horizon:
            if policy is None:
                action = env.script_action()
            else:
                action = policy.mean(state)
                if policy.std:
                    action = action + policy.std * rng.standard_normal(action.shape).astype(np.float32)
            state, reward, solved = env.step(action)
            steps += 1
            total += reward
            success |= solved
            if success and stop_at_success:
                break
        outcomes.append(Outcome(success, solved, total, steps))
    return outcomes


def success_rate(
    task: str,
    policy: NumpyPolicy | None,
    episodes: int,
    first_seed: int,
    processes: int = 1,
    noise_seed: int = 0,
) -> float:
    """Return the share of episodes solved at any step (CPL's criterion), on the starts of consecutive seeds."""
    seeds = list(range(first_seed, first_seed + episodes))
    outcomes = in_processes(run_episodes, seeds, processes, task, policy, noise_seed)
    return float(np.mean([outcome.success for outcome in outcomes]))
