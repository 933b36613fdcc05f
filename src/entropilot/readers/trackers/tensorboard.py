"""TensorBoard event files: scalars only. The records are framed here, so that no length in a file is trusted."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from entropilot.errors import UserError
from entropilot.readers.gather import TORN, Gathered
from entropilot.readers.lines import open_log
from entropilot.readers.peek import Peek
from entropilot.readers.reader import Log, Reader, Source

LARGEST = 16 << 20  # bytes; a record beyond that is an image, a histogram or a graph
_FLOAT, _DOUBLE, _INT32, _INT64 = 1, 2, 3, 9  # TensorFlow's DataType


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def _masked_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _is_events(head: bytes) -> bool:
    """Whether a file begins with a record of TensorBoard: a length and its checksum."""
    return len(head) >= 12 and _masked_crc32c(head[:8]) == struct.unpack("<I", head[8:12])[0]


def _records(path: Path) -> Iterator[bytes | None]:
    """Yield the records of an event file; None, and then nothing, where the rest is torn."""
    with open_log(path) as file:
        size = path.stat().st_size
        while head := file.read(12):
            if not _is_events(head):
                yield None
                return
            (length,) = struct.unpack("<Q", head[:8])
            if file.tell() + length + 4 > size:
                yield None
                return
            if length > LARGEST:
                file.seek(length + 4, 1)
            else:
                yield file.read(length)
                file.seek(4, 1)


def read_events(log: Log, gathered: Gathered, run: str | None) -> Source:
    """Gather the scalars of the event files of one run, in the order given; a later file wins.

    Raises:
        UserError: TensorBoard is not installed.
    """
    files = log.files or [log.path]
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto.event_pb2 import (  # pyright: ignore[reportMissingImports]
            Event,  # pyright: ignore[reportAttributeAccessIssue]
        )
    except ImportError as error:
        raise UserError(
            f"{files[0]} is a TensorBoard event file, and TensorBoard is not installed; "
            "run `pip install 'entropilot[tensorboard]'`."
        ) from error
    rows: dict[int, dict[str, float]] = {}
    for path in files:
        for record in _records(path):
            try:
                if record is None:
                    raise DecodeError
                event = Event.FromString(record)
            except DecodeError:
                gathered.skipped[TORN] += 1
                continue
            for value in event.summary.value:
                number = _scalar(value)
                if number is None:
                    continue
                row = rows.get(event.step)
                if row is None or value.tag in row:  # a step logged again, after a resume
                    row = rows[event.step] = {}
                    gathered.put(row, "step", float(event.step))
                    gathered.add(row)
                if value.tag != "step":
                    gathered.put(row, value.tag, number)
                    gathered.count(1)
    return Source(files, log.path.name)


def _scalar(value: Any) -> float | None:
    """Return the number of a summary value in TensorBoard's first or second format; None for anything else."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return value.simple_value
    if kind != "tensor" or any(dim.size != 1 for dim in value.tensor.tensor_shape.dim):
        return None
    tensor = value.tensor
    kinds = {
        _FLOAT: (tensor.float_val, "<f"),
        _DOUBLE: (tensor.double_val, "<d"),
        _INT32: (tensor.int_val, "<i"),
        _INT64: (tensor.int64_val, "<q"),
    }
    if tensor.dtype not in kinds:
        return None
    values, form = kinds[tensor.dtype]
    if len(values) == 1:
        return float(values[0])
    if len(tensor.tensor_content) == struct.calcsize(form):
        return float(struct.unpack(form, tensor.tensor_content)[0])
    return None


def _sniff(peek: Peek) -> str | None:
    return "events" if _is_events(peek.head) else None


def _sniff_folder(folder: Path, children: Sequence[Path]) -> Iterator[Log]:
    """Yield the event files of a folder as one log; their names hold the time, and so sort by it."""
    files = []
    for child in sorted(children):
        if ".tfevents." in child.name and child.is_file():
            with open_log(child) as file:
                if _is_events(file.read(12)):
                    files.append(child)
    if files:
        yield Log("tensorboard", "events", folder, files)


READER = Reader(
    "tensorboard", read_events, sniff=_sniff, sniff_folder=_sniff_folder, nested=True, steps=(("step",),)
)
