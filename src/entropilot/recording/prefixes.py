"""Measure entropy on a fixed set of completions, before and after every update.

Entropies of two rollouts differ by their prompts and samples, which hides what one update did. On the same prefixes
only the weights differ.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from entropilot.engine_view import EngineView
from entropilot.evaluation.in_memory import Row
from entropilot.evaluation.sampling.sampler import sample
from entropilot.files import write_json
from entropilot.inputs.messages import render_prompt
from entropilot.maths.covariance import response_covariance
from entropilot.maths.entropy import policy_entropy
from entropilot.recording.observer import Rollout
from entropilot.recording.padding import padded

FILE_NAME = "prefixes.json"


@dataclass
class Prefixes:
    """Keep held-out prompts with the completions that the policy gave them before its first update.

    Attributes:
        rows: problems; only their prompts are used.
        max_new_tokens: length limit.
        seed: of the sampling, at T = 1.
        folder: where the completions are kept, so that a resumed run measures on the same; None keeps none.
    """

    rows: list[Row]
    max_new_tokens: int
    seed: int = 0
    folder: Path | None = None
    last: float | None = field(default=None, init=False)  # H after the latest update
    _inputs: dict[str, Tensor] | None = field(default=None, init=False)

    def _fix(self, engine: EngineView) -> dict[str, Tensor]:
        """Take the completions of an earlier session, or sample them now; every rank holds them all."""
        file = None if self.folder is None else self.folder / FILE_NAME
        tokenizer = engine.tokenizer
        if file is not None and file.is_file():
            kept = json.loads(file.read_text(encoding="utf-8"))
            prompts, completions = kept["prompt_ids"], kept["completion_ids"]
        else:
            texts = [row["prompt"] for row in self.rows]
            with engine.generating_model() as model:
                samples = sample(
                    model,
                    tokenizer,
                    texts,
                    temperature=1.0,
                    max_new_tokens=self.max_new_tokens,
                    seed=self.seed,
                )
            completions = [completion.ids for group in samples for completion in group]
            prompts = [
                tokenizer(render_prompt(text, tokenizer), add_special_tokens=False)["input_ids"]
                for text in texts
            ]
            if file is not None and engine.is_main:
                write_json(file, {"prompt_ids": prompts, "completion_ids": completions}, indent=None)
        return padded(engine, prompts, completions)

    def entropy(self, engine: EngineView) -> float:
        """Return H of the current weights on the fixed completions, nats: Eq. 5 of arXiv:2505.22617, at T = 1."""
        if self._inputs is None:
            self._inputs = self._fix(engine)
        with engine.at_temperature(1.0):
            _, entropy = engine.score(self._inputs)
        total, count = policy_entropy(entropy.float(), self._inputs["completion_mask"].bool())
        return (total / count.clamp(min=1)).item()

    def before(self, engine: EngineView) -> None:
        """Measure once before the first update; after that every update's end is the next one's beginning."""
        if self.last is None:
            self.last = self.entropy(engine)

    def after(self, engine: EngineView) -> dict[str, float]:
        """Measure after an update; returns its row's entropies on the fixed completions."""
        assert self.last is not None
        row = {"dynamics/entropy_before": self.last}
        self.last = row["dynamics/entropy_after"] = self.entropy(engine)
        return row


def response_metrics(rollout: Rollout, num_generations: int) -> dict[str, Any]:
    """Return the covariances of responses of a rollout: their means over prompts, and by accuracy of the prompt.

    `dynamics/by_accuracy` holds [accuracy, prompts, mean PG covariance, mean NPG covariance] for every accuracy that
    a group of the rollout had; accuracy is the share of the group's rewards above 1/2. Groups with a completion that
    nothing scored are left out.
    """
    batch = rollout.batch
    # A response has one advantage, which the batch repeats over its tokens.
    pg, npg = response_covariance(batch.logp, batch.advantages[:, 0], batch.mask, num_generations)
    rewards = rollout.rewards.view(-1, num_generations)
    scored = ~rewards.isnan().any(1)  # a group that was left out, or that nothing scores, drives nothing
    if not scored.any():
        return {}
    pg, npg, right = pg[scored], npg[scored], (rewards[scored] > 0.5).float().mean(1)
    levels = [
        [level.item(), int(here.sum()), pg[here].mean().item(), npg[here].mean().item()]
        for level in right.unique()
        for here in [right == level]
    ]
    return {
        "dynamics/covariance_pg": pg.mean().item(),
        "dynamics/covariance_npg": npg.mean().item(),
        "dynamics/by_accuracy": levels,
    }
