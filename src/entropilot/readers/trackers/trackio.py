"""Trackio's SQLite file, one per project; opened read-only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers.gather import TORN, Gathered
from entropilot.readers.lines import LONGEST, parse_object, shown
from entropilot.readers.peek import Peek
from entropilot.readers.reader import Log, Reader, Source
from entropilot.readers.trackers.wandb import one_of


@contextmanager
def _opened(path: Path, notes: list[str] | None = None) -> Iterator[sqlite3.Connection]:
    """Open a database for reading; where that can't be (its folder is not to be written), as the file lies there."""
    try:
        try:
            database = _connected(path, "mode=ro")
        except sqlite3.OperationalError:
            database = _connected(path, "mode=ro&immutable=1")
            if notes is not None and path.with_name(path.name + "-wal").exists():
                notes.append(f"What {path.name}-wal holds, the latest rows perhaps, could not be read.")
        with closing(database):
            yield database
    except sqlite3.Error as error:
        raise UserError(f"{path} can't be read as SQLite ({shown(error)}).") from error


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    database = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)
    try:
        database.text_factory = bytes
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("SELECT count(*) FROM sqlite_master")  # only now is the file read
    except sqlite3.Error:
        database.close()
        raise
    return database


def _columns(database: sqlite3.Connection) -> set[str]:
    """Return the columns of the table `metrics`; none where it is a view, which could run anything."""
    kinds = database.execute("SELECT type FROM sqlite_master WHERE name = 'metrics'").fetchall()
    if kinds != [(b"table",)]:
        return set()
    return {row[1].decode("utf-8", "replace") for row in database.execute("PRAGMA table_info(metrics)")}


def _is_trackio(path: Path) -> bool:
    """Whether a SQLite file has Trackio's table of metrics."""
    try:
        with _opened(path) as database:
            return {"run_name", "step", "metrics"} <= _columns(database)
    except UserError:
        return False


def read_trackio(log: Log, gathered: Gathered, run: str | None) -> Source:
    """Gather one run of a project. A run is named by `run_name`, or by its id where names repeat.

    Raises:
        UserError: it is no Trackio file, or holds several runs and none or no such was asked for.
    """
    path = log.path
    with _opened(path, gathered.notes) as database:
        columns = _columns(database)
        if not {"run_name", "step", "metrics"} <= columns:
            raise UserError(f"{path} is a SQLite file, but not Trackio's: it has no table of metrics.")
        owner = "run_id" if "run_id" in columns else "run_name"
        found = database.execute(f"SELECT DISTINCT {owner}, run_name FROM metrics ORDER BY rowid").fetchall()
        names = [_text(name) for _, name in found]
        runs = {
            name if names.count(name) == 1 else _text(key): key
            for (key, _), name in zip(found, names, strict=True)
        }
        label = one_of(path, list(runs), run)
        rows = database.execute(
            f"SELECT step, metrics FROM metrics WHERE {owner} = CAST(? AS TEXT) ORDER BY rowid",
            (runs[label],),
        )
        for step, metrics in rows:
            row = parse_object(metrics) if isinstance(metrics, bytes) else None
            if row is None:
                gathered.skipped[TORN] += 1
            else:
                gathered.take(row | {"step": step})
    return Source([path], label)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _sniff(peek: Peek) -> str | None:
    return "sqlite" if peek.kind == "sqlite" and _is_trackio(peek.path) else None


READER = Reader(
    "trackio",
    read_trackio,
    sniff=_sniff,
    runs=True,
    steps=(("train/global_step", "eval/global_step"), ("step",)),
)
