"""Measure held-out accuracy while a model trains, over all ranks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from entropilot.engine_view import EngineView
from entropilot.evaluation.in_memory import Reward, Row, rewards_of
from entropilot.evaluation.sampling.sampler import Sample, sample
from entropilot.recording.fixed_prompts import streams


@dataclass
class Validation:
    """Say which held-out problems are measured, and when.

    Attributes:
        rows: the problems.
        reward: a TRL reward callable with values in [0, 1]; the mean is the accuracy.
        every: rollouts between two measurements; the first is before the first rollout.
        temperature: of the sampling, 0 is greedy.
        samples: per problem.
        max_new_tokens: length limit.
        top_p: nucleus.
        batch_size: completions per forward pass.
        seed: of the sampling; the same for every measurement, so that two of them are paired.
    """

    rows: list[Row]
    reward: Reward
    every: int = 1
    temperature: float = 1.0
    samples: int = 1
    max_new_tokens: int = 256
    top_p: float = 1.0
    batch_size: int = 256
    seed: int = 0

    def measure(self, engine: EngineView, more: Sequence[Row] = ()) -> tuple[dict[str, float], list[Sample]]:
        """Return held-out accuracy of the current weights, over all ranks; the training's randomness is untouched.

        Args:
            engine: whose weights are measured.
            more: rows that are drawn in the same batches, on every rank, from random streams of their own; they do not
                count.

        Returns:
            Metrics, and one completion of each of the other rows.
        """
        began = time.perf_counter()
        # Every rank takes the same number of rows (sharded models generate in step); copies do not count.
        numbers = list(range(engine.rank, len(self.rows), engine.world_size))
        real = len(numbers)
        numbers += [0] * (-(-len(self.rows) // engine.world_size) - real)
        rows = [self.rows[number] for number in numbers]
        with engine.generating_model() as model:
            groups = sample(
                model,
                engine.tokenizer,
                [row["prompt"] for row in [*rows, *more]],
                temperature=self.temperature,
                max_new_tokens=self.max_new_tokens,
                samples=self.samples,
                top_p=self.top_p,
                batch_size=self._batch_size(len(rows), len(more)),
                seed=self.seed,
                # So that the samples are the same on any number of ranks.
                indices=numbers + streams(len(more)),
            )
        own = groups[: len(rows)]
        # The reward sees the copies too, on every rank, and never the other rows: it may draw random numbers.
        given = rewards_of(rows, own, self.reward)
        drawn = [completion for group in own[:real] for completion in group]
        scores = [float(score or 0.0) for score in given[: len(drawn)]]
        sums = torch.tensor(
            [sum(scores), sum(len(one.ids) for one in drawn), sum(one.cut for one in drawn), len(scores)],
            device=engine.device,
        )
        right, tokens, truncated, count = engine.reduce(sums).tolist()
        metrics = {
            "validation/accuracy": right / count,
            "validation/length": tokens / count,
            "validation/truncated": truncated / count,
            "validation/samples": int(count),
            "seconds/validation": time.perf_counter() - began,
        }
        return metrics, [group[0] for group in groups[len(rows) :]]

    def _batch_size(self, rows: int, more: int) -> int:
        """Return a batch size that needs no more batches for all rows than `batch_size` does without the others."""
        per_batch = max(1, self.batch_size // self.samples)
        batches = -(-rows // per_batch)
        return max(self.batch_size, self.samples * -(-(rows + more) // batches))
