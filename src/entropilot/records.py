"""Read and write a run: a folder with `run.jsonl` (a header, then one row per optimiser step) and sampled tokens.

`run.jsonl` is append-only and flushed per row, so a run that is killed keeps every finished step. Token samples
are Parquet files under `tokens/`. Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from entropilot.errors import UserError
from entropilot.files import unwritable, written_whole
from entropilot.metrics import ACCURACY as ACCURACY
from entropilot.metrics import ENTROPY as ENTROPY
from entropilot.metrics import REWARD as REWARD
from entropilot.ranks import rank

SCHEMA = 1
FILE_NAME = "run.jsonl"
PUT_ASIDE = "run.jsonl.interrupted"  # of a run that began anew, because it had no checkpoint yet
TOKENS_FOLDER = "tokens"
_PACKAGES = (
    "entropilot",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "datasets",
    "peft",
    "numpy",
    "scipy",
    "verl",
)


class RecordWarning(UserWarning):
    """Something in a record was skipped; the message says what and where."""


@dataclass
class Run:
    """Hold one run, read back.

    Attributes:
        path: the run's folder.
        header: schema, versions, commit, resolved recipe, and `metrics`: definition and unit by name.
        rows: one mapping per optimiser step, in order of step; a metric that was not due is absent.
    """

    path: Path
    header: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return the name that people see: the recipe's, else the folder's."""
        return str(self.header.get("name") or self.path.name)

    def column(self, *names: str) -> list[tuple[Any, ...]]:
        """Return the tuples (step, value, …) of the rows in which every one of `names` has a value."""
        if len(names) == 1:  # nearly always, and pages ask for millions of values
            (name,) = names
            return [(row["step"], row[name]) for row in self.rows if row.get(name) is not None]
        return [
            (row["step"], *(row[name] for name in names))
            for row in self.rows
            if all(row.get(name) is not None for name in names)
        ]


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that decide a result, where they are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit_of(folder: Path) -> str | None:
    """Return the git commit of a checkout, with `+dirty` where it has changes; None outside of one."""
    try:
        run = lambda *args: subprocess.run(  # noqa: E731
            ["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        return run("rev-parse", "HEAD") + ("+dirty" if run("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _plain(value: Any) -> Any:
    """Turn a value into strict JSON: non-finite numbers become null, numpy and torch scalars numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, int | str):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


class RunWriter:
    """Write `run.jsonl`: a header, then rows.

    Of several processes only the first writes; in the others a writer does nothing, so a script may make one on every
    rank.

    Args:
        folder: of the run.
        header: what the first line holds beside the versions, the time and the commit.
        resume_step: rows are appended to an earlier run that got that far; None begins a run.

    Raises:
        UserError: the folder holds another run already, or can't be written.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], *, resume_step: int | None = None) -> None:
        self.path = folder / FILE_NAME
        self._file: IO[str] | None = None
        if rank() != 0:
            return
        try:
            exists = self.path.exists() and self.path.stat().st_size > 0
            if exists and resume_step is None:
                raise UserError(
                    f"{folder} already holds a run, which would be overwritten; choose another --out, "
                    "remove the folder, or continue it with --resume."
                )
            folder.mkdir(parents=True, exist_ok=True)
            # A name may hold bytes that are no text; `backslashreplace` writes them as JSON escapes.
            self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise unwritable(folder, error, what="folder") from error
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        if exists:
            # A torn last line of a killed run would otherwise swallow the next row.
            self._file.write("\n")
            self._write({"kind": "resume", "step": resume_step, "time": stamp})
        else:
            self._write(
                {
                    "kind": "header",
                    "schema": SCHEMA,
                    "time": stamp,
                    "versions": package_versions(),
                    "commit": commit_of(Path(__file__).parent),
                    **header,
                }
            )

    def _write(self, row: Mapping[str, Any]) -> None:
        if self._file is None:  # not the first of several processes
            return
        try:
            self._file.write(json.dumps(_plain(row), allow_nan=False, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self.path} can't be written ({error.strerror or error}); the rows before are intact: make room or make "
                "the folder writable, and continue with --resume."
            ) from error

    def row(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one step; the row is on disk when this returns."""
        self._write({"step": step, **values})

    def end(self, reason: str, **values: Any) -> None:
        """Say why the run ended: `finished`, `interrupted`, or what went wrong."""
        self._write({"kind": "end", "reason": reason, **values})

    def sync(self) -> None:
        """Put every row so far on the disk itself, so that a power cut does not take it."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk, which the last row has reported
                self._file.close()


def _parse_lines(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        pending: int | None = None
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            if pending is not None:
                message = f"{path}, line {pending} is not a JSON object and was skipped."
                warnings.warn(message, RecordWarning, stacklevel=3)
                pending = None
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError
            except (ValueError, RecursionError):
                pending = number
                continue
            yield number, row
        if pending is not None:
            message = f"{path}: the last line ({pending}) is torn, as after a kill, and was skipped."
            warnings.warn(message, RecordWarning, stacklevel=3)


def read_run(path: str | Path) -> Run:
    """Read a run folder (or its `run.jsonl`).

    Rows past the checkpoint that a resume began from are left out, and where a step occurs twice the later one
    wins. Torn or foreign lines are skipped with a `RecordWarning`.

    Raises:
        UserError: there is no run, it has no header, or a newer version of entropilot wrote it.
    """
    path = Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"{path} holds no run: {FILE_NAME} is missing; give the folder that `entropilot train` wrote."
        )
    header: dict[str, Any] | None = None
    rows: dict[int, dict[str, Any]] = {}
    ends: list[dict[str, Any]] = []
    for number, row in _parse_lines(file):
        kind = row.get("kind")
        if header is None:
            if kind != "header" or not isinstance(row.get("schema"), int):
                raise UserError(
                    f"{file} does not begin with an entropilot header; it is no run of `entropilot train`."
                )
            if row["schema"] > SCHEMA:
                versions = row.get("versions")
                version = versions.get("entropilot", "?") if isinstance(versions, dict) else "?"
                raise UserError(
                    f"{file} has schema {row['schema']}, written by entropilot {version}; "
                    f"this version reads up to schema {SCHEMA}, so upgrade entropilot."
                )
            header = row
        elif kind == "end":
            ends.append(row)
        elif kind is None and isinstance(row.get("step"), int):
            rows[row["step"]] = row
        elif kind == "resume":
            ends.clear()  # how the earlier session ended says nothing of the one that goes on
            header["resumed"] = True
            if isinstance(row.get("step"), int):  # what it did past the checkpoint is done again
                rows = {step: kept for step, kept in rows.items() if step <= row["step"]}
        else:
            warnings.warn(f"{file}, line {number} has no step and was skipped.", RecordWarning, stacklevel=2)
    if header is None:
        raise UserError(f"{file} is empty; the run ended before its header was written.")
    header["end"] = ends[-1] if ends else None
    return Run(path=file.parent, header=header, rows=[rows[step] for step in sorted(rows)])


def _tokens_file(folder: Path, step: int) -> Path:
    return folder / TOKENS_FOLDER / f"step_{step:06d}.parquet"


def write_tokens(folder: Path, step: int, columns: Mapping[str, Any]) -> Path:
    """Write sampled completions of a step as Parquet: one row per completion, per-token lists in the columns.

    Returns the file, `tokens/step_000010.parquet`; it appears whole or not at all.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = _tokens_file(folder, step)
    with written_whole(target) as file:
        pq.write_table(pa.table(dict(columns)), file)
    return target


def read_tokens(folder: Path, step: int) -> dict[str, Any] | None:
    """Return the columns that `write_tokens` wrote for a step, as arrow arrays by name; None where there is no file."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(_tokens_file(folder, step))
    except FileNotFoundError:
        return None
    return dict(zip(table.column_names, table.columns, strict=True))


def forget_tokens(folder: Path, after: int) -> None:
    """Remove the sampled completions of the steps behind `after`: a resumed run takes them again."""
    for step in token_steps(folder):
        if step > after:
            _tokens_file(folder, step).unlink(missing_ok=True)


def token_steps(folder: Path) -> list[int]:
    """Return the optimiser steps whose sampled completions lie in a run's folder, in order."""
    names = [path.stem.removeprefix("step_") for path in (folder / TOKENS_FOLDER).glob("step_*.parquet")]
    return sorted(int(name) for name in names if name.isdecimal())


def finite_number(value: object) -> float | None:
    """Return a number of a row as float; None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
