"""TRL: an output folder with `trainer_state.json`, also inside `checkpoint-*`, a history, or the console."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from entropilot.errors import UserError
from entropilot.readers.formats import documents
from entropilot.readers.formats.consoles import read_dicts
from entropilot.readers.formats.tables import parquet_batches
from entropilot.readers.gather import TORN, Gathered
from entropilot.readers.names import HELD_OUT, REWARD, TRAIN, UNKNOWN_ENTROPY
from entropilot.readers.peek import Peek
from entropilot.readers.reader import Log, Reader, Source, known

STATE = "trainer_state.json"
COMPLETIONS = "completions"
TORN_FILES = "torn files"
LARGEST = 256 << 20  # bytes of a state; it is one JSON document and has to be held whole
_HISTORY = b'"log_history"'
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,15})")


def state_files(folder: Path) -> list[Path]:
    """Return the states in a folder: its own, then those of its checkpoints, the latest first."""
    found = [folder / STATE] if (folder / STATE).is_file() else []
    numbered = []
    for child in folder.iterdir():
        match = _CHECKPOINT.fullmatch(child.name)
        if match and (child / STATE).is_file():
            numbered.append((int(match[1]), child / STATE))
    return found + [path for _, path in sorted(numbered, reverse=True)]


def completion_files(folder: Path) -> list[Path]:
    """Return the files of completions in a folder, in the order of their steps."""
    place = folder / COMPLETIONS
    return sorted(place.glob("completions_*.parquet")) if place.is_dir() else []


def _load(path: Path) -> dict[str, Any] | None:
    """Return a state; None where it is torn."""
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} has more than {LARGEST >> 20} MB, which no {STATE} has.")
        state = json.loads(path.read_bytes(), parse_int=float)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}).") from error
    except (ValueError, RecursionError):
        return None
    states = [state, *state.values()] if isinstance(state, dict) else []  # some save it beside other things
    return next(
        (one for one in states if isinstance(one, dict) and isinstance(one.get("log_history"), list)), None
    )


def read_trl(log: Log, gathered: Gathered, run: str | None) -> Source:
    """Gather a TRL run, in whichever form it is."""
    if log.form == "console":
        return read_dicts(log, gathered, run)
    if log.form == "history":
        entries = list(documents.rows(log.path))
        _take(entries, gathered)
        return Source([log.path], log.path.stem)
    path = log.path
    name = (path if path.is_dir() else path.parent).name or path.stem
    return Source(_read_folder(path, gathered), name)


def _read_folder(path: Path, gathered: Gathered) -> list[Path]:
    """Gather the longest history of a TRL run, and what its completions add; return the files read.

    Raises:
        UserError: there is no state that is whole.
    """
    folder = path if path.is_dir() else path.parent
    files = state_files(folder) if path.is_dir() else [path]
    best: tuple[Path, dict[str, Any]] | None = None
    for file in files:
        state = _load(file)
        if state is None:
            gathered.skipped[TORN_FILES] += 1
            continue
        if best is None or _step(state) > _step(best[1]):
            best = file, state
        if (
            file.parent != folder
        ):  # the rest are earlier checkpoints, and their histories beginnings of this one
            break
    if best is None:
        have = (
            f"{COMPLETIONS}/ holds rewards but no entropy"
            if completion_files(folder)
            else "there is no history"
        )
        raise UserError(
            f"{path} holds no whole {STATE}, and {have}; TRL writes one with each checkpoint (save_steps)."
        )
    if best[0].parent != folder:
        gathered.notes.append(f"The history is that of {best[0].parent.name}, the latest that is whole.")
    trained = _take(best[1]["log_history"], gathered)
    return [best[0], *(_read_completions(folder, gathered, trained) if path.is_dir() else [])]


def _take(entries: Sequence[Any], gathered: Gathered) -> set[float]:
    """Gather the entries of a history; return the steps of training at which nothing was evaluated."""
    trained: set[float] = set()
    evaluated: set[float] = set()
    for entry in entries:
        if not isinstance(entry, dict):
            gathered.skipped[TORN] += 1
            continue
        if isinstance(step := entry.get("step"), float):
            (evaluated if any(key.startswith("eval_") for key in entry) else trained).add(step)
        gathered.take(_by_dataset(entry), null_is_nan=True)
    return trained - evaluated


def _step(state: dict[str, Any]) -> float:
    step = state.get("global_step")
    return step if isinstance(step, float) else -1.0


def _by_dataset(entry: dict[str, Any]) -> dict[str, Any]:
    """Tell several evaluation sets apart, whose rewards TRL logs under one name: `eval_reward` → `eval_math_reward`."""
    for key in entry:
        if key.startswith("eval_") and key.endswith("_runtime"):
            prefix = key.removesuffix("runtime")
            return {
                prefix + name.removeprefix("eval_")
                if name.startswith("eval_") and not name.startswith(prefix)
                else name: value
                for name, value in entry.items()
            }
    return entry


def _read_completions(folder: Path, gathered: Gathered, steps: set[float]) -> list[Path]:
    """Gather the mean of each column of numbers in the completions of a step, as `completions/<column>/mean`.

    Only of `steps`: where there was an evaluation, TRL 1.16 writes the last of its completions over the training's.
    """
    files, left_out = completion_files(folder), 0
    for file in files:
        sums: dict[float, dict[str, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
        try:
            for names, batch in parquet_batches(file):
                if "step" not in names:
                    break
                for cells in zip(*batch, strict=True):
                    row = dict(zip(names, cells, strict=True))
                    step = row.pop("step")
                    for name, value in row.items():
                        if step is not None and value is not None and value == value:
                            total = sums[step][name]
                            total[0] += value
                            total[1] += 1
        except UserError:
            gathered.skipped[TORN_FILES] += 1
            continue
        for step, totals in sums.items():
            if step in steps:
                means = {f"{COMPLETIONS}/{name}/mean": total / n for name, (total, n) in totals.items()}
                gathered.take(means | {"step": step})
            else:
                left_out += 1
    if left_out:
        gathered.notes.append(
            f"The completions of {left_out} steps are left out: they are past the history, or of an evaluation, "
            "which TRL writes over those of the same step's training."
        )
    return files


def _sniff(peek: Peek) -> str | None:
    if peek.kind in ("jsonl", "document"):
        if _HISTORY in peek.head or any("log_history" in row for row in peek.rows):
            return "state"
        return "history" if peek.kind == "document" and peek.rows and all(map(_is_entry, peek.rows)) else None
    return "console" if any(map(_is_printed, peek.printed)) else None


def _is_entry(row: dict[str, Any]) -> bool:
    return {"step", "epoch"} <= row.keys()


def _is_printed(printed: tuple[bytes, dict[str, float]]) -> bool:
    """Return whether a printed dict is one of transformers' Trainer."""
    return "epoch" in printed[1] and not {"loss", "reward", "entropy", "kl", "eval_loss"}.isdisjoint(
        printed[1]
    )


