"""Name the problems of an evaluation so that names stay: index, key, question, answer; and recorded completions."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from entropilot.errors import UserError
from entropilot.evaluation.protocols import name_of
from entropilot.evaluation.sampling.samples_file import KIND, digest
from entropilot.inputs import problems as data_files
from entropilot.inputs.messages import last_turn
from entropilot.inputs.problems import ANSWER_COLUMNS, PROMPT_COLUMNS, chosen_rows, fit_prompts, load_problems
from entropilot.recipes.schema import Data

_INDEX = "entropilot_index"
_COMPLETIONS = ("completions", "completion", "samples", "responses")


@dataclass
class Problems:
    """Hold the problems of one data source.

    Attributes:
        name: short, and unique among the sources of an evaluation.
        rows: with prompt, answer and the source's other columns.
        indices: the place of each row in its source, before any was left out.
        keys: a digest of prompt and answer, by which two evaluations are paired; a repeated problem counts on.
        ids: the source's own, None where it has none.
        digest: of everything above.
        notes: what a reader should know.
    """

    name: str
    rows: list[dict[str, Any]]
    indices: list[int]
    keys: list[str]
    ids: list[Any]
    digest: str
    notes: list[str]

    def line(self, place: int) -> dict[str, Any]:
        """Return what a line of samples says of a problem."""
        row = self.rows[place]
        return {
            "data": self.name,
            "index": self.indices[place],
            "id": self.ids[place],
            "key": self.keys[place],
            "question": last_turn(row["prompt"]),
            "answer": row.get("answer"),
        }


def _numbered(keys: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    found = []
    for key in keys:
        found.append(f"{key}#{seen[key]}" if seen[key] else key)
        seen[key] += 1
    return found


def _describe(name: str, rows: list[dict[str, Any]], indices: list[int]) -> Problems:
    keys = _numbered([digest([last_turn(row["prompt"]), row.get("answer")]) for row in rows])
    ids = [row.get("id") for row in rows]
    notes = []
    doubled = sum(count > 1 for count in Counter(str(i) for i in ids if i is not None).values())
    if doubled:
        notes.append(
            f"{name}: {doubled} ids are there more than once; problems are told apart by their place"
        )
    repeated = sum("#" in key for key in keys)
    if repeated:
        notes.append(f"{name}: {repeated} problems repeat an earlier one; each counts")
    without = sum(row.get("answer") is None for row in rows)
    if without == len(rows):
        notes.append(f"{name}: there are no answers, so only measures that need no label are given")
    elif without:
        notes.append(
            f"{name}: {without} of {len(rows)} problems have no answer; accuracy is that of the others"
        )
    whole = digest([[row["prompt"] for row in rows], [row.get("answer") for row in rows], indices])
    return Problems(name, rows, indices, keys, ids, whole, notes)


def problems_of(data: Data, name: str | None = None) -> Problems:
    """Load the problems of a source.

    Raises:
        UserError: see `load_problems`.
    """
    if data.kind != "rows":
        table = load_problems(data)
        order = list(range(len(table)))
    else:
        # The problems that training takes, but in the order of the file and with their places in it.
        table = load_problems(data.model_copy(update={"limit": None}))
        order = sorted(chosen_rows(table, data))
        table = table.select(order)
    return _describe(name or name_of(data.source), table.to_list(), list(order))


def fitted(problems: Problems, tokenizer: Any, data: Data, room: int | None) -> list[int]:
    """Return the places of the problems whose prompt leaves room for a completion.

    Raises:
        UserError: one does not, and `over_length` is refuse.
    """
    table = Dataset.from_list(
        [{"prompt": row["prompt"], _INDEX: place} for place, row in enumerate(problems.rows)]
    )
    return list(fit_prompts(table, tokenizer, data, room)[_INDEX])


def _texts(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    found = []
    for item in value if isinstance(value, list) else [None]:
        if isinstance(item, list) and item and isinstance(item[-1], dict):
            item = item[-1].get("content")
        if not isinstance(item, str):
            return None
        found.append(item)
    return found or None


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines, the header of our own samples left out."""
    rows = []
    for number, text in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        try:
            row = json.loads(text) if text.strip() else None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON") from error
        if row is not None and not isinstance(row, dict):
            raise ValueError(f"line {number} is no mapping of columns to values")
        if row is not None and row.get("kind") != KIND:
            rows.append(row)
    return rows


def _notes_of_samples(lines: list[dict[str, Any]]) -> list[str]:
    """Return the notes on each data source of our own samples, every problem counted once."""
    sources: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        sources.setdefault(str(line["data"]), {}).setdefault(int(line["index"]), line)
    return [
        note
        for name, rows in sources.items()
        for note in _describe(name, list(rows.values()), list(rows)).notes
    ]


def recorded(path: Path) -> tuple[Problems, list[dict[str, Any]]]:
    """Read completions that somebody recorded: (problems, lines of samples).

    A row has a prompt, mostly an answer, and `completions`: a list of texts (or one text). A `samples.jsonl` of ours is
    read as it is.

    Raises:
        UserError: the file is missing or broken, or a row has no completions.
    """
    if not path.is_file():
        raise UserError(f"--completions: the file {path} does not exist; check the path.")
    try:
        rows = _lines(path) if path.suffix == ".jsonl" else data_files._read_file(path).to_list()
    except (ValueError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"--completions: {path} can't be read ({reason}); give JSONL or Parquet.") from error
    if not rows:
        raise UserError(f"--completions: {path} holds no rows; give a file with at least one problem.")
    ours = {"texts", "question", "index", "data"} <= set(rows[0])
    prompt = "question" if ours else next((name for name in PROMPT_COLUMNS if name in rows[0]), None)
    column = "texts" if ours else next((name for name in _COMPLETIONS if name in rows[0]), None)
    if prompt is None or column is None:
        raise UserError(
            f"--completions: {path} needs a prompt column ({', '.join(PROMPT_COLUMNS)}) and `completions`, a list of "
            f"texts; its columns are {', '.join(rows[0])}."
        )
    gold = next((name for name in ANSWER_COLUMNS if name in rows[0]), None)
    name = name_of(str(path))
    kept = []
    for number, row in enumerate(rows):
        texts = _texts(row[column])
        if texts is None:
            raise UserError(
                f"--completions: row {number} of {path} has no list of texts in {column!r}; fill it or remove the row."
            )
        answer = None if gold is None or row[gold] is None else data_files._text(row[gold])
        asked = row[prompt] if isinstance(row[prompt], str | list) and row[prompt] else ""
        kept.append({**row, "prompt": asked, "answer": answer, "texts": texts})
    problems = _describe(name, kept, list(range(len(kept))))
    if ours:  # a line is a problem at one temperature, and the file may hold several data sources
        problems.notes = _notes_of_samples(kept)
    lines = [
        {
            **problems.line(place),
            "temperature": row.get("temperature"),
            "texts": row["texts"],
            **(
                {part: row.get(part) for part in ("data", "index", "key", "ids", "entropy", "cut")}
                if ours
                else {}
            ),
        }
        for place, row in enumerate(kept)
    ]
    return problems, lines
