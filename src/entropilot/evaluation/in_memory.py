"""Measure the accuracy of a model in memory, as validation during training does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from entropilot.analysis.passk import pass_at_k as pass_at_k
from entropilot.errors import UserError
from entropilot.evaluation.sampling.sampler import Sample, sample

Row = dict[str, Any]  # "prompt": a string or a list of messages; other columns go to the reward function
Reward = Callable[..., list[float | None]]


@dataclass(frozen=True)
class Evaluation:
    """Scores of k samples for each of n problems.

    Attributes:
        scores: n lists of k rewards; a completion that nothing scored counts as 0.
        completions: n lists of k texts.
        lengths: n lists of k token counts, the end token included.
        cut: n lists of k flags: the sample reached the length limit without an end token.
    """

    scores: list[list[float]]
    completions: list[list[str]]
    lengths: list[list[int]]
    cut: list[list[bool]]

    @property
    def accuracy(self) -> float:
        """avg@k: the mean reward over problems and samples; the greedy accuracy where k = 1 and T = 0."""
        return sum(map(sum, self.scores)) / max(1, sum(map(len, self.scores)))

    @property
    def truncated(self) -> float:
        """Share of samples that reached the length limit without an end token."""
        return sum(map(sum, self.cut)) / max(1, sum(map(len, self.cut)))

    def pass_at(self, k: int) -> float:
        """Unbiased pass@k; a sample passes where its reward is above 1/2."""
        passes = [pass_at_k(len(row), sum(score > 0.5 for score in row), k) for row in self.scores]
        return sum(passes) / max(1, len(passes))


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    reward: Reward,
    *,
    temperature: float,
    max_new_tokens: int,
    samples: int = 1,
    top_p: float = 1.0,
    batch_size: int = 256,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    report: Callable[[int], None] | None = None,
) -> Evaluation:
    """Sample completions for every row and score them with a TRL reward callable.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, with a chat template where prompts are messages.
        rows: problems; every column but "prompt" is handed to the reward.
        reward: `f(prompts, completions, completion_ids, **columns) -> list[float | None]`.
        temperature: 0 is greedy.
        max_new_tokens: length limit of a completion.
        samples: k, per problem.
        top_p: nucleus.
        batch_size: completions per forward pass.
        seed: of the sampling; the global random state is not touched.
        indices: number of each row in its data (see `sample`); by default 0, 1, 2, ….
        report: is called with the number of completions so far, after every batch.

    Raises:
        UserError: there are no rows.
    """
    if not rows:
        raise UserError("There are no problems to evaluate on; give at least one.")
    groups = sample(
        model,
        tokenizer,
        [row["prompt"] for row in rows],
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        samples=samples,
        top_p=top_p,
        batch_size=batch_size,
        seed=seed,
        indices=indices,
        report=report,
    )
    scores = [float(score or 0.0) for score in rewards_of(rows, groups, reward)]
    return Evaluation(
        scores=[scores[start : start + samples] for start in range(0, len(scores), samples)],
        completions=[[completion.text for completion in group] for group in groups],
        lengths=[[len(completion.ids) for completion in group] for group in groups],
        cut=[[completion.cut for completion in group] for group in groups],
    )


def rewards_of(rows: Sequence[Row], groups: Sequence[Sequence[Sample]], reward: Reward) -> list[float | None]:
    """Score sampled completions with a TRL reward callable; return one reward per completion, group after group.

    Args:
        rows: problems, one or more; every column but "prompt" is handed to the reward.
        groups: the samples of each problem.
        reward: as for `evaluate`; None of a completion means that nothing scored it.
    """
    drawn = [completion for group in groups for completion in group]
    texts = [completion.text for completion in drawn]
    repeated = [row for row, group in zip(rows, groups, strict=True) for _ in group]
    chat = not isinstance(rows[0]["prompt"], str)
    columns = {name: [row.get(name) for row in repeated] for name in rows[0] if name != "prompt"}
    return reward(
        prompts=[row["prompt"] for row in repeated],
        completions=[[{"role": "assistant", "content": text}] for text in texts] if chat else texts,
        completion_ids=[completion.ids for completion in drawn],
        **columns,
    )
