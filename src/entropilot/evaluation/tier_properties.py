"""Measure what fixes a tier before any method runs: how often its base model succeeds, and what it could learn.

(search) pass@k of the base model; (capacity) the greedy accuracy of the same model after supervised training on right
solutions. What reinforcement learning then does is the result, not the criterion.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from entropilot.analysis.passk import majority
from entropilot.evaluation.in_memory import Evaluation, evaluate
from entropilot.sandbox.pretrain import encode_batch
from entropilot.sandbox.tasks import Problem, Tier


def attempts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tier: Tier,
    problems: Sequence[Problem],
    samples: int = 256,
    temperature: float = 1.0,
    seed: int = 0,
) -> Evaluation:
    """Sample every problem; `.accuracy` is pass@1, `.pass_at(256)` the chance that one of 256 attempts is right."""
    rows = [
        {"prompt": [{"role": "user", "content": problem.prompt}], "answer": problem.answer}
        for problem in problems
    ]
    return evaluate(
        model,
        tokenizer,
        rows,
        lambda completions, answer, **_: [
            tier.score(completion[0]["content"] if isinstance(completion, list) else completion, gold)
            for completion, gold in zip(completions, answer, strict=True)
        ],
        temperature=temperature,
        max_new_tokens=tier.max_completion_length,
        samples=samples,
        batch_size=1024,
        seed=seed,
    )


def majority_at(tried: Evaluation, tier: Tier, k: int) -> float:
    """Return maj@k of the first k attempts at every problem, as `analysis.passk.majority` has it."""
    found = []
    for texts, scores in zip(tried.completions, tried.scores, strict=True):
        answers = [tier.answer_of(text) for text in texts[:k]]
        found.append(majority(answers, scores[:k], [answer is None for answer in answers]))
    return sum(found) / len(found)


@torch.no_grad()
def chances(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tier: Tier, problems: Sequence[Problem]
) -> tuple[list[float], list[bool]]:
    """Return, per problem, the probability of the right solution at T = 1, and whether greedy decoding writes it.

    Exact, without sampling: of a tier such as `pool`, where one text alone is right, the first is pass@1 and
    1 − (1 − p)^k is pass@k. Where other texts are right too it is a lower bound.
    """
    found: list[float] = []
    greedy: list[bool] = []
    for start in range(0, len(problems), 512):
        pairs = [(p.prompt, tier.right(p)) for p in problems[start : start + 512]]
        ids, attention, labels = encode_batch(tokenizer, pairs)
        logp = model(input_ids=ids, attention_mask=attention).logits[:, :-1].log_softmax(-1)
        inside, target = labels[:, 1:] != -100, labels[:, 1:].clamp(min=0)
        taken = logp.gather(-1, target[..., None])[..., 0].masked_fill(~inside, 0.0)
        found += taken.sum(-1).exp().tolist()
        greedy += ((logp.argmax(-1) == target) | ~inside).all(-1).tolist()
    return found, greedy


def capacity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tier: Tier,
    problems: Sequence[Problem],
    held_out: Sequence[Problem] | None = None,
    steps: int = 100,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> float:
    """Return the greedy accuracy of a copy of the model after supervised training on the right solutions.

    Args:
        model: the base model; it is left as it is.
        tokenizer: its tokenizer.
        tier: writes the right solutions and scores.
        problems: what is trained on.
        held_out: what is measured on; None measures on the training problems, as for a fixed pool.
        steps: optimiser steps (AdamW).
        batch_size: problems a step, drawn without replacement.
        learning_rate: constant.
        seed: of the order of problems.
    """
    student = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, len(problems))
    for _ in range(steps):
        chosen = [problems[int(i)] for i in torch.randperm(len(problems), generator=generator)[:size]]
        ids, attention, labels = encode_batch(tokenizer, [(p.prompt, tier.right(p)) for p in chosen])
        student(input_ids=ids, attention_mask=attention, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return attempts(student, tokenizer, tier, held_out or problems, samples=1, temperature=0.0).accuracy