def _sniff_folder(folder: Path, children: Sequence[Path]) -> Iterator[Log]:
    if state_files(folder) or completion_files(folder):
        yield Log("trl", "state", folder, (folder / STATE,))


_ENTROPY = (
    "TRL's `entropy`: full vocabulary, at the training temperature, during the update, mean over completion tokens, "
    "then over the passes since the last log; not the paper's policy entropy"
)
_REWARD = "TRL's `reward`: mean over the rollout of the weighted sum of the reward functions"
_EVAL = "TRL's `eval_reward`: mean of the weighted sum of the reward functions on eval_dataset, as sampled in training"

READER = Reader(
    "trl",
    read_trl,
    sniff=_sniff,
    sniff_folder=_sniff_folder,
    steps=(("step",), ("train/global_step", "eval/global_step")),
    columns=(
        *known("entropy", TRAIN, "nats", (2, "train/entropy", f"by its name {_ENTROPY}")),
        *known(
            "entropy",
            TRAIN,
            "nats",
            (3, "(?:train/)?(?:policy/entropy_avg|objective/entropy)", UNKNOWN_ENTROPY),
        ),
        *known("performance", HELD_OUT, "reward", (1, "eval(?:_|/)(?:(?P<set>.{1,200})_)?reward", _EVAL)),
        *known(
            "performance",
            REWARD,
            "reward",
            (3, "train/reward", "by its name the reward of TRL or OpenRLHF: mean over the rollout"),
            (4, "(?:train/)?objective/scores", "by its name TRL's mean score over the rollout"),
            reward=True,
        ),
    ),
    own_columns=(
        *known("entropy", TRAIN, "nats", (2, "entropy", _ENTROPY)),
        *known("performance", REWARD, "reward", (3, "reward", _REWARD), reward=True),
    ),
    log_entropy="TRL 0.20 or later logs `entropy`; older versions of TRL, and of Unsloth on top of them, cannot",
)
