"""Measure held-out accuracy while a model trains, over all ranks."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from entropilot.engine_view import EngineView
from entropilot.evaluation.in_memory import Reward, Row, evaluate


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

    def measure(self, engine: EngineView) -> dict[str, float]:
        """Return held-out accuracy of the current weights, over all ranks; the training's randomness is untouched."""
        began = time.perf_counter()
        # Every rank takes the same number of rows (sharded models generate in step); copies do not count.
        numbers = list(range(engine.rank, len(self.rows), engine.world_size))
        real = len(numbers)
        numbers += [0] * (-(-len(self.rows) // engine.world_size) - real)
        with engine.generating_model() as model:
            result = evaluate(
                model,
                engine.tokenizer,
                [self.rows[number] for number in numbers],
                self.reward,
                temperature=self.temperature,
                max_new_tokens=self.max_new_tokens,
                samples=self.samples,
                top_p=self.top_p,
                batch_size=self.batch_size,
                seed=self.seed,
                indices=numbers,  # so that the samples are the same on any number of ranks
            )
        scores = [score for row in result.scores[:real] for score in row]
        lengths = [length for row in result.lengths[:real] for length in row]
        cut = [c for row in result.cut[:real] for c in row]
        sums = torch.tensor([sum(scores), sum(lengths), sum(cut), len(scores)], device=engine.device)
        right, tokens, truncated, count = engine.reduce(sums).tolist()
        return {
            "validation/accuracy": right / count,
            "validation/length": tokens / count,
            "validation/truncated": truncated / count,
            "validation/samples": int(count),
            "seconds/validation": time.perf_counter() - began,
        }
