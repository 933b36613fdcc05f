"""Lines of untrusted files, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from entropilot.errors import UserError

BLOCK = (
    1 << 17
)  # below 256 KB a buffer is used again, and four times as fast as one that the system hands out anew
LONGEST = 8 << 20  # bytes; a longer line is torn: verl's hold 5 kB, and those of W&B with tables some 100 kB
_CUTS = frozenset(cut - end for cut in (1024, 2048, 4096, 8192, 16384, 32768, 65536) for end in (0, 1))
WANDB_CUT = (4095, 4096)  # bytes of a line of W&B's output.log, without and with its end
BOM = b"\xef\xbb\xbf"


def open_log(path: Path) -> BinaryIO:
    """Open a regular file for reading bytes; a device or a pipe is refused.

    Raises:
        UserError: it is none, or can't be read.
    """
    try:
        if not path.exists():
            raise UserError(f"{path} does not exist; check the path.")
        if not path.is_file():
            raise UserError(f"{path} is no file; give a log, or the folder that holds it.")
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}).") from error


def pieces(file: BinaryIO, ends: bytes = b"\n") -> Iterator[tuple[bytes, bool]]:
    """Yield pieces of whole lines, each with whether its last line is ended.

    A piece has about `BLOCK` bytes. Where a line is longer than `LONGEST`, an empty piece comes in its place.

    Args:
        file: a file opened for bytes.
        ends: the bytes any of which ends a line.
    """
    rest, discarding = b"", False
    while block := file.read(BLOCK):
        if discarding:
            found = [at for end in ends if (at := block.find(end)) >= 0]
            if not found:
                continue
            block, discarding = block[min(found) + 1 :], False
        cut = max(block.rfind(end) for end in ends) + 1
        if cut:
            yield rest + block[:cut], True
            rest = block[cut:]
        else:
            rest += block
        if len(rest) > LONGEST:
            rest, discarding = b"", True
            yield b"", False
    if rest:
        yield rest, False


def is_cut(length: int, line: bytes) -> bool:
    """Return whether a line may have been cut by a collector: its length is a power of two, in bytes or characters."""
    if length in _CUTS:
        return True
    return not line.isascii() and length - sum(byte & 0xC0 == 0x80 for byte in line) in _CUTS


def refuse_nul(piece: bytes) -> None:
    """Refuse what is no text.

    Raises:
        UserError: the piece holds a NUL byte.
    """
    if b"\0" in piece:
        raise UserError(
            "The file holds NUL bytes, so it is binary or damaged and is not read as a console log; if it is a log, "
            "remove them first: tr -d '\\000' < FILE > CLEAN"
        )


def lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yield the lines of a file that are not blank, without their ends; None where one is too long to be one."""
    first = True
    for piece, _ in pieces(file):
        if first:
            piece, first = piece.removeprefix(BOM), False
            if not piece:
                continue
        if not piece:
            yield None
        for line in piece.split(b"\n"):
            line = line.strip()
            if line:
                yield line


def parse_object(line: bytes | None) -> dict[str, Any] | None:
    """Return the JSON object of a line, its whole numbers as floats; None for a line that is torn, or no object."""
    if line is None:
        return None
    try:
        row = json.loads(line, parse_int=float)  # an int of many digits would be an error
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def json_rows(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the objects of a JSON Lines file; None for a torn line."""
    with open_log(path) as file:
        for line in lines(file):
            yield parse_object(line)


def shown(name: object, limit: int = 80) -> str:
    """Return a foreign name as it may stand in a sentence: on one line, without control characters, cut."""
    text = " ".join(str(name).split())
    text = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(names: list[str] | tuple[str, ...], limit: int = 12) -> str:
    """Return names as they may stand in a sentence: `a, b, c` or `a, b and 7 more`."""
    text = ", ".join(shown(name) for name in names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"
