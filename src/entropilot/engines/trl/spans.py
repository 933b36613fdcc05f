"""Describe the rows of a rollout to methods that read `TokenBatch.span`, `.rewards` or `.group`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from entropilot.answers.extraction.locate import locate, locate_own
from entropilot.engines.trl.columns import GROUP, REWARDS, SPAN
from entropilot.inputs.messages import last_user_turn, text_of
from entropilot.inputs.token_spans import tokens_of

Rule = str | Callable[[str], str | None]


def extraction_of(method: Any, rewards: Sequence[Any]) -> tuple[Rule, bool]:
    """Return the rule that says where an answer stands, and whether it passes over copies of the question.

    It is the method's, else that of the first reward that has one, else `auto`.
    """
    own = getattr(method, "extract", None)
    if own:
        return own, isinstance(own, str) and own != "whole"
    reward = next((reward for reward in rewards if hasattr(reward, "extract")), None)
    return (
        ("auto", True) if reward is None else (reward.extract, getattr(reward, "passes_over_copies", False))
    )


def answer_spans(
    completions: Sequence[Any],
    ids: Tensor,
    mask: Tensor,
    tokenizer: Any,
    rule: Rule,
    questions: Sequence[str] | None = None,
) -> tuple[Tensor, int]:
    """Return where the answers' tokens are, (b, t), and how many completions have an answer that is not found in them.

    Args:
        completions: as the reward functions see them, b texts or lists of messages.
        ids: their tokens, (b, t), padded on the right.
        mask: true on tokens that are no padding, (b, t).
        tokenizer: of the model.
        rule: of extraction.
        questions: what each completion answers, whose verbatim copies are passed over; None where copies count.
    """
    span, lost = torch.zeros_like(ids, dtype=torch.bool), 0

    def decode(tokens: list[int]) -> str:
        return tokenizer.decode(tokens, skip_special_tokens=True)

    rows = zip(completions, ids.tolist(), mask.sum(1).tolist(), strict=True)
    for row, (completion, tokens, length) in enumerate(rows):
        text, tokens = text_of(completion), tokens[: int(length)]
        places = locate(text, rule) if questions is None else locate_own(text, questions[row], rule)
        if places == []:
            continue
        # A chat template may have taken a part of what was written for the text, such as the last turn of several.
        whole = decode(tokens)
        begin = whole.find(text)
        if places is None or begin < 0 or whole.find(text, begin + 1) >= 0:
            lost += 1
            continue
        moved = [(start + begin, end + begin) for start, end in places]
        span[row, tokens_of(tokens, decode, moved)] = True
    return span, lost


def describe_rows(
    trainer: Any,
    output: dict[str, Any],
    rewards: Tensor,
    rows: slice,
    prompts: list[Any],
    completions: list[Any],
) -> dict[str, float]:
    """Add what a method may read of each row; return what is recorded of the answers' places, over all ranks."""
    output[REWARDS] = rewards[rows]
    groups = torch.arange(len(rewards), device=rewards.device) // trainer.num_generations
    output[GROUP] = groups[rows]
    if not getattr(trainer.method, "reads_span", False):
        return {}
    ids, mask = output["completion_ids"], output["completion_mask"].bool()
    rule, past_copies = extraction_of(trainer.method, trainer.reward_funcs)
    questions = [last_user_turn(prompt) or "" for prompt in prompts] if past_copies else None
    output[SPAN], lost = answer_spans(completions, ids, mask, trainer.processing_class, rule, questions)
    counts = torch.tensor([output[SPAN].sum(), mask.sum(), lost, len(ids)], device=rewards.device)
    masked, tokens, lost, count = trainer.accelerator.reduce(counts, reduction="sum").tolist()
    return {"answer/masked": masked / max(1, tokens), "answer/unlocated": lost / count}
