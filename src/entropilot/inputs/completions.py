"""Files with samples of many prompts: JSON Lines or Parquet, one row per prompt, `completions` a list of texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from entropilot.errors import UserError
from entropilot.inputs.messages import last_user_turn, text_of
from entropilot.readers.lines import LONGEST, lines, open_log, shown

PROMPT_COLUMNS = ("prompt", "problem", "question")
ANSWER_COLUMNS = ("answer", "solution", "ground_truth")
COMPLETION_COLUMNS = ("completions", "responses", "texts")  # evaluate's samples.jsonl has them as texts
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
_BATCH = 256  # rows of a Parquet file in memory at once


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
    """Yield the rows of a file of samples, some at a time in memory.

    Args:
        path: .jsonl, .ndjson, .json (one object per line) or .parquet.
        torn: receives the numbers of lines that are no JSON object, which are passed over; without it they are errors.

    Raises:
        UserError: the file can't be read or is of another kind, or a row has no list of texts in `completions`.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is no file of a known kind; give one of {', '.join(SUFFIXES)}.")
    rows = _parquet(path) if path.suffix == ".parquet" else _json(path)
    for number, row in enumerate(rows, start=1):
        if row is None:
            if torn is None:
                raise UserError(
                    f"{path}: row {number} is no JSON object of at most {LONGEST >> 20} MB; remove or mend it."
                )
            torn.append(number)
            continue
        if number == 1 and str(row.get("kind", "")).startswith("entropilot"):
            continue  # the header of what `entropilot evaluate --out` wrote
        yield Sampled(number, row, _texts(path, number, row), question_of(row), gold_of(row))


def question_of(row: dict[str, Any]) -> str | None:
    """Return the text of a row's prompt; of a list of messages that of the last user turn."""
    prompt = next((row[name] for name in PROMPT_COLUMNS if row.get(name) is not None), None)
    text = last_user_turn(prompt)
    return text if text is not None and text.strip() else None


def gold_of(row: dict[str, Any]) -> str | None:
    """Return a row's gold answer as text: its answer column, or verl's reward_model.ground_truth."""
    found = next((row[name] for name in ANSWER_COLUMNS if row.get(name) is not None), None)
    if found is None and isinstance(row.get("reward_model"), dict):
        found = row["reward_model"].get("ground_truth")
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if found is None or isinstance(found, str):
        return found or None
    if isinstance(found, float) and found != found:  # NaN: a table's empty cell
        return None
    return json.dumps(found, ensure_ascii=False, default=str)


def per_sample(path: Path, sampled: Sampled, column: str) -> list[Any] | None:
    """Return a column with one value per sample; None where the row has none.

    Raises:
        UserError: it is no list, or has another length than `completions`.
    """
    found = sampled.row.get(column)
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != len(sampled.completions):
        raise UserError(
            f"{path}: `{column}` of row {sampled.number} must be a list with one value per completion "
            f"({len(sampled.completions)}); mend or remove it."
        )
    return found


def _texts(path: Path, number: int, row: dict[str, Any]) -> list[str]:
    values = next((row[name] for name in COMPLETION_COLUMNS if row.get(name) is not None), None)
    if values is None:
        names = ", ".join(shown(name) for name in list(row)[:12]) or "none"
        raise UserError(
            f"{path}: row {number} has no `completions` (its columns: {names}); every row needs a list of texts there."
        )
    if isinstance(values, str):  # a list as CSV and some Parquet files hold it, or a single text
        values = _list_in(values) or [values]
    if isinstance(values, list) and values and all(isinstance(turn, dict) for turn in values):
        values = [values]  # one chat
    texts = [_text(value) for value in values] if isinstance(values, list) else [None]
    if any(text is None for text in texts):
        raise UserError(
            f"{path}: `completions` of row {number} must be a list of texts or chats; mend that row."
        )
    return [text for text in texts if text is not None]


def _list_in(text: str) -> list[Any] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, list) and all(isinstance(one, str | list) for one in values) else None


def _text(value: Any) -> str | None:
    """The text of a completion: a string, or a chat, whose last assistant turn counts; an empty chat is an empty text."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return None
    return text_of([turn for turn in value if turn.get("role", "assistant") == "assistant"] or value)


def _json(path: Path) -> Iterator[dict[str, Any] | None]:
    with open_log(path) as file:
        for line in lines(file):
            try:
                # What is no JSON (NaN, Infinity) has no meaning here, and must not come out again.
                row = None if line is None else json.loads(line, parse_constant=lambda _: None)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    open_log(path).close()
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is no whole Parquet file ({shown(error)}).") from error
