"""Segments with their authors, on disk and checked; and preferences between them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.control.segments.check import check
from entropilot.control.segments.npz import Kind, as_kind, read_npz
from entropilot.control.segments.types import Segments
from entropilot.errors import UserError
from entropilot.files import written_whole

SCHEMA = 1
# Arrays by kind, and how many dimensions they have.
_KINDS: dict[str, tuple[Kind, int]] = {
    **dict.fromkeys(("states", "actions", "mean_b", "std_b"), ("float32", 3)),
    **dict.fromkeys(("rewards", "returns"), ("float32", 2)),
    **dict.fromkeys(("lengths", "author", "episode", "start", "marks"), ("int64", 1)),
    "success": ("bool", 1),
    "author_names": ("text", 1),
    "snapshots": ("float64", 3),
}


def concatenate(parts: list[Segments]) -> Segments:
    """Return several data sets of one task as one; authors of the same name are the same author.

    Raises:
        UserError: of different tasks, or cut in different ways.
    """
    tasks = sorted({part.task for part in parts})
    if len(tasks) > 1:
        raise UserError(f"Segments of {' and '.join(tasks)} don't mix; give data sets of one task.")
    cuts = {(part.states.shape[1], *part.marks.tolist(), part.snapshots.shape[-1]) for part in parts}
    if len(cuts) > 1:
        raise UserError("Segments that were cut in different ways don't mix; collect them with one --length.")
    names = list(dict.fromkeys(str(name) for part in parts for name in part.author_names))
    values: dict[str, Any] = {"task": tasks[0], "author_names": np.array(names), "marks": parts[0].marks}
    for field in fields(Segments):
        if field.name == "author":
            places = [
                np.array([*[names.index(str(n)) for n in part.author_names], -1])[part.author]
                for part in parts
            ]
            values["author"] = np.concatenate(places)
        elif field.name not in values:
            values[field.name] = np.concatenate([getattr(part, field.name) for part in parts])
    return Segments(**values)


def save(segments: Segments, path: Path) -> None:
    """Write an npz file; an earlier one stays whole until the new one is.

    Raises:
        UserError: it can't be written.
    """
    with written_whole(path) as file:
        np.savez(
            file,
            schema=SCHEMA,
            **{field.name: np.asarray(getattr(segments, field.name)) for field in fields(Segments)},
        )


def load(path: str | Path, task: str | None = None, unequal: bool = False) -> Segments:
    """Read and check a data set.

    Raises:
        UserError: it can't be read, is of another schema, or `check` refuses it.
    """
    read = read_npz(path, "segments", ("schema",))
    schema = int(as_kind(read["schema"], f"schema of {path}", "int64", 0))
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema}, this version reads {SCHEMA}; collect again.")
    missing = [field.name for field in fields(Segments) if field.name not in read]
    if missing:
        raise UserError(f"{path} holds no segments: {missing[0]} is missing.")
    if not read["snapshots"].size:  # none were kept, whatever its shape says
        read["snapshots"] = np.zeros((*read["states"].shape[:1], *read["marks"].shape[:1], 0))
    values: dict[str, Any] = {
        name: as_kind(read[name], f"{name} of {path}", kind, dimensions)
        for name, (kind, dimensions) in _KINDS.items()
    }
    values["task"] = str(as_kind(read["task"], f"task of {path}", "text", 0))
    return check(Segments(**values), task, unequal)
