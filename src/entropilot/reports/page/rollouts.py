"""Read sampled completions for the page: our token samples, TRL's `completions/*.parquet`, verl's rollout dumps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from entropilot.errors import UserError
from entropilot.inputs.completion_files import PROMPT_COLUMNS, step_in
from entropilot.inputs.completions import read_completions
from entropilot.records import TOKENS_FOLDER, Run, finite_number
from entropilot.reports.page.packing import Packer
from entropilot.reports.text import clean

PER_TOKEN = ("entropy", "logp", "covariance", "advantage", "drift")
MOST_ROWS = 40_000  # of all runs; later samples of a run are thinned first, and the page says so
MOST_TOKENS = 4_000_000
LONGEST_TOKEN = 200  # characters shown of one token
LONGEST_TEXT = 20_000  # characters shown of a prompt, or of a completion without token data
LARGEST_FILE = 256 << 20
_DUMPS = ("*.jsonl", "*.parquet")


@dataclass
class Samples:
    """Completions of one run, one entry per row in every list; `values` are per token, flat, NaN where unknown."""

    step: list[int] = field(default_factory=list)
    prompt: list[str] = field(default_factory=list)
    prompt_id: list[str] = field(default_factory=list)
    answer: list[str | None] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    cluster: list[int] = field(default_factory=list)  # -1 where nothing clusters
    truncated: list[bool | None] = field(default_factory=list)
    held_out: list[bool] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    tokens: list[NDArray[Any]] = field(default_factory=list)  # per file: arrays of text
    values: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    chosen: list[NDArray[np.bool_]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    per_token: bool = False  # false where a file holds texts only, cut into words here


def samples_of(run: Run) -> Samples:
    """Return the sampled completions beside a run's record; what can't be read is a note, never an error."""
    samples = Samples()
    folder = run.path if run.path.is_dir() else run.path.parent
    for kind, patterns, read in (
        (TOKENS_FOLDER, ("step_*.parquet",), _own_file),
        ("completions", ("*.parquet",), _text_file),
        ("rollouts", _DUMPS, _text_file),
        ("rollout_data", _DUMPS, _text_file),
        ("rollout", _DUMPS, _text_file),
    ):
        place = folder / kind
        files = (path for pattern in patterns for path in place.glob(pattern) if path.is_file())
        for path in sorted(files, key=lambda path: (step_in(path) or -1, path.name)):
            try:
                if path.stat().st_size > LARGEST_FILE:
                    raise ValueError(f"it has more than {LARGEST_FILE >> 20} MiB")
                read(path, samples)
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
                NotImplementedError,
                UserError,
                pa.ArrowException,
            ) as error:
                samples.notes.append(f"{path.name} can't be read: {' '.join(str(error).split())[:200]}")
        if samples.step:
            break
    return samples


def pack_samples(parts: Sequence[Samples], packer: Packer) -> dict[str, Any]:
    """Return the completions of all runs as references into the packer; see `assets/data.js`."""
    vocabulary: dict[str, int] = {}
    known: dict[str | None, int] = {}  # by token as it was written; most files hold the same ones
    texts: dict[str, int] = {}
    rows: dict[str, list[Any]] = {
        name: [] for name in ("run", "step", "prompt", "id", "reward", "answer", "cluster", "flags", "length")
    }
    ids, chosen = [], []
    values: dict[str, list[NDArray[np.float64]]] = {name: [] for name in PER_TOKEN}

    def text_number(text: str, limit: int) -> int:
        return texts.setdefault(clean(text, limit), len(texts))

    for number, part in enumerate(parts):
        for place, step in enumerate(part.step):
            rows["run"].append(number)
            rows["step"].append(min(max(step, 0), 2**32 - 1))
            rows["prompt"].append(text_number(part.prompt[place], LONGEST_TEXT))
            rows["id"].append(text_number(part.prompt_id[place], 200))
            rows["reward"].append(part.reward[place])
            answer = part.answer[place]
            rows["answer"].append(0 if answer is None else 1 + text_number(answer, 200))
            rows["cluster"].append(part.cluster[place] + 1)
            truncated = part.truncated[place]
            rows["flags"].append(
                (truncated is True)
                | (truncated is not None) << 1
                | part.held_out[place] << 2
                | part.per_token << 3
            )
            rows["length"].append(part.length[place])
        for tokens in part.tokens:
            ids.append(_numbered(tokens, vocabulary, known))
        chosen += part.chosen
        for name in PER_TOKEN:
            values[name] += part.values.get(name, [])
    count = sum(map(len, ids))
    document: dict[str, Any] = {
        "rows": len(rows["run"]),
        "texts": list(texts),
        "vocabulary": list(vocabulary),
        "notes": [list(part.notes) for part in parts],
    }
    for name in ("run", "prompt", "id", "answer", "cluster", "flags", "length"):
        document[name] = packer.indices(np.asarray(rows[name], dtype=np.int64))
    document["step"] = packer.column(rows["step"], "u4")
    document["reward"] = packer.column(rows["reward"], "f4")
    document["token"] = packer.indices(np.concatenate(ids) if ids else np.zeros(0, np.int64))
    flat = np.concatenate(chosen) if chosen else np.zeros(0, bool)
    document["chosen"] = packer.column(np.packbits(flat, bitorder="little"), "u1") if flat.any() else None
    for name in PER_TOKEN:
        column = np.concatenate(values[name]) if values[name] else np.zeros(0)
        document[name] = packer.levels(column) if len(column) == count and np.isfinite(column).any() else None
    return document


def _numbered(
    tokens: NDArray[Any], vocabulary: dict[str, int], known: dict[str | None, int]
) -> NDArray[np.int64]:
    encoded = pc.dictionary_encode(pa.array(tokens, type=pa.string()))
    words = encoded.dictionary.to_pylist()
    for word in words:
        if word not in known:
            known[word] = vocabulary.setdefault(clean(word or "", LONGEST_TOKEN), len(vocabulary))
    places = np.asarray([known[word] for word in words] or [0], dtype=np.int64)
    indices = encoded.indices.fill_null(0) if len(words) else encoded.indices
    return places[indices.to_numpy(zero_copy_only=False).astype(np.int64)] if len(tokens) else places[:0]


def _own_file(path: Path, samples: Samples) -> None:
    """Read a token sample that the probe wrote; a row is left out where its lists differ in length."""
    # Not read_table: it opens a data set around the file, which takes as long as reading.
    with pq.ParquetFile(path) as file:
        table = file.read()
    names = set(table.column_names)
    if not {"step", "tokens", "entropy"} <= names:
        raise KeyError(f"it has no column {' and '.join(sorted({'step', 'tokens', 'entropy'} - names))}")
    tokens = table["tokens"].combine_chunks()
    if not pa.types.is_list(tokens.type) or not pa.types.is_string(tokens.type.value_type):
        raise TypeError("its column tokens does not hold lists of text")
    lengths = pc.list_value_length(tokens).fill_null(0).to_numpy(zero_copy_only=False).astype(int)
    rows, count = table.num_rows, int(lengths.sum())
    if len(samples.step) + rows > MOST_ROWS or sum(samples.length) + count > MOST_TOKENS:
        raise ValueError("the page is full; report fewer runs at once to see it")

    def column(name: str, default: Any) -> list[Any]:
        return table[name].to_pylist() if name in names else [default] * rows

    # Several group rewards write `cluster/NAME` and `answer/NAME`, each its own; the page has room for the first one's.
    labels = [name.partition("/")[2] for name in table.column_names if name.startswith("cluster/")]
    end = f"/{labels[0]}" if labels and "cluster" not in names else ""

    samples.per_token = True
    samples.tokens.append(tokens.flatten().to_numpy(zero_copy_only=False))
    for name in PER_TOKEN:
        samples.values.setdefault(name, []).append(_flat(table, name, lengths))
    samples.chosen.append(_flat(table, "chosen", lengths) == 1.0)
    samples.length += lengths.tolist()
    samples.step += [int(step) for step in column("step", 0)]
    samples.prompt += [str(text or "") for text in column("prompt", "")]
    samples.prompt_id += [
        str(name if name is not None else text)
        for name, text in zip(column("prompt_id", None), column("prompt", ""), strict=True)
    ]
    samples.answer += [None if answer is None else str(answer) for answer in column(f"answer{end}", None)]
    samples.reward += [_number(value) for value in column("reward", None)]
    samples.cluster += [-1 if value is None else int(value) for value in column(f"cluster{end}", None)]
    samples.truncated += [None if value is None else bool(value) for value in column("truncated", None)]
    samples.held_out += [role == "held_out" for role in column("role", None)]


def _flat(table: pa.Table, name: str, lengths: NDArray[Any]) -> NDArray[np.float64]:
    """Return a per-token column, flat; NaN for all where it is missing or does not fit the tokens."""
    if name in table.column_names:
        values = table[name].combine_chunks()
        if pa.types.is_list(values.type):
            own = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
            if (own == lengths).all():
                return values.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.full(int(lengths.sum()), np.nan)


def _text_file(path: Path, samples: Samples) -> None:
    """Read texts without token data, as TRL's `log_completions` and verl's rollout dumps write them."""
    for sampled in read_completions(path, torn=[]):
        row, count = sampled.row, len(sampled.completions)
        lists = {
            name: value for name, value in row.items() if isinstance(value, list) and len(value) == count
        }
        rewards = _rewards(lists, count)
        answers = lists.get("pred", lists.get("acc_pred", [None] * count))
        prompt = next((row[name] for name in PROMPT_COLUMNS if row.get(name) is not None), None)
        step = finite_number(row.get("step"))
        step = step_in(path) if step is None else step
        for text, reward, answer in zip(sampled.completions, rewards, answers, strict=True):
            _text_row(samples, step, prompt, text, reward, answer)


def _rewards(lists: Mapping[str, list[Any]], count: int) -> list[float | None]:
    """Return the reward of each completion: its score, or in TRL's files the sum of the columns of reward functions."""
    if "advantage" not in lists:
        return [finite_number(value) for value in lists.get("score", lists.get("reward", [None] * count))]
    known = {*PROMPT_COLUMNS, "completions", "advantage"}
    columns = [
        values
        for name, values in lists.items()
        if name not in known and all(value is None or finite_number(value) is not None for value in values)
    ]
    given = [
        [number for value in row if (number := finite_number(value)) is not None]
        for row in zip(*columns, strict=True)
    ]
    return [sum(numbers) if numbers else None for numbers in given] or [None] * count


