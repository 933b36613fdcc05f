"""Verifiable rewards as TRL reward callables; TRL's own command line takes them by their dotted path.

A reward is `f(prompts, completions, completion_ids, **columns) -> list[float | None]`; the column `answer` holds
the gold answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from importlib import import_module
from itertools import accumulate
from typing import Any

from entropilot.errors import UserError
from entropilot.sandbox.tasks import get_tier

RewardFunction = Callable[..., list[float | None]]


def text_of(completion: Any) -> str:
    """Return the text of a completion, a string or a list of messages."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"] or "")


def sandbox_reward(tier: str) -> RewardFunction:
    """Return the reward of a sandbox tier: 1 for a right answer, else 0."""
    score = get_tier(tier).score

    def sandbox(completions: list[Any], answer: list[str], **_: Any) -> list[float | None]:
        return [
            None if gold is None else score(text_of(completion), gold)
            for completion, gold in zip(completions, answer, strict=True)
        ]

    return sandbox


def exact(completions: list[Any], answer: list[Any], **_: Any) -> list[float | None]:
    """1 where the completion, or its last line, is the answer, blanks at the ends aside; else 0; None without gold."""
    scores: list[float | None] = []
    for completion, gold in zip(completions, answer, strict=True):
        text, wanted = text_of(completion).strip(), str(gold).strip()
        right = wanted in (text, text.rsplit("\n", 1)[-1].strip())
        scores.append(None if gold is None else float(right))
    return scores


def math(completions: list[Any], answer: list[Any], **kwargs: Any) -> list[float | None]:
    """TRL's accuracy reward (math-verify): 1 where the answers agree, else 0; None where the gold can't be read.

    Text is parsed, never evaluated; what takes math-verify too long counts as wrong (5 to 10 s each, TRL's limits).
    """
    from trl.rewards import accuracy_reward

    # At each time-out they print the whole completion.
    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    texts = [text_of(completion) for completion in completions]
    chats = [[{"role": "assistant", "content": "" if _too_deep(text) else text}] for text in texts]
    given = accuracy_reward(completions=chats, solution=[_readable_gold(gold) for gold in answer])
    return [None if gold is None else score for gold, score in zip(answer, given, strict=True)]


def _readable_gold(gold: Any) -> str:
    """Return a gold answer so that math-verify reads it as one: it looks between dollars and in boxes only."""
    text = str(gold)
    # A price such as \\$18.90 holds no delimiter.
    return text if "\\boxed" in text or re.search(r"(?<!\\)\$", text) else f"\\boxed{{{text}}}"


def _too_deep(text: str, limit: int = 100) -> bool:
    """Whether brackets are nested deeper than in any answer; math-verify's parser would spend its 10 s on them."""
    brackets = (1 if bracket in "([{" else -1 for bracket in re.findall(r"[(\[{}\])]", text))
    return max(accumulate(brackets), default=0) > limit


def reasoning_gym(completions: list[Any], entry: list[str], **_: Any) -> list[float | None]:
    """The score that reasoning_gym's own task gives; `entry` is its JSON row (see `entropilot.engines.data`)."""
    import json

    import reasoning_gym as gym

    scores: list[float | None] = []
    for completion, row in zip(completions, entry, strict=True):
        item = json.loads(row)
        scorer = gym.get_score_answer_fn(item["metadata"]["source_dataset"])
        scores.append(float(scorer(text_of(completion).strip(), item)))
    return scores


def build_reward(name: str, tier: str | None) -> RewardFunction:
    """Return a reward by the name a recipe uses: sandbox, exact, math, reasoning_gym, or a dotted path.

    Raises:
        UserError: the name means nothing here.
    """
    if name == "sandbox":
        if tier is None:
            raise UserError(
                "reward: sandbox needs data: sandbox; choose exact, math or a dotted path for other data."
            )
        return sandbox_reward(tier)
    builtin = {"exact": exact, "math": math, "reasoning_gym": reasoning_gym}
    if name in builtin:
        return builtin[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UserError(
            f"reward: {name!r} is none of sandbox, {', '.join(builtin)}, and no dotted path such as my.rewards.f."
        )
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # "a..b" and ".a" are among them
        raise UserError(
            f"reward: {name!r} can't be imported ({error}); check the path, and that it is installed."
        ) from error
    if not callable(found):
        raise UserError(f"reward: {name!r} is no function; give the dotted path of one.")
    return found
