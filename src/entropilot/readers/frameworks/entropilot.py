"""Entropilot's own run folders, read by `records`; what it warns of is counted here."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers.gather import FOREIGN, TORN, Gathered
from entropilot.readers.lines import LONGEST, json_rows, lines, open_log
from entropilot.readers.names import ACCURACY, POLICY, REWARD, TRAIN, UNKNOWN
from entropilot.readers.peek import Peek
from entropilot.readers.reader import Log, Reader, Source, known
from entropilot.records import FILE_NAME, PUT_ASIDE, RecordWarning, read_run

_OURS = "as entropilot's probe defines it, see the run's header"
_BY_NAME = (
    "by its name a metric of entropilot, but the log does not define it, so how it was measured is not known"
)


def _is_header(row: dict[str, object] | None) -> bool:
    return row is not None and row.get("kind") == "header" and isinstance(row.get("schema"), float)


def _sniff(peek: Peek) -> str | None:
    if peek.kind not in ("jsonl", "document"):
        return None
    first = next((row for row in json_rows(peek.path) if row is not None), None)
    return "run" if _is_header(first) else None


def _sniff_folder(folder: Path, children: Sequence[Path]) -> Iterator[Log]:
    file = folder / FILE_NAME
    if file in children and file.is_file() and _is_header(next(json_rows(file), None)):
        yield Log("entropilot", "run", file, (file, folder / PUT_ASIDE))


def read_own(log: Log, gathered: Gathered, run: str | None) -> Source:
    """Gather a run folder's file; the run keeps its header, and the columns that `entropilot read` chose for it.

    Raises:
        UserError: it is no run, or a line of it is longer than any row.
    """
    with open_log(log.path) as opened:
        if any(line is None for line in lines(opened)):
            raise UserError(f"{log.path} has a line beyond {LONGEST >> 20} MB; no run of entropilot has one.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RecordWarning)
        result = read_run(log.path)
    for warning in caught:
        if issubclass(warning.category, RecordWarning):
            gathered.skipped[FOREIGN if "no step" in str(warning.message) else TORN] += 1
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    present: set[str] = set()
    for row in result.rows:
        gathered.take(row, null_is_nan=True)
        present |= row.keys()
    chosen = result.header.get("columns")
    columns: dict[str, str] = {}
    for role in ("entropy", "performance"):
        column = chosen.get(role) if isinstance(chosen, dict) else None
        name = column.get("name") if isinstance(column, dict) else None
        if isinstance(name, str) and name in present:
            columns[role] = name
    return Source([log.path], result.name, result, columns)


READER = Reader(
    "entropilot",
    read_own,
    sniff=_sniff,
    sniff_folder=_sniff_folder,
    outranks=True,
    steps=(("step",),),
    columns=(
        *known("entropy", POLICY, "nats", (0, f"(?:train/)?{POLICY}", _BY_NAME)),
        *known("entropy", TRAIN, "nats", (1, f"(?:train/)?{TRAIN}", _BY_NAME)),
        *known("performance", ACCURACY, "share", (0, f"(?:train/|eval/)?{ACCURACY}", _BY_NAME)),
        *known("performance", REWARD, "reward", (2, f"(?:train/)?{REWARD}", UNKNOWN), reward=True),
    ),
    own_columns=(
        *known("entropy", POLICY, "nats", (0, POLICY, _OURS)),
        *known("entropy", TRAIN, "nats", (1, TRAIN, _OURS)),
        *known("performance", ACCURACY, "share", (0, ACCURACY, _OURS)),
        *known("performance", REWARD, "reward", (2, REWARD, _OURS), reward=True),
    ),
)