def _text_row(
    samples: Samples, step: float | None, prompt: Any, completion: str, reward: float | None, answer: Any
) -> None:
    if len(samples.step) >= MOST_ROWS:
        return
    words = re.findall(r"\s*\S+|\s+$", completion[:LONGEST_TEXT])
    samples.step.append(0 if step is None else int(step))
    samples.prompt.append(_said(prompt))
    samples.prompt_id.append(_said(prompt))
    samples.answer.append(None if answer is None else str(answer))
    samples.reward.append(_number(reward))
    samples.cluster.append(-1)
    samples.truncated.append(None)
    samples.held_out.append(False)
    samples.length.append(len(words))
    samples.tokens.append(np.asarray(words, dtype=object))
    for name in PER_TOKEN:
        samples.values.setdefault(name, []).append(np.full(len(words), np.nan))
    samples.chosen.append(np.zeros(len(words), bool))


def _said(value: Any) -> str:
    """Return the text of a prompt: a string, or a list of messages, one below the other."""
    if isinstance(value, list):
        parts = [part.get("content") if isinstance(part, dict) else part for part in value]
        return "\n".join(str(part) for part in parts if part is not None)
    return "" if value is None else str(value)


def _number(value: Any) -> float:
    number = finite_number(value)
    return float("nan") if number is None else number
