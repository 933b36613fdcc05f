"""W&B's own file, `run-<id>.wandb`, which the SDK writes online and offline.

It is a LevelDB log behind a head of seven bytes: blocks of 32 kB with records in pieces, each with a checksum. A record
is a protobuf message, of which only the history and the run's name are looked at, so that wandb need not be installed.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from entropilot.errors import UserError
from entropilot.readers.gather import TORN, Gathered
from entropilot.readers.lines import LONGEST, open_log, shown
from entropilot.readers.peek import Peek
from entropilot.readers.reader import Log, Reader, Source

MAGIC = b":W&B"
_HEAD = 7
_BLOCK = 1 << 15
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# Fields of wandb_internal.proto.
_HISTORY, _RUN = 2, 17
_ITEM, _STEP = 1, 2
_KEY, _NESTED, _INTEGER, _NUMBER, _JSON, _VALUE_JSON = 1, 2, 5, 6, 8, 16
_RUN_ID, _DISPLAY_NAME = 1, 8


def records(file: BinaryIO) -> Iterator[bytes | None]:
    """Yield the records of a file, from its beginning; None for one that is torn or longer than any row."""
    file.seek(_HEAD)
    record, whole, at = b"", False, _HEAD
    while block := file.read(_BLOCK - at % _BLOCK):
        at += len(block)
        place = 0
        while place + 7 <= len(block):
            crc, size, kind = struct.unpack_from("<IHB", block, place)
            piece = block[place + 7 : place + 7 + size]
            if kind == 0 and size == 0:  # the rest of the block is empty
                break
            place += 7 + size
            if len(piece) < size or zlib.crc32(piece, zlib.crc32(bytes([kind]))) != crc:
                yield None
                record, whole = b"", False
                if len(piece) < size or not _WHOLE <= kind <= _LAST:
                    break
                continue
            if kind in (_WHOLE, _FIRST):
                record, whole = b"", True
            if whole:
                record += piece
                whole = len(record) <= LONGEST
                if not whole:
                    yield None
            if kind in (_WHOLE, _LAST):
                if whole:
                    yield record
                record, whole = b"", False
        if 0 < len(block) - place < 7 and at % _BLOCK:
            yield None


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of the fields of a protobuf message: an integer, a float, or bytes.

    Raises:
        ValueError: it is no message.
    """
    at, size = 0, len(message)
    while at < size:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
        elif wire == 1 and at + 8 <= size:
            (value,), at = struct.unpack_from("<d", message, at), at + 8
        elif wire == 5 and at + 4 <= size:
            (value,), at = struct.unpack_from("<f", message, at), at + 4
        elif wire == 2:
            length, at = _varint(message, at)
            if at + length > size:
                raise ValueError
            value, at = message[at : at + length], at + length
        else:
            raise ValueError
        yield number, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError


def _history(message: bytes) -> dict[str, Any]:
    """Return a row of the history: every value under its key; of an object, `actor/lr`."""
    row: dict[str, Any] = {}
    for number, item in fields(message):
        if number == _STEP and isinstance(item, bytes):
            row.setdefault("_step", float(next((value for field, value in fields(item) if field == 1), 0)))
        elif number == _ITEM and isinstance(item, bytes):
            names: list[str] = []
            value: Any = None
            for field, part in fields(item):
                if field in (_KEY, _NESTED) and isinstance(part, bytes):
                    names.append(part.decode("utf-8", "replace"))
                elif field in (_VALUE_JSON, _JSON) and isinstance(part, bytes):
                    value = json.loads(part, parse_int=float)
                elif field in (_NUMBER, _INTEGER):
                    value = float(part)
            row["/".join(filter(None, names))] = value
    return row


def read_wandb_file(log: Log, gathered: Gathered, run: str | None) -> Source:
    """Gather the history in a `.wandb` file.

    Raises:
        UserError: no record of it can be read.
    """
    path = log.path
    name, good = path.stem.removeprefix("run-"), 0
    with open_log(path) as file:
        for record in records(file):
            try:
                if record is None:
                    raise ValueError
                for number, message in fields(record):
                    if number == _HISTORY and isinstance(message, bytes):
                        gathered.take(_history(message))
                    elif number == _RUN and isinstance(message, bytes):
                        labels = {
                            field: value for field, value in fields(message) if isinstance(value, bytes)
                        }
                        label = labels.get(_DISPLAY_NAME) or labels.get(_RUN_ID) or b""
                        name = shown(label.decode("utf-8", "replace")) or name
                good += 1
            except (ValueError, RecursionError):
                gathered.skipped[TORN] += 1
    if not good:
        raise UserError(
            f"{path} is a W&B file of which no record can be read; export the run's history instead: "
            'wandb.Api().run("ENTITY/PROJECT/RUN").history().to_csv("history.csv").'
        )
    return Source([path], name)


def _sniff(peek: Peek) -> str | None:
    return "wandb file" if peek.head.startswith(MAGIC) else None


def _sniff_folder(folder: Path, children: Sequence[Path]) -> Iterator[Log]:
    """Yield the `.wandb` files of a run's folder, which the SDK calls `run-…` or `offline-run-…`."""
    for child in children:
        if child.suffix == ".wandb" and child.is_file():
            with open_log(child) as file:
                if file.read(4) == MAGIC:
                    yield Log("wandb-file", "wandb file", child, (child,))


READER = Reader(
    "wandb-file",
    read_wandb_file,
    sniff=_sniff,
    sniff_folder=_sniff_folder,
    nested=True,
    steps=(("train/global_step", "eval/global_step"), ("_step",)),
)
