"""Turn prompts and completions into text."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase


def render_prompt(prompt: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text that a model continues: messages go through the chat template, a string stays as it is."""
    if isinstance(prompt, str):
        return prompt
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)  # type: ignore[return-value]


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the tokens that end a completion: the model's generation config knows, else the tokenizer."""
    given = model.generation_config.eos_token_id if model.generation_config else None
    given = tokenizer.eos_token_id if given is None else given
    return set() if given is None else set(given) if isinstance(given, list) else {int(given)}  # type: ignore[arg-type]


def text_of(completion: Any) -> str:
    """Return the text of a completion, a string or a list of messages."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"] or "")


def question_of(prompt: Any) -> str:
    """Return the user's last turn, or the prompt itself where it is a string."""
    if isinstance(prompt, str):
        return prompt
    turns = [message["content"] for message in prompt if message.get("role") == "user"]
    return str(turns[-1]) if turns else ""
