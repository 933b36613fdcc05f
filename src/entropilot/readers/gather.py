"""What a log holds, row by row, before anyone has chosen columns; bounded in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
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
_EMPTY = 4  # an empty mapping takes the room of four values
_WORDS = frozenset({"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})


class Gathered:
    """The rows of a log as mappings from column to finite number, in the order of the file.

    Attributes:
        rows: one mapping per row that holds any number.
        skipped: how many lines, rows or values were left out, by reason.
        unusable: by column, how many values are NaN or ±inf.
        names: the column of each name as it stands in the log; None where it is not kept.
        thinned: whether columns that nobody chooses by default were dropped, because the log holds too many values.
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        """Start with nothing; `wanted` names the columns that are kept whatever the size of the log."""
        self.rows: list[dict[str, float]] = []
        self.skipped: Counter[str] = Counter()
        self.unusable: Counter[str] = Counter()
        self.names: dict[bytes | str, str | None] = {}
        self.notes: list[str] = []
        self.thinned = False
        self._wanted = wanted
        self._columns: set[str] = set()
        self._values = 0

    def name(self, raw: bytes | str) -> str | None:
        """Return the one copy of a column's name; None where the column is not kept."""
        if raw in self.names:
            return self.names[raw]
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        column: str | None = text.strip()
        full = len(self._columns) >= MOST_COLUMNS and column not in self._columns
        if not column or len(text) > LONGEST_NAME or full or (self.thinned and not self._wanted(column)):
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
        self.count(len(row) + _EMPTY)

    def count(self, values: int) -> None:
        """Count values that were put into rows kept already."""
        self._values += values
        if self._values > MANY_VALUES and not self.thinned:
            self._thin()
        if self._values > MOST_VALUES:
            raise UserError(
                f"The log holds more than {len(self.rows):,} rows, too many for one run; cut it, or thin it out."
            )

    def take(self, cells: Mapping[str, Any], *, null_is_nan: bool = False) -> None:
        """Keep the numbers among the cells of a row; what is neither number nor NaN is passed over.

        Args:
            cells: what a JSON object holds.
            null_is_nan: whether the log writes NaN and ±inf as null.
        """
        row: dict[str, float] = {}
        names = self.names
        for raw, value in cells.items():
            if value.__class__ is float and -INF < value < INF and raw in names:  # nearly every cell
                name = names[raw]
                if name is not None:
                    row[name] = value
                    continue
                if self.thinned:
                    continue
            number = _number(value, null_is_nan)
            if number is not None:
                self.put(row, raw, number)
        self.add(row)

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

    def _thin(self) -> None:
        """Drop the columns that are not wanted, from here back and from here on."""
        self.thinned = True
        self._columns = {name for name in self._columns if self._wanted(name)}
        for raw, name in self.names.items():
            if name not in self._columns:
                self.names[raw] = None
        self._values = 0
        for row in self.rows:
            kept = {name: value for name, value in row.items() if name in self._columns}
            row.clear()
            row.update(kept)
            self._values += len(row) + _EMPTY


def _number(value: Any, null_is_nan: bool) -> float | None:
    """Return a number, infinity for what stands for NaN or ±inf, and None for what is no number."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return INF
    if value is None:
        return INF if null_is_nan else None
    return INF if isinstance(value, str) and len(value) < 10 and value.strip().lower() in _WORDS else None
