"""Write files whole, claim a folder, and decide what may be overwritten.

The rules for every output of every command:

* A file that the command reads is never written over.
* A file that exists is left alone unless `--force` is given; where a command has no `--force`, choose a new name.
* A folder with a run, samples or a bench is only continued: with `--resume`, or by the same command.
* A page or picture that can be drawn again from its run (`report.html`, `curves.html`) replaces an older page of ours.
* A file takes its name only when all of it is on disk. A kill or a full disk leaves the older file, or none.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from entropilot.errors import UserError


def unwritable(path: Path, error: OSError, option: str | None = "--out", what: str = "file") -> UserError:
    """Return the error of a path that can't be written.

    Args:
        path: what was to be written.
        error: why not.
        option: that named the path; None where no option did.
        what: file or folder.
    """
    remedy = "choose another place" if option is None else f"choose another {what} with {option}"
    return UserError(f"{path} can't be written ({error.strerror or error}); {remedy}.")


@contextmanager
def written_whole(path: Path, option: str | None = None) -> Iterator[IO[bytes]]:
    """Open a file that takes its name only when all of it is on disk.

    The bytes go to a temporary file beside it, are synced, and the file is renamed. An error or a kill leaves what was
    there before. The temporary name holds the process's number, so that two writers do not meet in it.

    Args:
        path: of the file; its folder is made.
        option: that named the path, for the error.

    Raises:
        UserError: the folder or the file can't be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error, option) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def writing(path: Path | None, option: str | None = "--out") -> Iterator[TextIO | None]:
    """Open a text file as `written_whole` does; without a path give None.

    What is no text (a lone surrogate) is written as an escape.
    """
    if path is None:
        yield None
        return
    with written_whole(path, option) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="\n")
        yield text
        text.flush()
        text.detach()


def write_text(path: Path, text: str, option: str | None = "--out") -> None:
    """Write a text file whole."""
    with written_whole(path, option) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any, option: str | None = "--out", indent: int | None = 1) -> None:
    """Write one JSON document whole; a number that is not finite is an error of the caller."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n", option)


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]], option: str | None = "--out") -> None:
    """Write JSON lines whole."""
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines), option)


def check_output(
    path: Path | None,
    *reads: Path | None,
    option: str = "--out",
    force: bool | None = None,
    remedy: str | None = None,
) -> None:
    """Refuse, before any work, an output that may not or can't be written.

    Args:
        path: the file to write; None is no output.
        reads: files that the command reads.
        option: that names the output.
        force: the value of `--force`; None where the command has no such option.
        remedy: what to do where the file exists; by default a sentence made of the options.

    Raises:
        UserError: it is read, it exists (without `--force`), or it can't be written.
    """
    if path is None:
        return
    if any(file is not None and _same(path, file) for file in reads):
        raise UserError(f"{option} is {path}, which is read; give another file.")
    if path.is_dir():
        raise UserError(f"{option}: {path} is a folder; give a file name.")
    if path.exists() and not path.is_file():  # a rename would put a file in place of a device
        raise UserError(f"{option}: {path} is no ordinary file; give another file.")
    remedy = remedy or f"give a new file with {option}"
    if path.exists() and not force:
        more = "" if force is None else ", or overwrite it with --force"
        raise UserError(f"{path} exists; {remedy}{more}.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{path} can't be written: {folder} is no folder that you may write to; {remedy}.")


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)  # links included
    except OSError:
        return path.resolve() == other.resolve()


def claim(out: Path, option: str = "--out") -> bool:
    """Make a folder before anything is loaded; return whether it is new.

    Raises:
        UserError: it can't be written.
    """
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise unwritable(out, error, option, "folder") from error
    return new


def unclaim(out: Path, new: bool) -> None:
    """Remove the empty folders of a run that was refused; what was there before stays."""
    for folder in (out / "checkpoints", *((out,) if new else ())):
        with contextlib.suppress(OSError):
            folder.rmdir()


def replace_folder(part: Path, final: Path) -> None:
    """Give a finished folder its name, in place of an older one; its files are synced first.

    A kill in between leaves the old folder or the new one under `final`, or the new one under `part`; never a mixture.
    """
    for path in sorted(part.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for folder in [*(path for path in part.rglob("*") if path.is_dir()), part]:
        _sync_folder(folder)
    shutil.rmtree(final, ignore_errors=True)
    part.replace(final)
    _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    """Put a rename on disk, where the system can sync a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file that grows line by line; a line that a kill tore is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows += [row] if isinstance(row, dict) else []
    return rows


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a JSON object to a file, on a line of its own also after a torn one.

    Raises:
        UserError: the file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps(row) + "\n")
    except OSError as error:
        raise unwritable(path, error) from error
