"""Look at the start of a file, so that readers can tell which framework wrote it."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from entropilot.readers.formats import documents, printed
from entropilot.readers.formats.notebooks import is_notebook, open_text
from entropilot.readers.formats.tables import csv_form, parquet_columns
from entropilot.readers.lines import BOM, json_rows, open_log

HEAD = 1 << 16
SAMPLE = 50  # rows
_MAGIC = {b"SQLite format 3\0": "sqlite", b"PAR1": "parquet"}


class Peek:
    """Look at a file without reading all of it. Every view is made once, when a reader asks for it.

    Attributes:
        path: the file.
        deep: bytes of a console in which to look for the first metrics; None: all of it.
        is_known: whether some reader knows a column of that name.
        head: its first 64 KB.
    """

    def __init__(self, path: Path, is_known: Callable[[str], bool], deep: int | None = None) -> None:
        """Read the head of the file.

        Raises:
            UserError: it is no file, or can't be read.
        """
        self.path, self.is_known, self.deep = path, is_known, deep
        with open_log(path) as file:
            self.head = file.read(HEAD)

    @cached_property
    def kind(self) -> str:
        """Return what the file is: empty, sqlite, parquet, utf-16, gzip, binary, jsonl, document, csv or text.

        A JSON document is parsed whole before any of its lines is judged.
        """
        for magic, kind in _MAGIC.items():
            if self.head.startswith(magic):
                return kind
        if self.head.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "utf-16"
        if self.head.startswith(b"\x1f\x8b"):
            return "gzip"
        if b"\0" in self.head:
            return "binary"
        begin = self.head.removeprefix(BOM).lstrip()
        if not begin and self.path.stat().st_size <= HEAD:
            return "empty"
        if begin.startswith((b"{", b"[")):
            return self._json_kind()
        return "csv" if self.csv is not None else "text"

    def _json_kind(self) -> str:
        if is_notebook(self.path, self.head):
            return "text"
        lines = list(islice(json_rows(self.path), SAMPLE))
        whole = sum(line is not None for line in lines)
        if len(lines) > 1 and (lines[0] is not None or 2 * whole > len(lines)):
            return "jsonl"
        self._items = list(islice(documents.rows(self.path), SAMPLE))
        if self._items and self._items[0] is not None:
            return "document"
        return "jsonl" if whole else "text"

    @cached_property
    def csv(self) -> tuple[str, list[str]] | None:
        """Delimiter and header of a CSV file; None where it is none."""
        return csv_form(self.path)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Return the first objects of a JSON Lines file or document."""
        if self.kind == "document":
            return [row for row in self._items if row is not None]
        return [row for row in islice(json_rows(self.path), SAMPLE) if row] if self.kind == "jsonl" else []

    @cached_property
    def names(self) -> list[str]:
        """Return the columns of a table of any form, as far as the first rows show them."""
        if self.kind == "parquet":
            return parquet_columns(self.path)
        if self.kind == "csv":
            return self.csv[1] if self.csv else []
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @cached_property
    def first_printed(self) -> list[dict[str, float]]:
        """Return the printed dicts in the head of a text that hold any number."""
        return [row for _, row in printed.peek(io.BytesIO(self.head), None)] if self.kind == "text" else []

    @cached_property
    def printed(self) -> list[tuple[bytes, dict[str, float]]]:
        """Return the first printed dicts of a console that hold a known column, each with the text before it."""
        if self.kind != "text":
            return []
        with open_text(self.path) as file:
            dicts = printed.peek(file, self.deep)
            return list(islice((pair for pair in dicts if any(map(self.is_known, pair[1]))), SAMPLE))
