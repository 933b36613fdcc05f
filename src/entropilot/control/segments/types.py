"""Segments of trajectories with their authors, and pairs of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


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
        """Tell whether the author's Gaussian is known at every step."""
        return bool(np.isfinite(self.mean_b).all() and np.isfinite(self.std_b).all())

    def take(self, rows: np.ndarray) -> Segments:
        """Return some of the segments."""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in kept.items():
            if name not in ("task", "author_names", "marks"):
                kept[name] = value[rows]
        return Segments(**kept)


@dataclass
class Pairs:
    """Comparisons: rows of two segments, and the probability that the first is preferred (a tie is 0.5)."""

    first: np.ndarray
    second: np.ndarray
    preferred: np.ndarray

    def __len__(self) -> int:
        return len(self.first)
