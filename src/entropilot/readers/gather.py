"""Gather what a log holds, row by row, before anyone has chosen columns; bounded in memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

from entropilot.errors import UserError

MANY_VALUES = 1_500_000  # about 80 MB; a run of 18,000 steps with 80 metrics
MOST_VALUES = 3_000_000
MOST_COLUMNS = 20_000
LONGEST_NAME = 512

TORN = "torn lines"
NOT_FINITE = "values NaN or ±inf"
NO_NUMBER = "values that are no number"
NO_STEP = "rows without a step"
FOREIGN = "lines of another form"
GAPS = "missing steps"
COLUMNS = "values of columns beyond the first 20,000, or with a name beyond 512 characters"

INF = float("inf")
_DEEPEST = 8  # objects within objects
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_OF_MANY = re.compile(r"(\d{1,15})/\d{1,15}", re.ASCII)
_EMPTY = 4  # an empty mapping takes the room of four values
_WORDS = frozenset({"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})


class Gathered:
    """Hold the rows of a log as mappings from column to finite number, in the order of the file.

    Attributes:
        rows: one mapping per row that holds any number.
        skipped: how many lines, rows or values were left out, by reason.
        unusable: by column, how many values are NaN or ±inf.
        names: the column of each name as it stands in the log; None where it is not kept.
        thinned: whether columns that nobody chooses by default were dropped, because the log holds too many values.
    """

    def __init__(self, wanted: Callable[[str], bool], steps: Collection[str] = ("step",)) -> None:
        """Start with nothing.

        Args:
            wanted: tells the columns that are kept whatever the size of the log.
            steps: the columns that may hold steps.
        """
        self.steps = frozenset(steps)
        self.rows: list[dict[str, float]] = []
        self.skipped: Counter[str] = Counter()
        self.unusable: Counter[str] = Counter()
        self.names: dict[bytes | str, str | None] = {}
        self.notes: list[str] = []
        self.thinned = False
        self.wanted = wanted
        self._columns: set[str] = set()
        self._values, self._bound = 0, MANY_VALUES

    def name(self, raw: bytes | str) -> str | None:
        """Return the one copy of a column's name; None where the column is not kept."""
        if raw in self.names:
            return self.names[raw]
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        column: str | None = text.strip()
        full = len(self._columns) >= MOST_COLUMNS and column not in self._columns
        if not column or len(text) > LONGEST_NAME or full or (self.thinned and not self.wanted(column)):
            column = None
        else:
            self._columns.add(column)
        if len(self.names) < 2 * MOST_COLUMNS and len(raw) <= LONGEST_NAME:
            self.names[raw] = column
        return column

    def add(self, row: dict[str, float]) -> None:
        """Keep a row of finite numbers under names that `name` gave.

        Raises:
            UserError: the log holds more rows than any run has.
        """
        self.rows.append(row)
        self._values += len(row) + _EMPTY
        if self._values > self._bound:
            self._too_many()

    def count(self, values: int) -> None:
        """Count values that were put into rows kept already."""
        self._values += values
        if self._values > self._bound:
            self._too_many()

    def take(self, cells: Mapping[str, Any], *, null_is_nan: bool = False) -> None:
        """Keep the numbers among the cells of a row; what is neither number nor NaN is passed over.

        Args:
            cells: what a JSON object holds.
            null_is_nan: whether the log writes NaN and ±inf as null.
        """
        row: dict[str, float] = {}
        self.put_all(row, cells, null_is_nan=null_is_nan)
        self.add(row)

    def put_all(
        self,
        row: dict[str, float],
        cells: Mapping[str, Any],
        *,
        null_is_nan: bool = False,
        prefix: str = "",
        depth: int = 0,
    ) -> None:
        """Set the columns of a row; an object within gives one column per value: `{"actor": {"lr": 1}}` → `actor/lr`."""
        names = self.names
        for raw, value in cells.items():
            if (
                not prefix and value.__class__ is float and -INF < value < INF and raw in names
            ):  # nearly every cell
                name = names[raw]
                if name is not None:
                    row[name] = value
                    continue
                if self.thinned:
                    continue
            key = prefix + raw
            if value.__class__ is dict:
                if depth < _DEEPEST and "_type" not in value:  # W&B's histograms and tables have a `_type`
                    self.put_all(row, value, null_is_nan=null_is_nan, prefix=key + "/", depth=depth + 1)
                continue
            number = INF if value is None and null_is_nan else number_of(value, key)
            if number is not None:
                self.put(row, key, number)

    def put(self, row: dict[str, float], raw: bytes | str, number: float) -> None:
        """Set a column of a row to a number, or count it where it is not finite."""
        name = self.name(raw)
        if name is None:
            if not raw.strip():
                self.skipped[NO_NUMBER] += 1
            elif not self.thinned:
                self.skipped[COLUMNS] += 1
        elif -INF < number < INF:
            row[name] = number
        else:
            self.skipped[NOT_FINITE] += 1
            self.unusable[name] += 1

    def columns(self) -> list[str]:
        """Return the columns that hold a number anywhere, in the order of the file."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def _too_many(self) -> None:
        """Thin the rows once; refuse the log where there are too many values after that.

        Raises:
            UserError: the log holds more rows than any run has.
        """
        if not self.thinned:
            self._thin()
            self._bound = MOST_VALUES
        if self._values > self._bound:
            raise UserError(
                f"The log holds more than {len(self.rows):,} rows, too many for one run; cut it, or thin it out."
            )

    def _thin(self) -> None:
        """Drop the columns that are not wanted, from here back and from here on."""
        self.thinned = True
        self._columns = {name for name in self._columns if self.wanted(name)}
        for raw, name in self.names.items():
            if name not in self._columns:
                self.names[raw] = None
        self._values = 0
        for row in self.rows:
            kept = {name: value for name, value in row.items() if name in self._columns}
            row.clear()
            row.update(kept)
            self._values += len(row) + _EMPTY


def number_of(value: Any, key: str = "") -> float | None:
    """Return a number, infinity for what stands for NaN or ±inf, and None for what is no number.

    Args:
        value: also text that is a number, as transformers 5 prints it; "3.1%" is 0.031.
        key: the column; where it counts steps, `"5/60"` is step 5.
    """
    if isinstance(value, float | int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return INF
    if not isinstance(value, str) or len(value) > 40:
        return None
    if _NUMBER.fullmatch(value):
        return float(value)
    text = value.strip()
    if text.endswith("%"):
        percent = text[:-1].rstrip()
        return float(percent) / 100 if _NUMBER.fullmatch(percent) else None
    if text.lower() in _WORDS:
        return INF
    of_many = _OF_MANY.fullmatch(value)
    return float(of_many[1]) if of_many and "step" in key.lower() else None
