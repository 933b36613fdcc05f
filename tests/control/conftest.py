"""Made-up segments, so that most tests need no simulator; MetaWorld itself is in test_metaworld.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def make_segments() -> Callable:
    """Make n segments of T steps by two authors, an MLP's worth of nothing: means are linear in the state."""
    from entropilot.control.segments.types import Segments

    def make(
        n: int = 12, steps: int = 8, size: int = 35, task: str = "drawer-open", seed: int = 0
    ) -> Segments:
        rng = np.random.default_rng(seed)
        states = rng.normal(size=(n, steps, size)).astype(np.float32)
        author = np.arange(n) % 2
        maps = 0.15 * rng.normal(size=(2, size, 4))
        mean = np.tanh(
            np.einsum("nts,nsa->nta", states, maps[author]) + np.array([0.4, -0.4])[author, None, None]
        )
        noise = 0.1 * rng.normal(size=mean.shape)
        return Segments(
            task=task,
            states=states,
            actions=np.clip(mean + noise, -1, 1).astype(np.float32),
            lengths=np.full(n, steps),
            author=author,
            author_names=np.array(["one", "other"]),
            mean_b=mean.astype(np.float32),
            std_b=np.full(mean.shape, 0.1, np.float32),
            rewards=rng.random((n, steps)).astype(np.float32),
            returns=np.full((n, steps), np.nan, np.float32),
            episode=np.arange(n) + 1_000_000,
            start=np.zeros(n, np.int64),
            success=rng.random(n) < 0.5,
            marks=np.array([0, steps]),
            snapshots=np.zeros((n, 2, 0)),
        )

    return make
