"""Check that segments and pairs can be trained on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from entropilot.control.segments.envs import ACTION_SIZE, PAPER_TASKS, STATE_SIZE, check_task
from entropilot.control.segments.types import Pairs, Segments
from entropilot.errors import UserError

_SHOWN = 8  # row numbers in a sentence
# Mean z² beyond which labels are refused; theory has at most 1, fitted labels about 1.
_FAR_SEGMENT, _FAR_ALL = 3.0, 1.1
_APART = 600  # Σ of squared distances, in std, between two arrangements of labels, from which on they can be told apart


def _rows(bad: np.ndarray) -> str:
    found = np.flatnonzero(bad)
    text = ", ".join(str(i) for i in found[:_SHOWN])
    return f"{'segment' if len(found) == 1 else 'segments'} {text}" + (
        f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    )


def check(segments: Segments, task: str | None = None, unequal: bool = False) -> Segments:
    """Return the segments if training can use them; rows are counted from 0.

    Args:
        task: what they have to be of.
        unequal: let segments differ in length; what is constant in a pair's scores then no longer cancels.

    Labels that do not belong to the actions are noticed by z = (a − clip(m_b))/σ_b. An action is clip(m_b + σ_b·ε), and
    the clip brings no two numbers further apart, so |z| ≤ |ε| and Σ z² is at most a χ² of as many degrees as there are
    numbers: its mean has a bound, for a segment and, closer, for all. Where the spread is wide, the labels of other
    segments keep that bound too; so the actions also have to be likelier under their own labels than under those of
    other segments and than under the same ones turned in time.

    Raises:
        UserError: the first thing that is wrong, with the numbers of the segments.
    """
    if task is not None and segments.task != task:
        raise UserError(
            f"The data set is of {segments.task}, the run of {task}; collect for {task}, or set task: {segments.task}."
        )
    if segments.states.ndim != 3 or segments.actions.ndim != 3 or not segments.states.size:
        raise UserError("The data set has no segments of shape (n, T, state); collect again.")
    n = len(segments)
    steps, size = segments.states.shape[1], segments.actions.shape[-1]
    if (segments.states.shape[-1], size) != (STATE_SIZE, ACTION_SIZE) and _of_metaworld(segments.task):
        raise UserError(
            f"The data set has {segments.states.shape[-1]} numbers a state and {size} an action, {segments.task} has "
            f"{STATE_SIZE} and {ACTION_SIZE}; store states as control collect does."
        )
    shapes = {
        "actions": (n, steps, size),
        "mean_b": (n, steps, size),
        "std_b": (n, steps, size),
        "rewards": (n, steps),
        "returns": (n, steps),
    }
    shapes |= dict.fromkeys(("lengths", "author", "episode", "start", "success"), (n,))
    for name, shape in shapes.items():
        if getattr(segments, name).shape != shape:
            raise UserError(
                f"{name} has shape {getattr(segments, name).shape} where the {n} segments of {steps} steps need {shape}; "
                "labels and segments do not belong together."
            )
    lengths = segments.lengths
    outside = (lengths < 1) | (lengths > steps)
    if outside.any():
        raise UserError(f"{_rows(outside)}: a length outside of 1 to {steps}; collect again.")
    usual = np.bincount(lengths).argmax()
    if not unequal and (lengths != usual).any():
        raise UserError(
            f"{_rows(lengths != usual)}: lengths other than {usual}, which most have; "
            "cut them to one length, or leave these out."
        )
    inside = np.arange(steps) < lengths[:, None]
    for name in ("states", "actions", "rewards"):
        value = getattr(segments, name)
        bad = ~np.isfinite(value.reshape(n, steps, -1)).all(-1) & inside
        if bad.any():
            raise UserError(f"{_rows(bad.any(1))}: NaN or infinite {name}; remove these segments.")
    outside = (np.abs(segments.actions).max(-1) > 1 + 1e-6) & inside
    if outside.any():
        raise UserError(
            f"{_rows(outside.any(1))}: actions outside of the box [−1, 1]; store actions as executed, after the clip."
        )
    known = np.isfinite(segments.mean_b).all(-1) & np.isfinite(segments.std_b).all(-1)
    if (known != known[:, :1]).any() and not unequal:
        raise UserError(
            f"{_rows((known != known[:, :1]).any(1))}: labels for some steps only; label all steps or none."
        )
    if ((segments.std_b <= 0).any(-1) & inside).any():
        raise UserError(
            f"{_rows(((segments.std_b <= 0).any(-1) & inside).any(1))}: a label's std must be positive."
        )
    bad = (segments.author < -1) | (segments.author >= len(segments.author_names))
    if bad.any():
        raise UserError(f"{_rows(bad)}: an author that has no name ({len(segments.author_names)} are named).")
    if segments.snapshots.size:
        marks, shape = segments.marks, segments.snapshots.shape
        if shape[:2] != (n, len(marks)) or marks[0] != 0 or marks[-1] != steps or (np.diff(marks) <= 0).any():
            raise UserError(
                f"snapshots has shape {shape} and marks are {marks.tolist()}; keep {n} times a simulator state at each "
                f"mark, the first at 0 and the last at {steps}, or none."
            )
    _check_labels(segments, inside & known)
    return segments


def _of_metaworld(task: str) -> bool:
    """Whether MetaWorld has the task; where it is not installed, the paper's six are known."""
    if task in PAPER_TASKS:
        return True
    try:
        return check_task(task) == task
    except UserError:
        return False


