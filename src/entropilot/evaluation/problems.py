"""Name the problems of an evaluation so that names stay: index, key, question, answer; and recorded completions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from entropilot.errors import UserError
from entropilot.evaluation.protocols import name_of
from entropilot.evaluation.sampling.samples_file import digest
from entropilot.inputs.completion_files import PROMPT_COLUMNS
from entropilot.inputs.completions import is_ours, read_completions
from entropilot.inputs.messages import last_turn
from entropilot.inputs.problems import chosen_rows, fit_prompts, load_problems
from entropilot.readers.lines import shown
from entropilot.recipes.schema import Data

_INDEX = "entropilot_index"


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
            f"{name}: ids that are there more than once: {doubled}; problems are told apart by their place"
        )
    repeated = sum("#" in key for key in keys)
    if repeated:
        notes.append(f"{name}: problems that repeat an earlier one: {repeated}; each counts")
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
    whole, chosen = chosen_of(data)
    order = sorted(chosen)  # the problems that training takes, but in the order of the file
    return _describe(name or name_of(data.source), whole.select(order).to_list(), order)


def chosen_of(data: Data) -> tuple[Dataset, list[int]]:
    """Load a source whole; return it, and the places of the problems that training takes, in training's order.

    Raises:
        UserError: see `load_problems`.
    """
    if data.kind != "rows":
        table = load_problems(data)
        return table, list(range(len(table)))
    table = load_problems(data.model_copy(update={"limit": None}))
    return table, chosen_rows(table, data)


def fitted(prompts: Sequence[Any], tokenizer: Any, data: Data, room: int | None) -> list[int]:
    """Return the places of the prompts that leave room for a completion.

    Raises:
        UserError: one does not, and `over_length` is refuse.
    """
    table = Dataset.from_list([{"prompt": prompt, _INDEX: place} for place, prompt in enumerate(prompts)])
    return list(fit_prompts(table, tokenizer, data, room)[_INDEX])


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

    The file is one that `read_completions` reads, with prompts and mostly with answers. A `samples.jsonl` of ours is read
    as it is.

    Raises:
        UserError: the file is missing or broken, or a row has no completions.
    """
    if not path.exists():
        raise UserError(f"--completions: {path} does not exist; check the path.")
    kept: list[dict[str, Any]] = []
    ours = False
    try:
        for sampled in read_completions(path):
            row = sampled.row
            ours = is_ours(row) if not kept else ours
            if not sampled.completions:
                raise UserError(f"{path}: row {sampled.number} has no completion; fill it or remove the row.")
            prompt = next((row[column] for column in PROMPT_COLUMNS if row.get(column) is not None), None)
            if prompt is None and not kept:
                raise UserError(
                    f"{path}: row {sampled.number} has no prompt ({', '.join(PROMPT_COLUMNS)}); its columns are "
                    f"{', '.join(map(shown, row))}."
                )
            asked = prompt if isinstance(prompt, str | list) and prompt else ""
            kept.append({**row, "prompt": asked, "answer": sampled.gold, "texts": sampled.completions})
    except UserError as error:
        raise UserError(f"--completions: {error}") from error
    if not kept:
        raise UserError(f"--completions: {path} holds no rows; give a file with at least one problem.")
    name = name_of(str(path))
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
