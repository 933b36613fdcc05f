"""Read logs of other frameworks, and our own, as runs.

    reading = read("outputs/trainer_state.json")
    fit_run(reading.run, reading.entropy, reading.performance)

Neither torch nor a framework is needed, but for TensorBoard's event files.
"""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from entropilot.readers.frameworks import by_name, entropilot, openrlhf, slime, table, trl, verl
from entropilot.readers.reader import GROUP, Known, Log, Reader, Source
from entropilot.readers.reading import Reading, read_with
from entropilot.readers.trackers import mlflow, tensorboard, trackio, wandb, wandb_file

__all__ = ["READERS", "Known", "Log", "Reader", "Reading", "Source", "all_readers", "read"]

# A fallback reads what no reader before it recognises.
READERS: tuple[Reader, ...] = (
    entropilot.READER,
    trl.READER,
    verl.READER,
    openrlhf.READER,
    slime.READER,
    tensorboard.READER,
    wandb.READER,
    wandb_file.READER,
    trackio.READER,
    mlflow.READER,
    *by_name.BY_NAME,
    table.READER,
    table.CONSOLE,
)


@lru_cache(maxsize=8)
def _named_elsewhere(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the readers that installed packages name, once per search path: looking for them takes 10 ms or more."""
    return tuple(entry_points(group=GROUP))


def all_readers() -> tuple[Reader, ...]:
    """Return the readers of this package, and those that other packages name in the group `entropilot.readers`.

    One that cannot be loaded is left out with a warning.
    """
    theirs: list[Reader] = []
    names = {reader.name for reader in READERS}
    for entry in _named_elsewhere(tuple(sys.path)):
        try:
            reader = entry.load()
        except Exception as error:  # code of another package, which must not stop the reading of every log
            warnings.warn(f"The reader {entry.name} ({entry.value}) can't be loaded: {error}", stacklevel=2)
            continue
        if not isinstance(reader, Reader) or reader.name in names:
            what = (
                "has a name that is taken"
                if isinstance(reader, Reader)
                else "is no entropilot.readers.Reader"
            )
            warnings.warn(f"The reader {entry.name} ({entry.value}) {what} and is left out.", stacklevel=2)
            continue
        names.add(reader.name)
        theirs.append(reader)
    return (*theirs, *READERS)


def read(
    path: str | Path,
    *,
    framework: str | None = None,
    entropy: str | None = None,
    performance: str | None = None,
    step: str | None = None,
    run: str | None = None,
    need_entropy: bool = True,
) -> Reading:
    """Read a log; its format is detected from its content.

    Args:
        path: a file, or the folder of one run.
        framework: whose log it is, where a folder holds several; the name of a reader.
        entropy: the column taken as entropy, in the log's own words; by default the framework's.
        performance: the column taken as performance; by default validation, where it was done three times or more,
            else the training reward. Several validation sets are averaged.
        step: the column of steps.
        run: which run, where a file holds several (Trackio, a chart of W&B).
        need_entropy: whether a log without an entropy is refused; if not, `Reading.has_entropy` says whether it has one.

    Raises:
        UserError: there is no log or no such column, or more than one and none was named.
    """
    columns = {"entropy": entropy, "performance": performance, "step": step}
    return read_with(all_readers(), Path(path), framework, columns, run, need_entropy)
