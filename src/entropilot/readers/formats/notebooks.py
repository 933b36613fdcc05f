"""Jupyter notebooks: the text of their outputs, as if it had been printed on a console."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, BinaryIO

from entropilot.errors import UserError
from entropilot.readers.lines import BOM, open_log

LARGEST = 128 << 20  # bytes; a notebook is one JSON document and is held whole
_MARKS = (b'"cells"', b'"nbformat"')


def is_notebook(path: Path, head: bytes) -> bool:
    """Return whether a file is a notebook: an object with `cells` and `nbformat`, the latter often at its end."""
    if not head.removeprefix(BOM).lstrip().startswith(b"{"):
        return False
    if not any(mark in head for mark in _MARKS):
        return False
    with open_log(path) as file:
        file.seek(max(0, path.stat().st_size - 4096))
        tail = file.read(4096)
    return all(mark in head or mark in tail for mark in _MARKS)


def open_text(path: Path) -> BinaryIO:
    """Open a console log for reading bytes; of a notebook, the text of its outputs.

    Raises:
        UserError: it is no file, can't be read, or is a notebook that is torn or too large.
    """
    file = open_log(path)
    head = file.read(1 << 16)
    file.seek(0)
    if not is_notebook(path, head):
        return file
    with file:
        if path.stat().st_size > LARGEST:
            raise UserError(
                f"{path} is a notebook of more than {LARGEST >> 20} MB; clear the pictures from its outputs."
            )
        try:
            notebook = json.loads(file.read())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is a notebook that is torn or damaged; save it again.") from error
    return io.BytesIO("".join(_outputs(notebook)).encode("utf-8", "replace"))


def _outputs(notebook: dict[str, Any]) -> Iterator[str]:
    for cell in _list(notebook.get("cells")):
        for output in _list(cell.get("outputs")) if isinstance(cell, dict) else []:
            if not isinstance(output, dict):
                continue
            data = output.get("data")
            data = data if isinstance(data, dict) else {}
            yield _text(output.get("text")) + "\n"
            page = _text(data.get("text/html"))
            if "<table" in page and "Step" in page:
                yield from _table(page)
            else:
                yield _text(data.get("text/plain")) + "\n"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


class _Cells(HTMLParser):
    """Collects the cells of the tables of a page, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data


def _table(page: str) -> Iterator[str]:
    """Yield one JSON object per row of the table that transformers shows while it trains in a notebook."""
    cells = _Cells()
    cells.feed(page)
    header: list[str] = []
    for row in cells.rows:
        names = [cell.strip() for cell in row]
        if "Step" in names:
            header = names
        elif header and len(row) == len(header):
            values = dict(zip(header, names, strict=True))
            values["step"] = values.pop("Step")
            yield json.dumps(values) + "\n"
