"""Read a path as a run: detect the framework, gather its rows, choose columns, and build the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers import build
from entropilot.readers.columns import Catalogue, Column
from entropilot.readers.detect import detect
from entropilot.readers.gather import Gathered
from entropilot.readers.lines import shown
from entropilot.readers.names import REWARD
from entropilot.readers.reader import Log, Reader
from entropilot.records import SCHEMA, Run

NO_ENTROPY = "The log has no entropy; what needs one is left out."


@dataclass(frozen=True)
class Reading:
    """Hold a log, read.

    Attributes:
        run: its rows, one per step. Entropy and performance stand there under the names of a run as well as under the
            log's own; every other column of numbers under its own.
        framework: the name of the reader.
        files: what was read.
        columns: which column of the log became `entropy` (where it has one), `performance` and `step`.
        skipped: how many lines, rows or values were left out, by reason.
        notes: sentences on what was done with the log that its reader should know.
        rewards: the columns of training rewards, the framework's first choice first, by their names in the rows; a
            forecast can fall back on them where validations are too few.
    """

    run: Run
    framework: str
    files: tuple[Path, ...]
    columns: Mapping[str, Column]
    skipped: Mapping[str, int]
    notes: tuple[str, ...]
    rewards: tuple[str, ...] = ()

    @property
    def has_entropy(self) -> bool:
        """Whether an entropy was logged; only a reading that allows it lacks one."""
        return "entropy" in self.columns

    @property
    def entropy(self) -> str:
        """Return the name of the entropy in the rows, for `fit_run`."""
        return self.columns["entropy"].name

    @property
    def performance(self) -> str:
        """Return the name of the performance in the rows, for `fit_run`."""
        return self.columns["performance"].name

    @property
    def training_reward(self) -> str:
        """Return the training reward's name in the rows, for `forecast_run`; a run's own where the log has none."""
        return self.rewards[0] if self.rewards else REWARD

    def lines(self) -> list[str]:
        """Return what people should see of how a log was read, a line each."""
        skipped = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        return [
            f"{shown(self.run.path, 200)}: {self.framework}, {len(self.run.rows)} steps",
            *map(str, self.columns.values()),
            *([f"skipped: {skipped}"] if skipped else []),
            *self.notes,
        ]


def read_with(
    readers: Sequence[Reader],
    path: Path,
    framework: str | None,
    asked: Mapping[str, str | None],
    run: str | None,
    need_entropy: bool = True,
) -> Reading:
    """Read a log by one of the given readers; `read` says what the arguments are."""
    named = {name for name in asked.values() if name is not None}
    log = detect(path, framework, readers, named)
    reader = next(reader for reader in readers if reader.name == log.framework)
    if run is not None and not (reader.runs and log.form in ("sqlite", "chart")):
        raise UserError(
            f"{path} holds one run ({log.framework}), so leave out --run (run={shown(run)} in Python)."
        )
    catalogue = Catalogue(readers, log.framework)
    gathered = Gathered(
        lambda column: column in named or column in catalogue.step_names or catalogue.is_known(column),
        catalogue.step_names | ({asked["step"]} if asked["step"] else set()),
    )
    assert reader.read is not None  # `detect` returns no other
    source = reader.read(log, gathered, run)
    counts = build.count_columns(gathered, path)
    time, axis = build.choose_step(asked["step"], counts, catalogue.axes, path)
    asked_h = asked["entropy"] or source.columns.get("entropy")
    h, notes_h = None, [NO_ENTROPY]
    if need_entropy or asked["entropy"] or any(catalogue.known(name, "entropy") for name in counts):
        h, notes_h = catalogue.choose("entropy", asked_h, counts, path)
    r, notes_r = catalogue.choose(
        "performance", asked["performance"] or source.columns.get("performance"), counts, path
    )
    gathered.notes += [*notes_h, *notes_r]
    chosen = (r,) if h is None else (h, r)
    steps = build.by_step(gathered, axis, [name for column in chosen for name in column.sources], path)
    build.average(steps, r, gathered.notes)
    interval = 1 if h is None else build.count_gaps(steps, h.source, gathered)
    if source.run is None:
        build.rename(steps, chosen, gathered)
        build.as_share(steps, r, gathered.notes)
        if h is not None:
            build.join(steps, h, r, interval, gathered.notes)
        result = Run(path=path, header={}, rows=list(steps.values()))
    else:
        result = source.run
    gathered.notes += build.doubts(steps, chosen, r, gathered)
    columns = {column.role: column for column in (*chosen, time)}
    skipped = {reason: count for reason, count in gathered.skipped.items() if count}
    if source.run is None:
        result.header |= _header(source.name, log, columns, skipped, gathered.notes)
    rewards = catalogue.rewards(counts, r)
    return Reading(
        result, log.framework, tuple(source.files), columns, skipped, tuple(gathered.notes), rewards
    )


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
