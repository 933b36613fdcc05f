"""Detect which reader a log is for, by its content. Ambiguity is an error that lists the candidates."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers.columns import Catalogue, option
from entropilot.readers.lines import listed
from entropilot.readers.peek import Peek
from entropilot.readers.reader import Log, Reader
from entropilot.records import FILE_NAME

_MOST_FILES = 10_000
_DEEP = 64 << 20  # bytes of a console in a folder in which to look for its first metrics
_CHOOSE = "choose one with --framework (framework=… in Python)"
_REFUSED = {
    "empty": "{} is empty, so there is nothing to read; give a log that holds steps.",
    "utf-16": "{} is UTF-16, as PowerShell writes it; convert it to UTF-8.",
    "gzip": "{} is packed with gzip; unpack it.",
    "binary": (
        "{} is a binary file that no reader knows, so it is not searched for text; give the log itself, or export the "
        "run's history as CSV."
    ),
}


def detect(path: Path, framework: str | None, readers: Sequence[Reader], named: Collection[str] = ()) -> Log:
    """Return the one log at a path, a file or a folder.

    Args:
        path: where to look.
        framework: whose log to expect; of several logs in a folder, the one of this framework is taken.
        readers: those to ask.
        named: the columns that the user named; they count as known.

    Raises:
        UserError: there is none, or there are several.
    """
    names = [reader.name for reader in readers if reader.read is not None]
    if framework is not None and framework not in names:
        raise UserError(f"There is no reader for {framework}; choose one of {', '.join(names)}.")
    catalogue = Catalogue(readers)

    def is_known(column: str) -> bool:
        return column in named or catalogue.is_known(column)

    try:
        logs = (
            list(_in_folder(path, readers, catalogue))
            if path.is_dir()
            else _in_file(Peek(path, is_known), readers, framework)
        )
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}).") from error
    outranking = {reader.name for reader in readers if reader.outranks}
    first = [log for log in logs if log.framework in outranking]
    fitting = [log for log in logs if log.framework == framework] if framework else first or logs
    if len(fitting) == 1:
        return fitting[0]
    if not logs:
        raise UserError(_nothing(path, names, catalogue))
    labels = sorted(log.label(path) for log in fitting or logs)
    if not fitting:
        raise UserError(f"{path} holds no log of {framework}, but {listed(labels)}.")
    if not path.is_dir():
        raise UserError(f"{path} can be read in {len(labels)} ways: {listed(labels)}; {_CHOOSE}.")
    ways = (
        f"{_CHOOSE}, or give its path"
        if len({log.framework for log in fitting}) > 1
        else "give the path of one"
    )
    raise UserError(f"{path} holds {len(labels)} logs: {listed(labels)}; {ways}.")


def _nothing(path: Path, names: list[str], catalogue: Catalogue) -> str:
    """Return the error of a path without a log."""
    if not path.is_dir():
        peek = Peek(path, catalogue.is_known)
        if peek.kind in _REFUSED:
            return _REFUSED[peek.kind].format(path)
        header = peek.head.decode("utf-8", "replace").strip()
        table = not header.startswith(("{", "[")) and any(mark in header for mark in ",\t;")
        if peek.kind == "text" and "\n" not in header and table:
            return f"{path} has one line, perhaps the header of a table, and no rows; give a log that holds steps."
        columns = list(dict.fromkeys(name for row in peek.first_printed for name in row))
        if columns and not header.startswith(('{"', "[")):  # a JSON document that is torn
            return (
                f"{path} prints dicts, but of their columns none is known as an entropy or a performance: "
                f"{listed(columns, 20)}; name them with {option('entropy')} and {option('performance')}."
            )
    elif runs := sorted(name for name in os.listdir(path) if os.path.isfile(path / name / FILE_NAME)):
        return (
            f"{path} holds no log itself, but its folders hold runs: {listed(runs, 5)}; give the path of one."
        )
    return (
        f"{path} holds no log that can be read: neither a table with a column of steps, nor metrics of "
        f"{', '.join(names)}; the page 'Read the log of any framework' of the documentation lists what is read."
    )


def _in_file(
    peek: Peek, readers: Sequence[Reader], framework: str | None = None, fallbacks: bool = True
) -> list[Log]:
    """Return what a file can be read as; by the fallbacks only where no other reader recognises it, or one is asked for."""
    if peek.kind in ("empty", "utf-16", "gzip"):
        return []
    logs: list[Log] = []
    for reader in readers:
        skip = reader.fallback and (not fallbacks or (logs and reader.name != framework))
        if reader.read is not None and not skip and (form := reader.sniff(peek)) is not None:
            logs.append(Log(reader.name, form, peek.path))
    return logs


def _in_folder(folder: Path, readers: Sequence[Reader], catalogue: Catalogue) -> Iterator[Log]:
    """Yield the logs of a folder; only where there is none, those in the folders within."""
    children = sorted(islice(folder.iterdir(), _MOST_FILES + 1))
    if len(children) > _MOST_FILES:
        raise UserError(f"{folder} holds more than {_MOST_FILES:,} files; give the folder of one run.")
    logs = [log for reader in readers if reader.sniff_folder for log in reader.sniff_folder(folder, children)]
    taken = {file for log in logs for file in log.files}
    for child in children:
        if child.is_file() and child not in taken:
            logs += _beside(child, readers, catalogue)
    yield from logs or _nested(folder, readers)


def _beside(path: Path, readers: Sequence[Reader], catalogue: Catalogue) -> list[Log]:
    """Return what a file of a folder can be read as; not a file that is broken, or a table without steps.

    A folder holds vocabularies, configurations and results, which are tables of a kind.
    """
    try:
        peek = Peek(path, catalogue.is_known, _DEEP)
        has_steps = not catalogue.step_names.isdisjoint(peek.names) or bool(peek.printed)
        return _in_file(peek, readers, fallbacks=has_steps)
    except UserError:
        return []


def _nested(folder: Path, readers: Sequence[Reader]) -> Iterator[Log]:
    """Yield the logs in the folders within, such as TRL's `runs/…`; links are not followed."""
    files = 0
    for place, _, names in os.walk(folder, followlinks=False):
        files += len(names) + 1
        if files > _MOST_FILES:
            return
        children = [Path(place) / name for name in sorted(names)]
        for reader in readers:
            if reader.nested and reader.sniff_folder and Path(place) != folder:
                yield from reader.sniff_folder(Path(place), children)
