"""Turn prompts and completions into text. A prompt is a string or a list of messages ({"role", "content"}).

Each function names the part that it returns; nobody else takes messages apart. Needs neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def render_prompt(prompt: Any, tokenizer: Any) -> str:
    """Return the text that a model continues: messages go through the chat template, a string stays as it is."""
    if isinstance(prompt, str):
        return prompt
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)


def end_ids(model: Any, tokenizer: Any) -> set[int]:
    """Return the tokens that end a completion: the model's generation config knows, else the tokenizer."""
    given = model.generation_config.eos_token_id if model.generation_config else None
    given = tokenizer.eos_token_id if given is None else given
    return set() if given is None else set(given) if isinstance(given, list) else {int(given)}


def stop_ids(tokenizer: Any, characters: list[str]) -> set[int]:
    """Return the tokens whose text holds one of these characters: a completion ends with the first of them.

    A single character lies within one token however a text is spelt, so this is exact.
    """
    if not characters:
        return set()
    size = len(tokenizer)
    texts = tokenizer.batch_decode([[token] for token in range(size)])
    special = set(tokenizer.all_special_ids)
    return {t for t in range(size) if t not in special and any(c in texts[t] for c in characters)}


def text_of(completion: Any) -> str:
    """Return the text of a completion: a string, or a list of messages, whose last one counts; an empty list has none."""
    if isinstance(completion, str):
        return completion
    return (content_text(completion[-1].get("content")) or "") if completion else ""


def content_text(content: Any) -> str | None:
    """Return the text of a message's content, a string or a list of parts; None where it has no text.

    >>> content_text([{"type": "text", "text": "The answer "}, {"type": "text", "text": "is 5."}])
    'The answer is 5.'
    """
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else None


def last_user_turn(prompt: Any) -> str | None:
    """Return what the user said last: a judge's question. A string is the user's own words; None without a user turn.

    >>> last_user_turn([{"role": "user", "content": "1+1=?"}, {"role": "assistant", "content": "Let me see."}])
    '1+1=?'
    """
    if isinstance(prompt, str):
        return prompt
    turns = prompt if isinstance(prompt, list) else []
    said = [turn.get("content") for turn in turns if isinstance(turn, dict) and turn.get("role") == "user"]
    return content_text(said[-1]) if said else None


def last_turn(prompt: Any) -> str:
    """Return the text of the last turn, whoever has it: what two evaluations recognise a problem by.

    Without the system turn, because a model's instruction does not make it another problem.
    """
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def prompt_key(prompt: Any) -> str:
    """Return a hash of a prompt's text, all turns and their roles: the same prompt has the same key in every run."""
    turns = prompt
    if isinstance(prompt, list):
        turns = [[turn.get("role"), content_text(turn.get("content"))] for turn in prompt]
    return hashlib.sha256(json.dumps(turns).encode()).hexdigest()[:32]


def with_system(prompt: list[dict[str, str]], system: str | None) -> list[dict[str, str]]:
    """Return messages with this system turn in place of their own; as they are where `system` is None or empty."""
    if not system:
        return prompt
    return [{"role": "system", "content": system}, *(turn for turn in prompt if turn["role"] != "system")]
