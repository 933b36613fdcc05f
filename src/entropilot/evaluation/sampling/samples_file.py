"""Samples on disk: one line per finished problem, so that a killed evaluation goes on where it was.

`samples.jsonl` opens with a header: the model and a digest of its files, each data source with a digest of its
problems, and the settings that decide about samples. A later line holds the samples of one problem at one temperature.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from entropilot.errors import UserError

FILE_NAME = "samples.jsonl"
KIND = "entropilot samples"
_WHOLE = 64 * 2**20  # bytes: larger weight files are read in places only
_PLACES = 16
_TOLD = ("model_name", "versions")  # in the header for people; the same samples may come under another name

Key = tuple[str, float, int]  # data, temperature, index


def key_of(line: Mapping[str, Any]) -> Key:
    """Return what a line's samples belong to."""
    return str(line["data"]), float(line["temperature"]), int(line["index"])


def digest(value: Any) -> str:
    """Return a digest of plain data."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def model_digest(source: str) -> str | None:
    """Return a digest of a model folder's files; None for a Hub id.

    Files up to 64 MB count whole, larger ones by their size and 16 places of 64 kB: another checkpoint of the same
    shape differs there, and hashing 15 GB would take longer than many evaluations.
    """
    folder = Path(source)
    if not folder.is_dir():
        return None
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix not in (
            ".json",
            ".safetensors",
            ".bin",
            ".jinja",
            ".model",
            ".txt",
        ):
            continue
        size = path.stat().st_size
        found.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if size <= _WHOLE:
                found.update(file.read())
            else:
                for place in range(_PLACES):
                    file.seek((size - 65536) * place // (_PLACES - 1))
                    found.update(file.read(65536))
    return found.hexdigest()[:16]


class SampleFile:
    """Hold the samples of one model in a folder, appended to as they come.

    Args:
        folder: exists and can be written.
        header: what decides about the samples; plain data.
        resume: go on with a file that is there; without it such a file is an error.

    Attributes:
        path: of the file.
        done: what it holds already.
        dropped: bytes of a torn last line that were cut off.

    Raises:
        UserError: the file belongs to another evaluation, is broken, is there without `resume`, or can't be written.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], *, resume: bool) -> None:
        self.path = folder / FILE_NAME
        self.done: set[Key] = set()
        self.dropped = 0
        opening: dict[str, Any] = json.loads(json.dumps({"kind": KIND, **header}))
        try:
            there = self.path.exists() and self.path.stat().st_size > 0
            if there and not resume:
                raise UserError(
                    f"{folder} already holds samples; continue them with --resume, or choose another --out."
                )
            if there:
                there = self._take_up(opening)
            self._file = self.path.open("ab")
            if not there:
                self._write([opening])
        except OSError as error:
            raise UserError(
                f"{self.path} can't be written ({error.strerror}); choose another folder with --out."
            ) from error

    def _take_up(self, header: dict[str, Any]) -> bool:
        """Read what is there, cut a torn last line off, and return whether a header is left."""
        whole, first = 0, None
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    if not raw.endswith(b"\n"):
                        raise ValueError("no line end")
                    line = json.loads(raw)
                    if first is None:
                        first = line
                        _same(self.path.parent, line, header)
                    else:
                        self.done.add(key_of(line))
                except UserError:
                    raise
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    if whole + len(raw) < size:
                        raise UserError(
                            f"{self.path}: line {number} is broken, and it is not the last one; remove that line, or "
                            "choose another --out."
                        ) from error
                    break
                whole += len(raw)
        self.dropped = size - whole
        if self.dropped:
            os.truncate(self.path, whole)
        return first is not None and whole > 0

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write the lines of finished problems and see to it that they are on disk."""
        lines = list(lines)
        try:
            self._write(lines)
        except OSError as error:
            raise UserError(
                f"{self.path} can't be written ({error.strerror}); what is finished is kept: make room, and go on "
                "with --resume."
            ) from error
        self.done |= {key_of(line) for line in lines}

    def _write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self._file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what the file holds, the header left out."""
        with self.path.open(encoding="utf-8") as file:
            next(file)
            for raw in file:
                yield json.loads(raw)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {name: value}
    return {
        key: item
        for part, inner in items
        for key, item in _flat(inner, f"{name}.{part}" if name else str(part)).items()
    }


def _same(folder: Path, theirs: Any, ours: dict[str, Any]) -> None:
    if not isinstance(theirs, dict) or theirs.get("kind") != KIND:
        raise UserError(f"{folder / FILE_NAME} is no file of samples; choose another --out.")
    was, now = _flat(theirs), _flat(ours)
    for name in [*now, *(name for name in was if name not in now)]:
        if name.partition(".")[0] not in _TOLD and was.get(name) != now.get(name):
            raise UserError(
                f"--resume: the samples in {folder} were drawn with {name} = {was.get(name)!r}, and now it is "
                f"{now.get(name)!r}; set it as it was, or choose another --out."
            )
