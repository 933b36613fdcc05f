"""Problems of a recipe as a `datasets.Dataset` with the columns prompt (messages) and answer."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, concatenate_datasets, load_dataset

from entropilot.errors import UserError
from entropilot.inputs.completion_files import ANSWER_COLUMNS, PROMPT_COLUMNS
from entropilot.inputs.hub import check_dataset
from entropilot.inputs.messages import render_prompt, with_system
from entropilot.recipes.schema import Data
from entropilot.sandbox.tasks import SPLITS, Split, get_tier

FILE_KINDS = (".jsonl", ".json", ".parquet", ".csv")
# Names that TRL hands to reward functions itself, or reads as something else than a column of ours.
RESERVED_COLUMNS = (
    *("prompts", "completion", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"),
    *("environment", "environments", "image", "images"),
)
RANKED = "selection"  # the column that `entropilot prompts rank --out` adds
SANDBOX_SIZE = 4096  # problems of a sandbox source without a limit


def load_problems(data: Data) -> Dataset:
    """Load the problems of a source; every row has `prompt` (a list of messages or a string) and usually `answer`.

    Raises:
        UserError: the source does not exist, is empty, or lacks a column.
    """
    if data.labelled_share is not None:
        return _few_labels(load_problems(data.model_copy(update={"labelled_share": None})), data)
    if data.tier is not None:
        return _sandbox(data, data.tier)
    if data.kind == "reasoning_gym":
        return _reasoning_gym(data, data.source.partition(":")[2])
    path = Path(data.source).expanduser()
    try:
        if path.suffix in FILE_KINDS:
            if not path.is_file():
                raise UserError(f"data.source: the file {data.source} does not exist; check the path.")
            raw = _read_file(path)
        elif path.exists():
            raise UserError(
                f"data.source: {data.source} is no file of a known kind; give one of {', '.join(FILE_KINDS)}."
            )
        else:
            check_dataset(data.source)
            raw = load_dataset(data.source, data.config, split=data.split)
    except UserError:
        raise
    except Exception as error:  # datasets raises a dozen kinds here, down to those of its filesystems
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "codec can't decode" in reason:
            raise UserError(
                f"data.source: {data.source} holds bytes that are no UTF-8 text; save the file as UTF-8."
            ) from error
        raise UserError(
            f"data.source: {data.source} can't be loaded ({reason}); check the name and the file."
        ) from error
    return _columns(raw, data)


def _few_labels(table: Dataset, data: Data) -> Dataset:
    """Keep the answers of a share of the rows, drawn with the data's seed, and forget the others."""
    assert data.labelled_share is not None
    if "answer" not in table.column_names:
        return table
    count = round(data.labelled_share * len(table))
    kept = set(random.Random(f"labelled/{data.seed}").sample(range(len(table)), count))
    answers = [answer if row in kept else None for row, answer in enumerate(table["answer"])]
    column = Dataset.from_dict({"answer": answers}, features=Features({"answer": table.features["answer"]}))
    return concatenate_datasets([table.remove_columns("answer"), column], axis=1)


def chosen_rows(table: Dataset, data: Data) -> list[int]:
    """Return the rows that `data.limit` keeps, in the order in which training meets them.

    The first rows of a ranking (`entropilot prompts rank`), which knows its best; rows drawn at random of other data.
    """
    count = len(table)
    if data.limit is None:
        return list(range(count))
    rows = Dataset.from_dict({"row": range(count)})
    if RANKED not in table.column_names:
        rows = rows.shuffle(seed=data.seed)
    return list(rows.select(range(min(data.limit, count)))["row"])


def _read_file(path: Path) -> Dataset:
    """Read a local file into memory: no cache outside of the run, and an answer such as 007 stays text."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return Dataset(pq.read_table(path))
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        csv.field_size_limit(2**31 - 1)
        rows: list[Any] = list(csv.DictReader(io.StringIO(text), restkey="(more)"))
    elif path.suffix == ".json" and (whole := _whole(text)) is not None:
        rows = whole
    else:
        rows = []
        for number, line in enumerate(text.split("\n"), start=1):
            try:
                if line.strip():
                    rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is not JSON") from error
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("not every row is a mapping of columns to values")
    columns = {
        name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)
    }
    for name, values in columns.items():
        # Arrow holds one kind per column; where a file mixes them (3 and "3"), text holds all of them.
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and kinds <= {str, int, float, bool}:
            columns[name] = [None if value is None else _text(value) for value in values]
    return Dataset.from_dict(columns)


def _whole(text: str) -> list[Any] | None:
    """Return the rows of a file that is one JSON document, None where it is not."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    """Return a gold answer as text; verl's files may hold a list of one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _sandbox(data: Data, name: str) -> Dataset:
    if data.split not in SPLITS:
        raise UserError(
            f"data.split: the sandbox has no split {data.split!r}; choose one of {', '.join(SPLITS)}."
        )
    split: Split = data.split  # type: ignore[assignment]  # just checked
    problems = get_tier(name).problems(split, data.limit or SANDBOX_SIZE, data.seed)
    rows = [{"prompt": _turn(problem.prompt, data), "answer": problem.answer} for problem in problems]
    return Dataset.from_list(rows)


