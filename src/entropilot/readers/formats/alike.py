"""Read lines of metrics that have the keys of an earlier one, which nearly all lines of a run have.

A pattern is made of the keys of one line; it finds the numbers of the next ones in one go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

from pydantic_core import from_json

DIGITS = b"0123456789.+-eE"
_MOST_KINDS = 32


class Kind:
    """A kind of lines, those with the same keys: its pattern, and the columns of the pattern's groups."""

    def __init__(self, text: bytes, names: list[str]) -> None:
        self.text, self.names = text, names

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """Compile the pattern when a line is held against it, which takes as long as 300 lines do."""
        return re.compile(self.text)


class Alike:
    """Knows the kinds of lines of one log, the last used first."""

    def __init__(self) -> None:
        self._kinds: list[Kind] = []

    def learn(self, parts: Sequence[tuple[bytes, str | None, bytes]], end: bytes) -> None:
        """Remember a kind of line.

        Args:
            parts: what stands before each number, the column that keeps it (None: none does), and the bytes any of which
                ends it.
            end: a pattern of what comes after the last part.
        """
        if len(self._kinds) >= _MOST_KINDS:
            return
        pattern, names = b"", []
        for before, name, after in parts:
            pattern += re.escape(before) + (b"([^%b]*+)" if name else b"[^%b]*+") % re.escape(after)
            if name:
                names.append(name)
        if names:
            self._kinds.insert(0, Kind(pattern + end, names))

    def forget(self) -> None:
        """Forget all kinds: other columns are kept from now on."""
        self._kinds = []

    def match(self, text: bytes, at: int) -> tuple[dict[str, float], int] | None:
        """Return the row of the line that begins at a place of a text, and where it ends.

        None where it is of no known kind, or holds anything but finite numbers.
        """
        for place, kind in enumerate(self._kinds):
            match = kind.pattern.match(text, at)
            if match is not None and (row := _row(kind.names, match.groups())) is not None:
                if place:
                    self._kinds.insert(0, self._kinds.pop(place))
                return row, match.end()
        return None


def _row(names: list[str], values: tuple[bytes, ...]) -> dict[str, float] | None:
    """Return a row of finite numbers; None where some text is none.

    The parser of JSON reads numbers four times as fast as `float` and rounds them the same way. What JSON writes
    otherwise (`+1`, `.5`) is left to `float`, and so is what is JSON but no number.
    """
    text = b"[" + b",".join(values) + b"]"
    numbers: list[float] = []
    if b"t" not in text and b"f" not in text and b'"' not in text:  # no true, false, Infinity or text
        with suppress(ValueError, TypeError, OverflowError):
            numbers = list(map(float, from_json(text)))
    if len(numbers) != len(names):  # some text holds a comma
        try:
            numbers = list(map(float, values))
        except ValueError:
            return None
    total = sum(numbers)
    return dict(zip(names, numbers, strict=True)) if total - total == 0 else None
