"""Measure the accuracy of a model in memory, as validation during training does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from entropilot.analysis.passk import pass_at_k as pass_at_k
from entropilot.errors import UserError
from entropilot.inputs.messages import end_ids, render_prompt

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


@contextmanager
def private_randomness(seed: int) -> Iterator[None]:
    """Run a block on its own random numbers: the global generators are as before when it ends."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    *,
    temperature: float,
    max_new_tokens: int,
    samples: int = 1,
    top_p: float = 1.0,
    batch_size: int = 256,
    seed: int = 0,
    report: Callable[[int], None] | None = None,
) -> list[list[list[int]]]:
    """Return `samples` completions (token ids, the end token included) of every prompt.

    Greedy at temperature 0. The model is left in the mode it was in, the global random state untouched. `report` is
    called with the number of completions so far.
    """
    texts = [render_prompt(prompt, tokenizer) for prompt in prompts for _ in range(samples)]
    # Greedy leaves T, top_p and top_k at transformers' defaults, or it warns that they have no effect.
    sampling: dict[str, Any] = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    ends = end_ids(model, tokenizer)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted(ends) or None,
        disable_compile=True,
        **sampling,
    )
    was_training = model.training
    model.eval()
    found: list[list[int]] = []
    try:
        with private_randomness(seed):
            for start in range(0, len(texts), batch_size):
                batch = tokenizer(
                    texts[start : start + batch_size],
                    return_tensors="pt",
                    padding=True,
                    padding_side="left",
                    add_special_tokens=False,
                ).to(model.device)
                full = model.generate(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    generation_config=config,
                )
                for ids in full[:, batch["input_ids"].shape[1] :].tolist():
                    stop = next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))
                    found.append(ids[:stop])
                if report is not None:
                    report(len(found))
    finally:
        model.train(was_training)
    return [found[row : row + samples] for row in range(0, len(found), samples)]


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
        report: is called with the number of completions so far, after every batch.

    Raises:
        UserError: there are no rows.
    """
    if not rows:
        raise UserError("There are no problems to evaluate on; give at least one.")
    ids = sample(
        model,
        tokenizer,
        [row["prompt"] for row in rows],
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        samples=samples,
        top_p=top_p,
        batch_size=batch_size,
        seed=seed,
        report=report,
    )
    flat_ids = [completion for group in ids for completion in group]
    texts = tokenizer.batch_decode(flat_ids, skip_special_tokens=True)
    repeated = [row for row in rows for _ in range(samples)]
    chat = not isinstance(rows[0]["prompt"], str)
    columns = {name: [row.get(name) for row in repeated] for name in rows[0] if name != "prompt"}
    given = reward(
        prompts=[row["prompt"] for row in repeated],
        completions=[[{"role": "assistant", "content": text}] for text in texts] if chat else texts,
        completion_ids=flat_ids,
        **columns,
    )
    scores = [float(score or 0.0) for score in given]

    def groups(values: list[Any]) -> list[list[Any]]:
        return [values[start : start + samples] for start in range(0, len(values), samples)]

    lengths = [len(completion) for completion in flat_ids]
    ends = end_ids(model, tokenizer)
    cut = [len(c) >= max_new_tokens and c[-1] not in ends for c in flat_ids]
    return Evaluation(groups(scores), groups(texts), groups(lengths), groups(cut))