def _reasoning_gym(data: Data, task: str) -> Dataset:
    try:
        import reasoning_gym as gym
    except ImportError as error:
        raise UserError(
            "data.source: reasoning_gym is not installed; pip install 'entropilot[reasoning-gym]'."
        ) from error
    # Splits are disjoint seeds: the tasks are procedural, so there is no fixed set to divide.
    seed = data.seed + {"train": 0, "validation": 1_000_003, "test": 2_000_003}.get(data.split, 0)
    try:
        entries = gym.create_dataset(task, size=data.limit or 1024, seed=seed, **data.options)
    except (ValueError, TypeError, AssertionError) as error:
        given = f" with data.options {data.options}" if data.options else ""
        raise UserError(f"data.source: reasoning_gym has no task {task!r}{given} ({error}).") from error
    rows = [
        {
            "prompt": _turn(entry["question"], data),
            "answer": str(entry["answer"]),
            "entry": json.dumps(entry, default=str),
        }
        for entry in entries
    ]
    return Dataset.from_list(rows)


def _turn(text: str, data: Data) -> list[dict[str, str]] | str:
    text = data.prefix + text + data.suffix
    return text if data.template == "none" else with_system([{"role": "user", "content": text}], data.system)


def _pick(names: list[str], wanted: str | None, defaults: tuple[str, ...], what: str) -> str | None:
    if wanted is not None:
        if wanted not in names:
            raise UserError(
                f"data.{what}_column: there is no column {wanted!r}; the columns are: {', '.join(names)}."
            )
        return wanted
    return next((name for name in defaults if name in names), None)


def _columns(raw: Dataset, data: Data) -> Dataset:
    """Map the columns of a file or a Hub dataset to ours; verl's parquet layout is understood as it is."""
    names = list(raw.column_names)
    if len(raw) == 0:
        raise UserError(
            f"data.source: {data.source} holds no rows; give a dataset with at least one problem."
        )
    prompt = _pick(names, data.prompt_column, PROMPT_COLUMNS, "prompt")
    if prompt is None:
        raise UserError(
            f"data.source: {data.source} has no prompt column (one of {', '.join(PROMPT_COLUMNS)}); its columns are "
            f"{', '.join(names)}. Name yours with data.prompt_column."
        )
    answer = _pick(names, data.answer_column, ANSWER_COLUMNS, "answer")
    if data.limit is not None:
        raw = raw.select(chosen_rows(raw, data))

    prompts, answers = [], []
    for index, row in enumerate(raw):
        where = f"row {index}" if data.limit is None else "a row"  # a limit has shuffled them
        verl = row.get("reward_model") if isinstance(row.get("reward_model"), dict) else {}
        gold = row[answer] if answer is not None else (verl or {}).get("ground_truth")
        prompts.append(_turns(row[prompt], data, f"{where} of {data.source}", prompt))
        answers.append(None if gold is None else _text(gold))
    # Beside each other, and not through `map`, which casts an answer back to the kind of the column it replaces.
    ours = Dataset.from_dict({"prompt": prompts, "answer": answers})
    # Every other column stays: a reward function may ask for it.
    theirs = raw.remove_columns([n for n in names if n in (*RESERVED_COLUMNS, prompt, "prompt", "answer")])
    return concatenate_datasets([ours, theirs], axis=1) if theirs.column_names else ours


def _turns(prompt: Any, data: Data, where: str, column: str) -> list[dict[str, str]] | str:
    """Return the messages of a prompt, a string or a list of messages; `data.system` takes the place of theirs.

    Without a template it is raw text: the only turn of messages, where there is one.
    """
    if isinstance(prompt, str) and prompt.strip():
        return _turn(prompt, data)
    if not isinstance(prompt, list) or not prompt:
        raise UserError(f"data.source: {where} has no prompt in {column!r}; remove or fill it.")
    try:
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in prompt]
    except (KeyError, TypeError):
        turns = []
    if not turns or not all(isinstance(text, str) for turn in turns for text in turn.values()):
        raise UserError(
            f"data.source: {where} holds messages in {column!r} that lack a role or a content of text; "
            'write them as [{"role": "user", "content": "..."}].'
        )
    if data.template == "none":
        if len(turns) > 1:
            raise UserError(
                f"data.template: none, but {where} holds {len(turns)} messages in {column!r}; give prompts of one turn, or "
                "leave out data.template."
            )
        return _turn(turns[0]["content"], data)
    turns = with_system(turns, data.system)
    return [*turns[:-1], {**turns[-1], "content": data.prefix + turns[-1]["content"] + data.suffix}]


def fit_prompts(dataset: Dataset, tokenizer: Any, data: Data, room: int | None) -> Dataset:
    """Refuse or drop prompts that leave no room for a completion.

    Args:
        dataset: rows with `prompt`.
        tokenizer: with a chat template.
        data: its `max_prompt_length`, and what to do.
        room: tokens that the model's context leaves for a prompt; None where it has no limit.

    Raises:
        UserError: prompts are over the limit and `over_length` is refuse, or none is left.
    """
    limits = [limit for limit in (data.max_prompt_length, room) if limit is not None]
    if not limits:
        return dataset
    limit = min(limits)
    if limit <= 0:
        raise UserError(
            "Completions of this length leave no room for a prompt in the model's context; allow fewer tokens "
            "(grpo.max_completion_length in a recipe, --max-tokens of evaluate)."
        )

    def length(prompt: Any) -> int:
        return len(tokenizer(render_prompt(prompt, tokenizer), add_special_tokens=False)["input_ids"])

    lengths = [length(prompt) for prompt in dataset["prompt"]]
    over = [row for row, tokens in enumerate(lengths) if tokens > limit]
    if not over:
        return dataset
    if data.over_length == "refuse":
        raise UserError(
            f"{len(over)} of {len(lengths)} prompts are longer than {limit} tokens (row {over[0]} has {lengths[over[0]]}); "
            "set over_length to drop to leave them out, or leave more room with shorter completions."
        )
    kept = sorted(set(range(len(lengths))) - set(over))
    if not kept:
        raise UserError(
            f"All {len(lengths)} prompts are longer than {limit} tokens; raise the limit or change the data."
        )
    return dataset.select(kept)
