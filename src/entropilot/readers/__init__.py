"""Other people's logs, and our own, as runs: TRL, verl, TensorBoard, W&B, Trackio, and tables.

    reading = read("outputs/trainer_state.json")
    fit_run(reading.run, reading.entropy, reading.performance)

Neither torch nor a framework is needed, but for TensorBoard's event files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers import build
from entropilot.readers.columns import Column, choose, wanted
from entropilot.readers.detect import FRAMEWORKS, Log, detect
from entropilot.readers.gather import Gathered
from entropilot.readers.lines import shown
from entropilot.readers.own import read_own
from entropilot.readers.table import csv_form, read_csv, read_jsonl, read_parquet
from entropilot.readers.tensorboard import read_events
from entropilot.readers.trackio import read_trackio
from entropilot.readers.trl import read_trl
from entropilot.readers.verl import read_console, read_file_logger
from entropilot.readers.wandb import read_chart
from entropilot.records import SCHEMA, Run

__all__ = ["FRAMEWORKS", "Column", "Reading", "read"]


@dataclass(frozen=True)
class Reading:
    """A log, read.

    Attributes:
        run: its rows, one per step. Entropy and performance stand there under the names of a run as well as under the
            log's own; every other column of numbers under its own.
        framework: whose log it is, one of `FRAMEWORKS`.
        files: what was read.
        columns: which column of the log became `entropy`, `performance` and `step`.
        skipped: how many lines, rows or values were left out, by reason.
        notes: sentences on what was done with the log that its reader should know.
    """

    run: Run
    framework: str
    files: tuple[Path, ...]
    columns: Mapping[str, Column]
    skipped: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def entropy(self) -> str:
        """The name of the entropy in the rows, for `fit_run`."""
        return self.columns["entropy"].name

    @property
    def performance(self) -> str:
        """The name of the performance in the rows, for `fit_run`."""
        return self.columns["performance"].name

    def lines(self) -> list[str]:
        """Return what people should see of how a log was read, a line each."""
        skipped = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        return [
            f"{shown(self.run.path, 200)}: {self.framework}, {len(self.run.rows)} steps",
            *map(str, self.columns.values()),
            *([f"skipped: {skipped}"] if skipped else []),
            *self.notes,
        ]


def read(
    path: str | Path,
    *,
    framework: str | None = None,
    entropy: str | None = None,
    performance: str | None = None,
    step: str | None = None,
    run: str | None = None,
) -> Reading:
    """Read a log, whoever wrote it; what it is is told by its content.

    Args:
        path: a file, or the folder of one run.
        framework: whose log it is, where a folder holds several; one of `FRAMEWORKS`.
        entropy: the column taken as entropy, in the log's own words; by default the framework's.
        performance: the column taken as performance; by default validation, where it was done three times or more,
            else the training reward.
        step: the column of steps.
        run: which run, where a file holds several (Trackio, a chart of W&B).

    Raises:
        UserError: there is no log or no such column, or more than one and none was named.
    """
    path = Path(path)
    log = detect(path, framework)
    if run is not None and log.form not in ("sqlite", "chart"):
        raise UserError(f"{path} holds one run ({log.framework}), so leave out run={shown(run)}.")
    gathered = Gathered(wanted(entropy, performance, step))
    files, name, ours = _gather(log, gathered, run)
    counts = build.count_columns(gathered, path)
    time = build.choose_step(step, counts, log.framework, path)
    h, entropy_note = choose("entropy", entropy, counts, log.framework, path)
    r, performance_note = choose("performance", performance, counts, log.framework, path)
    gathered.notes += [note for note in (entropy_note, performance_note) if note]
    steps = build.by_step(gathered, build.axis_of(time), (h.source, r.source), path)
    interval = build.count_gaps(steps, h.source, gathered)
    if ours is None:
        build.rename(steps, (h, r), gathered)
        build.join(steps, h, r, interval, gathered.notes)
        result = Run(path=path, header={}, rows=list(steps.values()))
    else:
        result = ours
    gathered.notes += build.doubts(steps, h, r, gathered)
    columns = {column.role: column for column in (h, r, time)}
    skipped = {reason: count for reason, count in gathered.skipped.items() if count}
    if ours is None:
        result.header |= _header(name, log, columns, skipped, gathered.notes)
    return Reading(result, log.framework, tuple(files), columns, skipped, tuple(gathered.notes))


def _gather(log: Log, gathered: Gathered, run: str | None) -> tuple[list[Path], str, Run | None]:
    """Gather a log; return the files read, the run's name, and the run itself where it is ours."""
    path, files, name, ours = log.path, [log.path], log.path.stem, None
    match log.framework, log.form:
        case "entropilot", _:
            ours = read_own(path, gathered)
            name = ours.name
        case "trl", _:
            files = read_trl(path, gathered)
            name = (path if path.is_dir() else path.parent).name or path.stem
        case "verl", "jsonl":
            read_file_logger(path, gathered)
        case "verl", _:
            read_console(path, gathered)
        case "tensorboard", _:
            files = log.files
            read_events(files, gathered)
            name = path.name
        case "trackio", _:
            name = read_trackio(path, gathered, run)
        case _, "parquet":
            read_parquet(path, gathered)
        case _, "jsonl":
            read_jsonl(path, gathered)
        case _:
            form = csv_form(path)
            assert form is not None
            if log.form == "chart" and log.framework == "wandb":
                name = read_chart(path, gathered, form[1], run)
            else:
                read_csv(path, gathered, form[0])
    return files, name, ours


def _header(
    name: str, log: Log, columns: Mapping[str, Column], skipped: Mapping[str, int], notes: list[str]
) -> dict[str, object]:
    """Return the header of a run that was read: as of a run of ours, with the source of each name."""
    metrics = {
        column.name: {"unit": column.unit, "definition": column.definition, "source": column.source}
        for column in columns.values()
        if column.role != "step"
    }
    metrics[build.JOINED] = {"unit": "step", "definition": "the step whose entropy this row was given"}
    return {
        "kind": "header",
        "schema": SCHEMA,
        "name": name,
        "framework": log.framework,
        "source": str(log.path),
        "columns": {role: {"name": column.name, "source": column.source} for role, column in columns.items()},
        "metrics": metrics,
        "read": {"skipped": dict(skipped), "notes": list(notes)},
        "versions": {},
        "commit": None,
        "end": None,
    }
