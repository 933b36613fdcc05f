"""Collect segments of behaviour policies, a few an episode, with the simulator states that labels need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from entropilot.control.segments.envs import ACTION_SIZE, HORIZON, ControlEnv
from entropilot.control.segments.policies import NumpyPolicy
from entropilot.control.segments.segments import concatenate
from entropilot.control.segments.types import Segments
from entropilot.control.segments.workers import env_of, in_processes
from entropilot.errors import UserError

_WORTH_WORKERS = 50  # episodes
LIMIT = 500  # steps after which MetaWorld wants a reset


@dataclass(frozen=True)
class CollectSettings:
    """Set how episodes are cut into segments.

    Raises:
        UserError: cuts that no episode can give.
    """

    length: int = 64
    per_episode: int = 2  # consecutive, so that the value between them is computed once
    after_success: int = 30  # steps on after the first success; else most segments would sit at the goal
    horizon: int = HORIZON
    mark_every: int = 0  # steps between kept simulator states, and both ends; 0 keeps those at the ends only
    returns: int = 0  # steps beyond a segment for the author's own discounted return; 0 does not collect it
    gamma: float = 0.99

    def __post_init__(self) -> None:
        if self.length < 1 or self.per_episode < 1 or self.mark_every < 0 or self.returns < 0:
            raise UserError(
                f"length={self.length} and per_episode={self.per_episode} must be at least 1, "
                f"mark_every={self.mark_every} and returns={self.returns} at least 0."
            )
        if self.per_episode * self.length > self.horizon:
            raise UserError(
                f"{self.per_episode} segments of {self.length} steps do not fit into {self.horizon}; "
                "take fewer or shorter ones."
            )
        if self.horizon + self.returns > LIMIT:
            raise UserError(
                f"returns={self.returns} after an episode of {self.horizon} steps passes MetaWorld's limit of {LIMIT}; "
                f"take at most {LIMIT - self.horizon} for returns."
            )

    @property
    def marks(self) -> np.ndarray:
        """Steps within a segment whose simulator state is kept, (k,), both ends among them."""
        return np.append(np.arange(0, self.length, self.mark_every or self.length), self.length)


def collect_episodes(
    seeds: list[int], task: str, policy: NumpyPolicy, noise_seed: int, settings: CollectSettings
) -> list[Segments]:
    """Return the segments of an episode a seed; an episode that was solved too early yields fewer, or none."""
    env, found = env_of(task), []
    for seed in seeds:
        rng = np.random.default_rng([noise_seed, seed])
        found.append(_episode(env, seed, policy, rng, settings))
    return found


def _episode(
    env: ControlEnv, seed: int, policy: NumpyPolicy, rng: np.random.Generator, settings: CollectSettings
) -> Segments:
    length, wanted = settings.length, settings.per_episode
    latest = settings.horizon - wanted * length
    begin = int(rng.integers(0, latest + 1))
    state, solved_at = env.reset(seed), None
    states, actions, means, rewards, snapshots = [], [], [], [], []
    end = min(begin + wanted * length + settings.returns, settings.horizon + settings.returns)
    for step in range(end + 1):
        snapshots.append(env.snapshot())  # of every step: an early end moves the cut
        stop = solved_at is not None and step >= solved_at + settings.after_success + settings.returns
        if step == end or stop:
            break
        mean = policy.mean(state)
        action = np.clip(mean + policy.std * rng.standard_normal(mean.shape).astype(np.float32), -1, 1)
        states.append(state)
        means.append(mean)
        actions.append(action)
        state, reward, solved = env.step(action)
        rewards.append(reward)
        if solved and solved_at is None:
            solved_at = step
    usable = len(states) - settings.returns
    if solved_at is not None:
        usable = min(usable, solved_at + settings.after_success + 1)
    usable = max(usable, 0)
    count = min(wanted, usable // length)
    if begin + count * length > usable:  # the episode ended before the cut
        begin = int(rng.integers(0, usable - count * length + 1))
    starts = [begin + i * length for i in range(count)]
    reward_array = np.array(rewards, np.float32)
    returns = _returns(reward_array, settings) if settings.returns else np.full_like(reward_array, np.nan)
    marks = settings.marks

    def cut(values: list[np.ndarray] | np.ndarray) -> np.ndarray:
        array = np.asarray(values, np.float32)
        return (
            np.stack([array[s : s + length] for s in starts]) if starts else array[:0, None].repeat(length, 1)
        )

    def kept(start: int) -> list[np.ndarray]:
        return [snapshots[start + mark] for mark in marks]

    return Segments(
        task=env.task,
        states=cut(states),
        actions=cut(actions),
        lengths=np.full(count, length),
        author=np.zeros(count, np.int64),
        author_names=np.array([policy.name]),
        mean_b=cut(means),
        std_b=np.full((count, length, ACTION_SIZE), policy.std, np.float32),
        rewards=cut(reward_array),
        returns=cut(returns),
        episode=np.full(count, seed),
        start=np.array(starts, np.int64),
        success=np.full(count, solved_at is not None),
        marks=marks,
        snapshots=np.array([kept(s) for s in starts])
        if starts
        else np.zeros((0, len(marks), len(snapshots[0]))),
    )


def _returns(rewards: np.ndarray, settings: CollectSettings) -> np.ndarray:
    """The author's discounted return over `returns` steps from each; after them the last reward goes on, as in V."""
    values, n = np.full(len(rewards), np.nan, np.float32), settings.returns
    discounts = settings.gamma ** np.arange(n)
    for step in range(len(rewards) - n):
        part = rewards[step : step + n]
        values[step] = discounts @ part + part[-1] * settings.gamma**n / (1 - settings.gamma)
    return values


def collect(
    task: str,
    policy: NumpyPolicy,
    count: int,
    seed: int,
    settings: CollectSettings | None = None,
    processes: int = 1,
) -> Segments:
    """Return `count` segments by one author; the same seed gives the same segments with any number of processes."""
    settings = settings or CollectSettings()
    parts: list[Segments] = []
    have, episode = 0, 0
    while have < count:
        batch = max(1, -(-(count - have) // settings.per_episode))
        if episode > 20 * count + 100:
            raise UserError(
                f"{episode} episodes gave {have} segments of {settings.length} steps; ask for shorter ones."
            )
        seeds = [seed * 100_000 + episode + i for i in range(batch)]
        # Starting workers takes as long as the few episodes that a first batch was short of.
        workers = processes if batch >= _WORTH_WORKERS else 1
        new = in_processes(collect_episodes, seeds, workers, task, policy, seed, settings)
        parts += [part for part in new if len(part)]
        have, episode = sum(len(part) for part in parts), episode + batch
    return concatenate(parts).take(np.arange(count))
