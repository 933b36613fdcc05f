"""Whose log lies at a path, told by its content; two answers are an error that names them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers import own, tensorboard, trackio, trl, verl, wandb
from entropilot.readers.columns import STEPS
from entropilot.readers.lines import BOM, json_rows, lines, listed, open_log, parse_object
from entropilot.readers.table import csv_form, parquet_columns

FRAMEWORKS = ("entropilot", "trl", "verl", "tensorboard", "wandb", "trackio", "table")
_HEAD = 1 << 16
_SAMPLE = 50  # lines of JSON
_MOST_FILES = 10_000
_DEEP = 64 << 20  # bytes of a text in a folder in which to look for verl's first metrics
_PARQUET = b"PAR1"
_JSON_FORMS = {"entropilot": "run", "verl": "jsonl", "wandb": "jsonl", "table": "jsonl"}


@dataclass(frozen=True)
class Log:
    """A log: who wrote it, in which form, and where it lies."""

    framework: str
    form: str
    path: Path
    files: list[Path] = field(default_factory=list)

    def label(self, place: Path) -> str:
        """Return how it is named among several at a place: `train.log (verl)`, or by the framework alone."""
        return f"{self.path.relative_to(place)} ({self.framework})" if place.is_dir() else self.framework


def detect(path: Path, framework: str | None) -> Log:
    """Return the one log at a path, a file or a folder.

    Args:
        path: where to look.
        framework: whose log to expect; of several logs in a folder, the one of this framework is taken.

    Raises:
        UserError: there is none, or there are several.
    """
    if framework is not None and framework not in FRAMEWORKS:
        raise UserError(f"There is no reader for {framework}; choose one of {', '.join(FRAMEWORKS)}.")
    try:
        found = list(_in_folder(path)) if path.is_dir() else list(_forms(path))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}).") from error
    # A run folder of ours holds the trainer's checkpoints, too.
    ours = [log for log in found if log.framework == "entropilot"]
    fitting = [log for log in found if log.framework == framework] if framework else ours or found
    if framework == "table" and not fitting and not path.is_dir():  # anything with rows is a table as well
        fitting = [Log("table", log.form, path) for log in found if log.form in ("jsonl", "csv", "parquet")]
    if len(fitting) == 1:
        return fitting[0]
    if not found:
        raise UserError(
            f"{path} holds no log that can be read: no run of entropilot, no {trl.STATE}, no metrics of verl, "
            "no TensorBoard events, no W&B history, no Trackio file and no table."
        )
    names = sorted(log.label(path) for log in fitting or found)
    if not fitting:
        raise UserError(f"{path} holds no log of {framework}, but {listed(names)}.")
    if not path.is_dir():
        raise UserError(
            f"{path} can be read in {len(names)} ways: {listed(names)}; choose one with framework=…."
        )
    ways = "framework=…, or give its path" if len({log.framework for log in fitting}) > 1 else "its path"
    raise UserError(f"{path} holds {len(names)} logs: {listed(names)}; choose one with {ways}.")


def _in_folder(folder: Path) -> Iterator[Log]:
    """Yield the logs of a folder; only where there is none, the events in the folders within."""
    children = sorted(islice(folder.iterdir(), _MOST_FILES + 1))
    if len(children) > _MOST_FILES:
        raise UserError(f"{folder} holds more than {_MOST_FILES:,} files; give the folder of one run.")
    logs = []
    if trl.state_files(folder) or trl.completion_files(folder):
        logs.append(Log("trl", "state", folder))
    events = _events(folder, children)
    logs += [Log("tensorboard", "events", folder, events)] if events else []
    for child in children:
        if child.is_file() and child not in events and child.name != trl.STATE:
            logs += _beside(child)
    yield from logs or _nested(folder)


def _beside(path: Path) -> list[Log]:
    """Return what a file of a folder can be read as; not a file that is broken, or a table without steps.

    A folder holds vocabularies, configurations and results, which are tables of a kind.
    """
    try:
        logs = list(_forms(path, _DEEP))
        return [log for log in logs if log.framework != "table" or _has_steps(log)]
    except UserError:
        return []


def _has_steps(log: Log) -> bool:
    if log.form == "parquet":
        names = parquet_columns(log.path)
    elif log.form == "csv":
        form = csv_form(log.path)
        names = form[1] if form else []
    else:
        names = [name for row in islice(json_rows(log.path), _SAMPLE) for name in row or ()]
    return any(step in names for steps in STEPS["table"] for step in steps)


def _nested(folder: Path) -> Iterator[Log]:
    """Yield the folders within that hold events, as TRL's `runs/…` does; links are not followed."""
    seen = 0
    for place, _, names in os.walk(folder, followlinks=False):
        seen += len(names) + 1
        if seen > _MOST_FILES:
            return
        if events := _events(Path(place), [Path(place) / name for name in sorted(names)]):
            yield Log("tensorboard", "events", Path(place), events)


def _events(folder: Path, children: list[Path]) -> list[Path]:
    """Return the event files of a folder; their names hold the time, and so sort by it."""
    named = [child for child in children if ".tfevents." in child.name and child.is_file()]
    return [child for child in named if tensorboard.is_events(_head(child, 12))]


def _head(path: Path, size: int = _HEAD) -> bytes:
    with open_log(path) as file:
        return file.read(size)


def _forms(path: Path, deep: int | None = None) -> Iterator[Log]:
    """Yield what a file can be read as: nothing, one log, or several where its lines have several forms."""
    head = _head(path)
    if head.startswith(trackio.MAGIC):
        if trackio.is_trackio(path):
            yield Log("trackio", "sqlite", path)
    elif head.startswith(_PARQUET):
        yield Log("wandb" if wandb.is_history(parquet_columns(path)) else "table", "parquet", path)
    elif tensorboard.is_events(head):
        yield Log("tensorboard", "events", path, [path])
    elif head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path} is UTF-16, as PowerShell writes it; convert it to UTF-8.")
    elif head.startswith(b"\x1f\x8b"):
        raise UserError(f"{path} is packed with gzip; unpack it.")
    elif head.removeprefix(BOM).lstrip().startswith(b"{"):
        yield from _json_forms(path)
    else:
        form = None if b"\0" in head else csv_form(path)
        if form is not None:
            header = form[1]
            if wandb.is_chart(header):
                yield Log("wandb", "chart", path)
            elif wandb.is_history(header):
                yield Log("wandb", "csv", path)
            else:
                yield Log("table", "csv", path)
        elif verl.has_metrics(path, deep):
            yield Log("verl", "console", path)


def _json_forms(path: Path) -> Iterator[Log]:
    forms: dict[str, None] = {}
    with open_log(path) as file:
        for line in islice(lines(file), _SAMPLE):
            row = parse_object(line)
            if row is None:
                continue
            if not forms and own.is_header(row):
                forms = {"entropilot": None}
                break
            if "log_history" in row:
                forms["trl"] = None
            elif verl.is_row(row):
                forms["verl"] = None
            else:
                forms["wandb" if wandb.is_history(row) else "table"] = None
    if not forms and b'"log_history"' in _head(path, 1 << 20):
        forms["trl"] = None
    if not forms and verl.has_metrics(path, _DEEP):  # a console that begins with a printed configuration
        yield Log("verl", "console", path)
    for framework in forms:
        yield Log(framework, _JSON_FORMS.get(framework, "state"), path)
