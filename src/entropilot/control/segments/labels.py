"""Say which segment is better: scores of segments by regret or by return, and pairs from scores."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from entropilot.control.segments.check import check_pairs
from entropilot.control.segments.envs import script_value
from entropilot.control.segments.npz import as_kind, read_npz
from entropilot.control.segments.types import Pairs, Segments
from entropilot.control.segments.workers import env_of, in_processes
from entropilot.errors import UserError
from entropilot.files import written_whole

Label = Literal["script", "behaviour", "return", "sac"]
GAMMA = 0.99


def check_labelling(segments: Segments, label: Label, pairs: int | None = None) -> None:
    """Refuse a labelling that cannot work, before anything is computed for it.

    Args:
        pairs: how many comparisons; None for all.

    Raises:
        UserError: what the label needs was not collected, or there are too few segments.
    """
    if len(segments) < 2:
        raise UserError(f"{len(segments)} segment can't be compared; label a data set of two or more.")
    if pairs is not None:
        _check_count(len(segments), pairs)
    if label == "behaviour":
        _check_returns(segments)
    if label in ("script", "behaviour") and not segments.snapshots.size:
        raise UserError(
            f"These segments hold no simulator states, which the label {label} needs; collect them with control collect, "
            "or label by return."
        )


def _check_count(n: int, count: int) -> None:
    if count > n // 2:
        raise UserError(
            f"{count} pairs of {n} segments, each in one at most, cannot be made; take at most {n // 2}, or all pairs."
        )


def _check_returns(segments: Segments) -> None:
    if not np.isfinite(segments.returns).all():
        raise UserError(
            "The label behaviour needs the authors' own returns; collect with --returns 100 "
            "(returns: 100 in a recipe) or more steps."
        )


def _values(jobs: list[tuple[int, list[np.ndarray]]], task: str, gamma: float) -> list[list[float]]:
    env = env_of(task)
    found = []
    for seed, snapshots in jobs:
        env.reset(seed)  # places what belongs to the episode and not to the simulator's state
        found.append([script_value(env, snapshot, gamma) for snapshot in snapshots])
    return found


def script_values(segments: Segments, gamma: float = GAMMA, processes: int = 1) -> np.ndarray:
    """Return the scripted expert's value at the marks of every segment, (n, k); shared states are computed once.

    Raises:
        UserError: the segments hold no simulator states.
    """
    if not segments.snapshots.size:
        raise UserError("These segments hold no simulator states; collect them with control collect.")
    places: dict[int, dict[int, np.ndarray]] = {}
    for row in range(len(segments)):
        at = places.setdefault(int(segments.episode[row]), {})
        for mark, snapshot in zip(segments.marks, segments.snapshots[row], strict=True):
            at[int(segments.start[row] + mark)] = snapshot
    jobs = [(episode, list(at.values())) for episode, at in places.items()]
    values = in_processes(_values, jobs, processes, segments.task, gamma)
    known = {
        (episode, step): value
        for (episode, at), found in zip(places.items(), values, strict=True)
        for step, value in zip(at, found, strict=True)
    }
    return np.array(
        [
            [known[int(segments.episode[i]), int(segments.start[i] + mark)] for mark in segments.marks]
            for i in range(len(segments))
        ]
    )


def scores(
    segments: Segments, label: Label, values: np.ndarray | None = None, gamma: float = GAMMA
) -> np.ndarray:
    """Return a score a segment, (n,); higher is better.

        script     Σ γ^t r_t + γ^T V(s_T) − V(s_0): minus the regret of the actions against the script
        behaviour  −Σ γ^t (V(s_t) − G_t): minus the regret of the author, G_t its own return from there
        return     Σ r_t
        sac        not here: it needs a critic, see entropilot.control.segments.critic

    V is the scripted expert's; between marks it is interpolated. None holds the entropy of a MaxEnt value.

    Raises:
        UserError: what the label needs was not collected.
    """
    steps = segments.states.shape[1]
    discounts = gamma ** np.arange(steps)
    if label == "return":
        return segments.rewards.sum(1)
    if label == "sac":
        raise UserError("The label sac needs a critic; make pairs with control label --by sac --critic.")
    if values is None:
        raise UserError(f"The label {label} needs the script's values; compute them with script_values.")
    if label == "script":
        ends = values[:, -1] * gamma**steps - values[:, 0]
        return segments.rewards @ discounts + ends
    _check_returns(segments)
    between = np.stack([np.interp(np.arange(steps), segments.marks, row) for row in values])
    return -((between - segments.returns) * discounts).sum(1)


def fixed_pairs(n: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` pairs of n segments, every segment in one at most: one comparison a segment is `sparse`.

    Raises:
        UserError: more than n//2 pairs.
    """
    _check_count(n, count)
    order, half = rng.permutation(n), n // 2
    return order[:half][:count], order[half : 2 * half][:count]


def compare(
    score: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    flip: float = 0.0,
    tie: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Pairs:
    """Return preferences by score: the higher one is preferred.

    Args:
        flip: probability that a comparison is answered the wrong way round.
        tie: a difference of at most this is a tie, 0.5.
    """
    difference = score[first] - score[second]
    preferred = np.where(np.abs(difference) <= tie, 0.5, (difference > 0).astype(float))
    if flip:
        if rng is None:
            raise ValueError("Label noise needs a generator.")
        preferred = np.where(rng.random(len(preferred)) < flip, 1 - preferred, preferred)
    return Pairs(np.asarray(first), np.asarray(second), preferred)


def save_pairs(pairs: Pairs, path: Path, segments: Segments, by: str) -> None:
    """Write pairs with what tells their segments from others; an earlier file stays whole until this one is.

    Raises:
        UserError: it can't be written.
    """
    with written_whole(path) as file:
        np.savez(
            file,
            first=pairs.first,
            second=pairs.second,
            preferred=pairs.preferred,
            task=segments.task,
            by=by,
            episode=segments.episode,
            start=segments.start,
        )


def load_pairs(path: Path, segments: Segments) -> Pairs:
    """Read pairs and check that they were made for these segments.

    Raises:
        UserError: they can't be read, or belong to others.
    """
    read = read_npz(path, "pairs", ("first", "second", "preferred", "task", "episode", "start"))
    numbers = {
        name: as_kind(read[name], f"{name} of {path}", "int64", 1)
        for name in ("first", "second", "episode", "start")
    }
    episode, start = numbers["episode"], numbers["start"]
    preferred = as_kind(read["preferred"], f"preferred of {path}", "float64", 1)
    pairs = Pairs(numbers["first"], numbers["second"], preferred)
    task = str(as_kind(read["task"], f"task of {path}", "text", 0))
    if task != segments.task:
        raise UserError(
            f"The pairs {path} are of {task}, the segments of {segments.task}; label these segments."
        )
    if {len(episode), len(start)} != {len(segments)}:
        raise UserError(
            f"The pairs {path} were made for {len(episode)} segments, there are {len(segments)}; label these segments."
        )
    other = (episode != segments.episode) | (start != segments.start)
    if other.any():
        raise UserError(
            f"The pairs {path} were made for other segments (the first that differs is segment {int(other.argmax())}); "
            "label these segments."
        )
    return check_pairs(pairs, len(segments))
