"""Write files whole, claim the folder of a run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from entropilot.errors import UserError


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write that takes the name only when all is written; two processes do not meet in it.

    An error leaves what was there before, and nothing else.

    Raises:
        UserError: the folder or the file can't be written.
    """
    # A kill may leave this one behind; the process's number keeps it from another writer's.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror or error}); choose another place."
        ) from error
    finally:
        if part.is_file():
            part.unlink()


@contextlib.contextmanager
def writing(path: Path | None) -> Iterator[TextIO | None]:
    """Open a file that appears under its name only when all of it is written."""
    if path is None:
        yield None
        return
    partial = path.with_name(f"{path.name}.partial")
    try:
        file = partial.open("w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror}); choose another file with --out."
        ) from error
    try:
        with file:
            yield file
        os.replace(partial, path)
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror}); choose another file with --out."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def claim(out: Path) -> bool:
    """Make the run's folder before anything is loaded; returns whether it is new.

    Raises:
        UserError: it can't be written.
    """
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UserError(
            f"{out} can't be written ({error.strerror}); choose another folder with --out."
        ) from error
    return new


def unclaim(out: Path, new: bool) -> None:
    """Leave nothing behind of a recipe that was refused: empty folders only, and none that was there before."""
    for folder in (out / "checkpoints", *((out,) if new else ())):
        with contextlib.suppress(OSError):
            folder.rmdir()


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write JSON lines so that the file is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}); choose another --out.") from error
