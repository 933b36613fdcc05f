"""Complete the same few prompts at every token sample, so that one prompt can be followed through a run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from entropilot.engine_view import EngineView
from entropilot.evaluation.in_memory import Reward, Row, rewards_of
from entropilot.evaluation.sampling.sampler import Sample, sample

PROMPTS, COMPLETIONS = 4, 4  # fixed prompts, and completions of each at every sample
STREAM = (
    0x746F6B656E  # first number of their random streams; problems have their places in their data, from 0 on
)
LONGEST_ALONE = 256  # tokens of a completion that is not drawn in the batches of a validation


@dataclass
class FixedPrompts:
    """Name the prompts that every token sample completes anew.

    Attributes:
        rows: problems, the first four of which are used.
        reward: scores their completions; None leaves the reward unknown.
        role: "held_out", or "training" where they are among the problems that are trained on.
        max_new_tokens: length limit.
        seed: of the sampling, the same at every sample.
    """

    rows: list[Row]
    reward: Reward | None = None
    role: Literal["held_out", "training"] = "held_out"
    max_new_tokens: int = 256
    seed: int = 0

    @property
    def repeated(self) -> list[Row]:
        """Return every prompt four times, one after the other: a row for each completion."""
        return [row for row in self.rows[:PROMPTS] for _ in range(COMPLETIONS)]

    def draw(self, engine: EngineView) -> list[Sample]:
        """Complete them in a generation of their own, on every rank, at the temperature of training."""
        rows = self.repeated
        with engine.generating_model() as model:
            groups = sample(
                model,
                engine.tokenizer,
                [row["prompt"] for row in rows],
                temperature=engine.temperature,
                max_new_tokens=min(self.max_new_tokens, LONGEST_ALONE),
                seed=self.seed,
                indices=streams(len(rows)),
            )
        return [group[0] for group in groups]

    def rewards(self, drawn: Sequence[Sample]) -> list[float | None]:
        """Score the completions; whatever random numbers the reward takes, training does not miss them."""
        if self.reward is None:
            return [None] * len(drawn)
        with _random_state_kept():
            return rewards_of(self.repeated, [[completion] for completion in drawn], self.reward)


def streams(count: int) -> list[int]:
    """Return the numbers of the random streams of so many rows."""
    return [STREAM + number for number in range(count)]


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Keep the global random states as they are, whatever a reward of the user's draws within the block."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the old global state is what is kept
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
