"""W&B: `run.history()` and `run.scan_history()` dumped as CSV, JSON Lines or Parquet, and a chart's CSV export."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers.formats.rows import read_table
from entropilot.readers.formats.tables import csv_form, read_csv
from entropilot.readers.gather import Gathered
from entropilot.readers.lines import listed, shown
from entropilot.readers.peek import Peek
from entropilot.readers.reader import Log, Reader, Source

_HISTORY = "_step"
# What a chart can have as its x-axis, beside a metric.
_AXES = ("Step", "_step", "Relative Time (Process)", "Relative Time (Wall)", "Wall Time")
_BANDS = ("__MIN", "__MAX")
_BETWEEN = " - "


def _is_history(columns: Iterable[str]) -> bool:
    """Whether the names are those of a run's history, which always has `_step`."""
    return _HISTORY in columns


def _is_chart(header: list[str]) -> bool:
    """Whether a CSV header is that of a chart's export: the x-axis, then `run - metric` and its band, by run."""
    names = set(header)
    banded = [name for name in header if _BETWEEN in name and all(name + band in names for band in _BANDS)]
    others = [name for name in header[1:] if not name.endswith(_BANDS)]
    return bool(banded) or (header[0] in _AXES and bool(others) and all(_BETWEEN in name for name in others))


def read_chart(path: Path, gathered: Gathered, header: list[str], run: str | None) -> str:
    """Gather one run of a chart's export under the metrics' own names; return the run's name.

    A grouped chart names its runs `Group: x`. Minimum and maximum of a band are no metrics.

    Raises:
        UserError: the chart shows several runs, and none or no such was asked for; or its x-axis is time.
    """
    axis, shown_runs = header[0], []
    for name in header[1:]:
        owner, between, _ = name.rpartition(_BETWEEN)
        if between and not name.endswith(_BANDS) and owner not in shown_runs:
            shown_runs.append(owner)
    run = one_of(path, shown_runs, run)

    def rename(name: str) -> str | None:
        if name == axis:
            return name
        owner, _, metric = name.rpartition(_BETWEEN)
        return metric if owner == run and not name.endswith(_BANDS) and metric != axis else None

    read_csv(path, gathered, ",", rename)
    return run


def one_of(path: Path, runs: list[str], asked: str | None) -> str:
    """Return the run that was asked for, or the only one.

    Raises:
        UserError: there are several and none was asked for, or there is no such run.
    """
    if asked is not None:
        if asked in runs:
            return asked
        raise UserError(f"{path} holds no run named {shown(asked)}; it holds {listed(runs)}.")
    if len(runs) != 1:
        raise UserError(
            f"{path} holds {len(runs)} runs: {listed(runs)}; name one of them with --run (run=… in Python)."
        )
    return runs[0]


def _sniff(peek: Peek) -> str | None:
    if peek.kind == "csv" and _is_chart(peek.names):
        return "chart"
    return peek.kind if _is_history(peek.names) else None


def _read(log: Log, gathered: Gathered, run: str | None) -> Source:
    if log.form == "chart":
        form = csv_form(log.path)
        header = form[1] if form else []
        return Source([log.path], read_chart(log.path, gathered, header, run))
    return read_table(log, gathered, run)


READER = Reader(
    "wandb",
    _read,
    sniff=_sniff,
    runs=True,
    steps=(
        ("train/global_step", "eval/global_step"),
        ("_step",),
        ("Step",),
        ("training/global_step",),
        ("trainer/global_step",),
    ),
)
