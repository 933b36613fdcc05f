"""Read the rows of files that hold completions: JSON Lines, JSON, CSV and Parquet; one file, or a folder with one per step.

TRL's `completions/` and verl's rollout dumps have one completion in a row; their rows are grouped here.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from entropilot.errors import UserError
from entropilot.readers.lines import BOM, LONGEST, lines, open_log, shown

PROMPT_COLUMNS = ("prompt", "problem", "question")
ANSWER_COLUMNS = ("answer", "solution", "ground_truth")
COMPLETION_COLUMNS = (
    "completions",
    "responses",
    "samples",
    "texts",
)  # evaluate's samples.jsonl has them as texts
ONE_COLUMNS = ("completion", "output", "response")  # one completion per row
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv")
LARGEST = 256 << 20  # bytes of a JSON file that is one array
_ID_COLUMNS = ("uid", "prompt_id", "id")
_OF_PROMPT = frozenset(
    (*PROMPT_COLUMNS, *ANSWER_COLUMNS, *_ID_COLUMNS, "step", "reward_model", "data_source")
)
_VERL = {"input": "prompt", "gts": "answer"}  # the columns of verl's dumps by their usual names
_BATCH = 256  # rows of a Parquet file in memory at once
_STEP = re.compile(r"\d{1,18}")

Row = dict[str, Any]


def numbered_rows(path: Path) -> Iterator[tuple[int, Row | None]]:
    """Yield the number, from 1, and the columns of every row with completions; None for a row that is no JSON object.

    Rows with one completion each are held in memory, and come after all others, one per prompt, under the number of the
    first: `completions`, and every column that is no part of the prompt, are lists with a value per completion. The rows
    of a prompt are those with the same step and id, where ids repeat, else with the same step and prompt.

    Raises:
        UserError: the file can't be read or is of another kind, or single completions have neither prompt nor id.
    """
    single: list[tuple[int, Row]] = []
    number = 0
    for file in _files(path):
        for place, row in enumerate(_rows(file)):
            number += 1
            if row is None:
                yield number, None
            elif place == 0 and str(row.get("kind", "")).startswith("entropilot"):
                continue  # the header of what `entropilot evaluate --out` wrote
            elif _is_single(row):
                single.append((number, row))
            else:
                yield number, row
    yield from _grouped(path, single)


def list_in(text: str) -> list[Any] | None:
    """Return the list that a text holds, as CSV files have it, in JSON or as Python prints it; None where it holds none."""
    if not text.lstrip().startswith("["):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            values = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(values, list) and all(isinstance(one, str | list | dict) for one in values):
            return values
    return None


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = [file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file()]
    if not files:
        raise UserError(
            f"{path} is a folder without a file of completions; give a file, or a folder of {', '.join(SUFFIXES)}."
        )
    return sorted(files, key=lambda file: (step_in(file) or 0, file.name))


def step_in(file: Path) -> int | None:
    """Return the first number in a file's name, which is the step in the dumps of TRL and verl."""
    match = _STEP.search(file.stem)
    return int(match[0]) if match else None


def _rows(path: Path) -> Iterator[Row | None]:
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is no file of a known kind; give one of {', '.join(SUFFIXES)}.")
    return {".parquet": _parquet, ".csv": _csv}.get(path.suffix, _json)(path)


def _json(path: Path) -> Iterator[Row | None]:
    with open_log(path) as file:
        begin = file.read(1 << 12).removeprefix(BOM).lstrip()
        file.seek(0)
        if begin.startswith(b"["):
            text = file.read(LARGEST + 1)
            if len(text) > LARGEST:
                raise UserError(
                    f"{path} is one JSON array of more than {LARGEST >> 20} MB; write one object per line instead."
                )
            values = _parsed(text.removeprefix(BOM))
            items = values if isinstance(values, list) else [None]
            yield from (item if isinstance(item, dict) else None for item in items)
            return
        for line in lines(file):
            row = None if line is None else _parsed(line)
            yield row if isinstance(row, dict) else None


def _parsed(text: bytes) -> Any:
    try:
        # What is no JSON (NaN, Infinity) has no meaning here, and must not come out again.
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None


def _csv(path: Path) -> Iterator[Row]:
    """Yield the rows of a table; an empty cell is no value, but of a completion the empty text."""
    open_log(path).close()
    csv.field_size_limit(LONGEST)
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            for row in csv.DictReader(file, restkey="(more)"):
                yield {name: _cell(value) for name, value in row.items() if value or name in ONE_COLUMNS}
    except csv.Error as error:
        raise UserError(
            f"{path} is no whole CSV file ({shown(error)}); mend it, or give JSON Lines."
        ) from error


def _cell(value: Any) -> Any:
    """Return a cell; a chat as what it is, where the text holds one."""
    chat = list_in(value) if isinstance(value, str) and value.startswith("[{") else None
    return value if chat is None else chat


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    open_log(path).close()
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is no whole Parquet file ({shown(error)}).") from error


# --- one completion per row ---------------------------------------------------------------------------------------------


def _column(row: Row) -> str | None:
    return next((name for name in ONE_COLUMNS if row.get(name) is not None), None)


def _is_single(row: Row) -> bool:
    if any(row.get(name) is not None for name in COMPLETION_COLUMNS):
        return False
    column = _column(row)
    value = row[column] if column else None
    many = isinstance(value, list) and bool(value) and not isinstance(value[0], dict)
    return column is not None and not many


def _grouped(path: Path, single: list[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    if not single:
        return
    single = [(number, {_VERL.get(name, name): row[name] for name in row}) for number, row in single]
    name = _repeated(row for _, row in single)
    groups: dict[str, list[tuple[int, Row]]] = {}
    for number, row in single:
        key = (
            row.get(name) if name else next((row[c] for c in PROMPT_COLUMNS if row.get(c) is not None), None)
        )
        if key is None:
            raise UserError(
                f"{path}: row {number} holds one completion, but no {name or 'prompt'}, so that nothing says which "
                "rows belong together; add a column `prompt` or `id`."
            )
        groups.setdefault(json.dumps([row.get("step"), key], sort_keys=True, default=str), []).append(
            (number, row)
        )
    for members in groups.values():
        rows = [row for _, row in members]
        values = [row[_column(row) or ""] for row in rows]
        merged: Row = {"completions": [[value] if isinstance(value, dict) else value for value in values]}
        for column in dict.fromkeys(column for row in rows for column in row if column not in ONE_COLUMNS):
            values = [row.get(column) for row in rows]
            merged[column] = values[0] if column in _OF_PROMPT else values
        yield members[0][0], merged


def _repeated(rows: Iterable[Row]) -> str | None:
    """Return the column of ids that several rows of one step share; None where there is none."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for name in _ID_COLUMNS:
            if row.get(name) is not None:
                counts[name, f"{row.get('step')} {row[name]}"] += 1
    return next(
        (name for name in _ID_COLUMNS if any(c[0] == name and n > 1 for c, n in counts.items())), None
    )
