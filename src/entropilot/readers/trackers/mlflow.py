"""MLflow's run folder: `meta.yaml` beside `metrics/`, one file per metric with lines `time value step`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers.gather import TORN, Gathered
from entropilot.readers.lines import lines, open_log
from entropilot.readers.reader import Log, Reader, Source

_MOST_FILES = 10_000


def _sniff_folder(folder: Path, children: Sequence[Path]) -> Iterator[Log]:
    if (folder / "meta.yaml").is_file() and (folder / "metrics").is_dir():
        yield Log("mlflow", "folder", folder)


def read_mlflow(log: Log, gathered: Gathered, run: str | None) -> Source:
    """Gather the metrics of a run's folder; a metric named `actor/entropy` lies in a folder `actor`.

    Raises:
        UserError: there are more files than any run has metrics.
    """
    top, files = log.path / "metrics", []
    for place, _, names in os.walk(top, followlinks=False):
        files += [Path(place) / name for name in sorted(names)]
        if len(files) > _MOST_FILES:
            raise UserError(f"{top} holds more than {_MOST_FILES:,} files; give the folder of one run.")
    rows: dict[float, dict[str, float]] = {}
    for file in sorted(files):
        with open_log(file) as opened:
            for line in lines(opened):
                try:
                    _, value, step = (line or b"").split()
                    number, at = float(value), float(int(step))
                except ValueError:
                    gathered.skipped[TORN] += 1
                    continue
                row = rows.get(at)
                if row is None:
                    row = rows[at] = {"step": at}
                    gathered.add(row)
                gathered.put(row, file.relative_to(top).as_posix(), number)
                gathered.count(1)
    return Source([log.path], log.path.name)


READER = Reader("mlflow", read_mlflow, sniff_folder=_sniff_folder, steps=(("step",),))
