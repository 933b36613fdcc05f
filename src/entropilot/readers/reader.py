"""Define a reader: how it recognises a log, reads it, and what the columns of its framework mean.

To add one, write a file with a `READER` and list it in `READERS` of `readers/__init__.py`; or, from another package,
name it in the entry-point group `entropilot.readers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from entropilot.readers.gather import Gathered
from entropilot.readers.peek import Peek
from entropilot.records import Run

GROUP = "entropilot.readers"


@dataclass(frozen=True)
class Known:
    """Describe a column that some framework writes.

    Attributes:
        role: `entropy` or `performance`.
        tier: the columns of the lowest tier that a log has are its default.
        pattern: its name; a group named `set` in it is the validation set, over which is averaged.
        loose: the same with every `/` also as `_` or `.`, as exports write it, and in any case.
        name: what it is called in the rows; empty: as in the log.
        unit: of its values.
        definition: what it measures, in the framework's terms.
        reward: whether it is the training reward, which every rollout has.
    """

    role: str
    tier: int
    pattern: re.Pattern[str]
    loose: re.Pattern[str]
    name: str
    unit: str
    definition: str
    reward: bool = False


def known(
    role: str, name: str, unit: str, *rows: tuple[int, str, str], reward: bool = False
) -> tuple[Known, ...]:
    """Return one `Known` per row (tier, pattern, definition).

    A pattern has at most one unbounded repetition, so that no name makes it slow, and no `/` in a character class.
    """
    return tuple(
        Known(
            role,
            tier,
            re.compile(pattern),
            re.compile(pattern.replace("/", "[/_.]"), re.IGNORECASE),
            name,
            unit,
            text,
            reward,
        )
        for tier, pattern, text in rows
    )


@dataclass(frozen=True)
class Log:
    """Name a log: who wrote it, in which form, and where it lies.

    Attributes:
        framework: the reader's name.
        form: what the reader's `sniff` returned.
        path: the file or folder.
        files: the files of a folder that belong to it.
    """

    framework: str
    form: str
    path: Path
    files: Sequence[Path] = ()

    def label(self, place: Path) -> str:
        """Return how it is named among several at a place: `train.log (verl)`, or by the framework alone."""
        return f"{self.path.relative_to(place)} ({self.framework})" if place.is_dir() else self.framework


@dataclass(frozen=True)
class Source:
    """Say what a reader read.

    Attributes:
        files: the files read.
        name: the run's name.
        run: the run itself, where the log holds one of entropilot's; its rows and header are kept as they are.
        columns: by role, the column to take where the user names none.
    """

    files: Sequence[Path]
    name: str
    run: Run | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


def never(peek: Peek) -> str | None:
    """Recognise no file."""
    return None


@dataclass(frozen=True)
class Reader:
    """Read the logs of one framework, tracker or form.

    Attributes:
        name: what `--framework` calls it.
        read: adds the rows of a log to `Gathered`; its third argument is the run that the user named, where a file
            holds several. None for a framework that is read in other forms only (a W&B export, a table) and gives
            the meaning of its columns.
        sniff: returns the form of a file that this reader reads, or None. It looks at the content, not at the name.
        sniff_folder: yields the logs that a folder holds as a whole, from the folder and its files.
        nested: whether `sniff_folder` is also tried in the folders below one that holds no log itself.
        fallback: whether it reads only what no other reader recognises.
        outranks: whether its log is taken where a folder holds other logs as well.
        runs: whether one file can hold several runs, so that `--run` means something.
        steps: columns of steps, the best first; the columns of one inner tuple are one axis.
        columns: the columns that it knows, in any log.
        own_columns: the columns that it knows only in its own logs.
        log_entropy: how to have the framework log entropy, as a clause: "TRL 0.20 or later logs `entropy`".
    """

    name: str
    read: Callable[[Log, Gathered, str | None], Source] | None = None
    sniff: Callable[[Peek], str | None] = never
    sniff_folder: Callable[[Path, Sequence[Path]], Iterable[Log]] | None = None
    nested: bool = False
    fallback: bool = False
    outranks: bool = False
    runs: bool = False
    steps: tuple[tuple[str, ...], ...] = ()
    columns: tuple[Known, ...] = ()
    own_columns: tuple[Known, ...] = ()
    log_entropy: str = ""
