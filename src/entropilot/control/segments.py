"""Segments with their authors, on disk and checked; and preferences between them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.control.files import read_npz
from entropilot.errors import UserError

SCHEMA = 1
_SHOWN = 8  # row numbers in a sentence
_FARTHEST = 4


@dataclass
class Segments:
    """n segments of up to T steps by known or unknown authors.

    Attributes:
        task: the task's plain name.
        states: (n, T, state) float32; actions: (n, T, action) float32, as executed, in [−1, 1].
        lengths: (n,) steps of each; padding follows them.
        author: (n,) which policy wrote it; −1 where unknown. author_names: their names.
        mean_b, std_b: (n, T, action) the author's Gaussian at every step, before the clip to the box; NaN where unknown.
        rewards: (n, T). returns: (n, T) the author's own discounted return from each step, NaN where not collected.
        episode: (n,) seed of the episode; start: (n,) first step in it; success: (n,) whether the episode was solved.
        marks: (k,) steps within the segment whose simulator state was kept (the last is T, after the segment).
        snapshots: (n, k, size) float64, empty where none were kept.
    """

    task: str
    states: np.ndarray
    actions: np.ndarray
    lengths: np.ndarray
    author: np.ndarray
    author_names: np.ndarray
    mean_b: np.ndarray
    std_b: np.ndarray
    rewards: np.ndarray
    returns: np.ndarray
    episode: np.ndarray
    start: np.ndarray
    success: np.ndarray
    marks: np.ndarray
    snapshots: np.ndarray

    def __len__(self) -> int:
        return len(self.states)

    @property
    def labelled(self) -> bool:
        """Whether the author's Gaussian is known at every step."""
        return bool(np.isfinite(self.mean_b).all() and np.isfinite(self.std_b).all())

    def take(self, rows: np.ndarray) -> Segments:
        """Return some of the segments."""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in kept.items():
            if name not in ("task", "author_names", "marks"):
                kept[name] = value[rows]
        return Segments(**kept)


def concatenate(parts: list[Segments]) -> Segments:
    """Return several data sets of one task as one; authors of the same name are the same author.

    Raises:
        UserError: of different tasks.
    """
    tasks = sorted({part.task for part in parts})
    if len(tasks) > 1:
        raise UserError(f"Segments of {' and '.join(tasks)} don't mix; give data sets of one task.")
    names = list(dict.fromkeys(str(name) for part in parts for name in part.author_names))
    values: dict[str, Any] = {"task": tasks[0], "author_names": np.array(names), "marks": parts[0].marks}
    for field in fields(Segments):
        if field.name == "author":
            places = [
                np.array([*[names.index(str(n)) for n in part.author_names], -1])[part.author]
                for part in parts
            ]
            values["author"] = np.concatenate(places)
        elif field.name not in values:
            values[field.name] = np.concatenate([getattr(part, field.name) for part in parts])
    return Segments(**values)


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

    Raises:
        UserError: the first thing that is wrong, with the numbers of the segments.
    """
    if task is not None and segments.task != task:
        raise UserError(
            f"The data set is of {segments.task}, the run of {task}; collect for {task}, or set task: {segments.task}."
        )
    n = len(segments)
    if segments.states.ndim != 3 or not n:
        raise UserError("The data set has no segments of shape (n, T, state); collect again.")
    steps, size = segments.states.shape[1], segments.actions.shape[-1]
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
            "cut them to one length, or set unequal: true and mind the constants."
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
    # An author's own actions lie about 0.8 std from its mean, less where the box cuts them: labels of other rows do not.
    if known.all():
        distance = (np.abs(segments.actions - np.clip(segments.mean_b, -1, 1)) / segments.std_b).mean(-1)
        far = np.where(inside, distance, 0).sum(1) / lengths > _FARTHEST
        if far.any():
            raise UserError(
                f"{_rows(far)}: actions lie more than {_FARTHEST} std from their labels on average; these labels belong to "
                "other segments."
            )
    return segments


def save(segments: Segments, path: Path) -> None:
    """Write an npz file; an earlier one stays whole until the new one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(
            file,
            schema=SCHEMA,
            **{field.name: np.asarray(getattr(segments, field.name)) for field in fields(Segments)},
        )
    part.replace(path)


def load(path: str | Path, task: str | None = None, unequal: bool = False) -> Segments:
    """Read and check a data set.

    Raises:
        UserError: it can't be read, is of another schema, or `check` refuses it.
    """
    read = read_npz(path, "segments", ("schema",))
    if int(read["schema"]) != SCHEMA:
        raise UserError(
            f"{path} has schema {int(read['schema'])}, this version reads {SCHEMA}; collect again."
        )
    names = [field.name for field in fields(Segments)]
    missing = [name for name in names if name not in read]
    if missing:
        raise UserError(f"{path} holds no segments: {missing[0]} is missing.")
    values: dict[str, Any] = {name: read[name] for name in names}
    values["task"] = str(values["task"])
    return check(Segments(**values), task, unequal)


@dataclass
class Pairs:
    """Comparisons: rows of two segments, and the probability that the first is preferred (a tie is 0.5)."""

    first: np.ndarray
    second: np.ndarray
    preferred: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def check_pairs(pairs: Pairs, n: int) -> Pairs:
    """Return the pairs if they fit to n segments; pairs are counted from 0.

    Raises:
        UserError: with the numbers of the pairs.
    """
    if not len(pairs) or not pairs.first.shape == pairs.second.shape == pairs.preferred.shape:
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