def _mean_square_bound(count: Any) -> Any:
    """What the mean of `count` squares of N(0, 1) exceeds once in 10¹⁰ (Laurent and Massart 2000, lemma 1)."""
    x = 23.0
    return 1 + 2 * np.sqrt(x / count) + 2 * x / count


def _clipped_mean(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return E[clip(m + σ·ε, −1, 1)]."""
    from scipy.special import ndtr

    low, high = (-1 - mean) / std, (1 - mean) / std
    density = (np.exp(-0.5 * low**2) - np.exp(-0.5 * high**2)) / math.sqrt(2 * math.pi)
    return mean * (ndtr(high) - ndtr(low)) + std * density - ndtr(low) + ndtr(-high)


def _check_labels(segments: Segments, seen: np.ndarray) -> None:
    """Refuse labels that do not belong to the actions; `seen` are the steps that have both, (n, T)."""
    numbers = np.flatnonzero(seen.any(1))
    if not len(numbers):
        return
    seen, steps = seen[numbers], seen[numbers][..., None]
    actions, mean, std = (
        np.where(steps, getattr(segments, name)[numbers], empty).astype(np.float64)
        for name, empty in (("actions", 0.0), ("mean_b", 0.0), ("std_b", 1.0))
    )
    square = ((actions - mean.clip(-1, 1)) / std) ** 2 * steps
    count = seen.sum(1) * actions.shape[-1]
    far = np.zeros(len(segments), bool)
    far[numbers] = square.sum((1, 2)) / count > np.maximum(_FAR_SEGMENT, _mean_square_bound(count))
    if far.any():
        raise UserError(
            f"{_rows(far)}: actions lie further from their labels than the labels' std allows (mean z² above "
            f"{_FAR_SEGMENT:g}); these labels belong to other segments."
        )
    whole = square.sum() / count.sum()
    if whole > max(_FAR_ALL, _mean_square_bound(count.sum())):
        raise UserError(
            f"Over all segments, actions lie further from their labels than the labels' std allows (mean z² {whole:.2f}, "
            "at most 1 where they belong together); store the labels of these segments, or NaN."
        )
    own = _clipped_mean(mean, std)
    weight = steps / std**2
    half = len(numbers) // 2  # a neighbour may be of the same episode
    for other, also, least, words in (
        (np.roll(own, half, 0), np.roll(steps, half, 0), 0.5, "no better than those of other segments"),
        (own[:, ::-1], steps[:, ::-1], -0.5, "worse than the same labels turned in time"),
    ):
        # E[(a − other)² − (a − own)²] is (own − other)² where the labels are right: `better` is about `apart`, and minus
        # that where `other` is right, about 0 where neither is. The noise of better/apart is at most 2/√apart.
        apart = (weight * also * (own - other) ** 2).sum()
        better = (weight * also * (own - other) * (2 * actions - other - own)).sum()
        if apart > _APART and better < least * apart:
            raise UserError(
                f"The labels fit the actions {words}; their rows or steps were mixed up: store each segment's own, or NaN."
            )


def check_pairs(pairs: Pairs, n: int) -> Pairs:
    """Return the pairs if they fit to n segments; pairs are counted from 0.

    Raises:
        UserError: with the numbers of the pairs.
    """
    if not pairs.first.size or not pairs.first.shape == pairs.second.shape == pairs.preferred.shape:
        raise UserError(
            f"{len(pairs.first)} first and {len(pairs.second)} second segments with {len(pairs.preferred)} labels "
            "do not match; give one label a pair."
        )
    for bad, words in (
        (
            (np.minimum(pairs.first, pairs.second) < 0) | (np.maximum(pairs.first, pairs.second) >= n),
            f"a segment that is not among the {n}",
        ),
        (pairs.first == pairs.second, "a segment against itself"),
        (~((pairs.preferred >= 0) & (pairs.preferred <= 1)), "a label outside of [0, 1]"),
    ):
        if bad.any():
            raise UserError(f"{_rows(bad).replace('segment', 'pair')}: {words}; label again.")
    return pairs
