"""Our own run folders, read by `records`; what it warns of is counted here."""

from __future__ import annotations

import warnings
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers.gather import FOREIGN, TORN, Gathered
from entropilot.readers.lines import LONGEST, lines, open_log
from entropilot.records import FILE_NAME, RecordWarning, Run, read_run


def is_header(row: dict[str, object]) -> bool:
    """Whether a JSON object is the header of a run of `entropilot train`."""
    return row.get("kind") == "header" and isinstance(row.get("schema"), float)


def read_own(path: Path, gathered: Gathered) -> Run:
    """Gather a run folder or its file; return the run, whose header is kept.

    Raises:
        UserError: it is no run, or a line of it is longer than any row.
    """
    file = path / FILE_NAME if path.is_dir() else path
    with open_log(file) as opened:
        if any(line is None for line in lines(opened)):
            raise UserError(f"{file} has a line beyond {LONGEST >> 20} MB; no run of entropilot has one.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RecordWarning)
        run = read_run(file)
    for warning in caught:
        if issubclass(warning.category, RecordWarning):
            gathered.skipped[FOREIGN if "no step" in str(warning.message) else TORN] += 1
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    for row in run.rows:
        gathered.take(row, null_is_nan=True)
    return run
