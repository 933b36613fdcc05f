"""Read samples of many prompts: the one reader behind `cluster`, `prompts rank`, `evaluate --completions` and the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from entropilot.errors import UserError
from entropilot.inputs.completion_files import (
    ANSWER_COLUMNS,
    COMPLETION_COLUMNS,
    ONE_COLUMNS,
    PROMPT_COLUMNS,
    list_in,
    numbered_rows,
)
from entropilot.inputs.messages import last_user_turn, text_of
from entropilot.readers.lines import LONGEST, shown


class Sampled(NamedTuple):
    """Hold one prompt with its samples.

    Attributes:
        number: of the row, from 1.
        row: all its columns, as they are in the file.
        completions: texts_G, possibly none.
        question: the prompt's text, or that of its last user turn; None where there is none.
        gold: the gold answer as text; None where there is none.
    """

    number: int
    row: dict[str, Any]
    completions: list[str]
    question: str | None
    gold: str | None


def read_completions(path: Path, torn: list[int] | None = None) -> Iterator[Sampled]:
    """Yield the prompts of a file of samples, some at a time in memory.

    Args:
        path: .jsonl, .ndjson, .json (objects, one per line, or an array of them), .csv or .parquet, or a folder of such
            files, with one row per prompt (`completions`, a list of texts or chats) or one per completion (`completion`,
            or verl's `output`).
        torn: receives the numbers of rows that are no JSON object, which are passed over; without it they are errors.

    Raises:
        UserError: the file can't be read or is of another kind, or a row has no list of texts in `completions`.
    """
    for number, row in numbered_rows(path):
        if row is None:
            if torn is None:
                raise UserError(
                    f"{path}: row {number} is no JSON object of at most {LONGEST >> 20} MB; remove or mend it."
                )
            torn.append(number)
            continue
        yield Sampled(number, row, _texts(path, number, row), question_of(row), gold_of(row))


def question_of(row: dict[str, Any]) -> str | None:
    """Return the text of a row's prompt; of a list of messages that of the last user turn."""
    prompt = next((row[name] for name in PROMPT_COLUMNS if row.get(name) is not None), None)
    text = last_user_turn(prompt)
    return text if text is not None and text.strip() else None


def gold_of(row: dict[str, Any]) -> str | None:
    """Return a row's gold answer as text: its answer column, or verl's reward_model.ground_truth."""
    gold = next((row[name] for name in ANSWER_COLUMNS if row.get(name) is not None), None)
    if gold is None and isinstance(row.get("reward_model"), dict):
        gold = row["reward_model"].get("ground_truth")
    if isinstance(gold, list) and len(gold) == 1:
        gold = gold[0]
    if gold is None or isinstance(gold, str):
        return gold or None
    if isinstance(gold, float) and gold != gold:  # NaN: a table's empty cell
        return None
    return json.dumps(gold, ensure_ascii=False, default=str)


def is_ours(row: dict[str, Any]) -> bool:
    """Return whether a row is of the `samples.jsonl` that `entropilot evaluate` writes."""
    return {"texts", "question", "index", "data"} <= row.keys()


def per_sample(path: Path, sampled: Sampled, column: str) -> list[Any] | None:
    """Return a column with one value per sample; None where the row has none.

    Raises:
        UserError: it is no list, or has another length than `completions`.
    """
    values = sampled.row.get(column)
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != len(sampled.completions):
        raise UserError(
            f"{path}: `{column}` of row {sampled.number} must be a list with one value per completion "
            f"({len(sampled.completions)}); mend or remove it."
        )
    return values


def _texts(path: Path, number: int, row: dict[str, Any]) -> list[str]:
    columns = (*COMPLETION_COLUMNS, *ONE_COLUMNS)
    values = next((row[name] for name in columns if row.get(name) is not None), None)
    if values is None:
        names = ", ".join(shown(name) for name in list(row)[:12]) or "none"
        raise UserError(
            f"{path}: row {number} has no `completions` (its columns: {names}); every row needs a list of texts there."
        )
    if isinstance(values, str):  # a list as CSV and some Parquet files hold it, or a single text
        held = list_in(values)
        values = [values] if held is None else held
    if isinstance(values, list) and values and all(isinstance(turn, dict) for turn in values):
        values = [values]  # one chat
    texts = [_text(value) for value in values] if isinstance(values, list) else [None]
    if any(text is None for text in texts):
        raise UserError(
            f"{path}: `completions` of row {number} must be a list of texts or chats; mend that row."
        )
    return [text for text in texts if text is not None]


def _text(value: Any) -> str | None:
    """The text of a completion: a string, or a chat, whose last assistant turn counts; an empty chat is an empty text."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return None
    return text_of([turn for turn in value if turn.get("role", "assistant") == "assistant"] or value)
