"""Plain tables: CSV, JSON Lines and Parquet with one row per step, whoever wrote them."""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers.formats import documents
from entropilot.readers.gather import TORN, Gathered, number_of
from entropilot.readers.lines import json_rows, listed, open_log, pieces, shown

DELIMITERS = ",\t;"
_COMMA = re.compile(r"\s*([+-]?\d*),(\d+)(?:[eE][+-]?\d+)?\s*(?:%\s*)?", re.ASCII)
_BEGINNING = 1 << 20  # bytes
_FIELD = 1 << 20  # characters of one field; a completion may stand in a table


def _text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a CSV file, as a file opened with newline="" would."""
    encoding = "utf-8-sig"
    with open_log(path) as file:
        for piece, _ in pieces(file):
            text = piece.decode(encoding, "replace")
            encoding = "utf-8"
            yield from text.split("\n") if piece else ["?"]  # one field, which no header fits


def csv_rows(path: Path, delimiter: str) -> Iterator[list[str] | None]:
    """Yield the rows of a CSV file that are not blank; None where one can't be read."""
    before = csv.field_size_limit(_FIELD)
    try:
        reader = csv.reader(_text_lines(path), delimiter=delimiter)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                yield None
                continue
            if row:
                yield row
    finally:
        csv.field_size_limit(before)


def csv_form(path: Path) -> tuple[str, list[str]] | None:
    """Return delimiter and header of a CSV file, from its beginning; None where it is none.

    It is one if, under exactly one delimiter, the first line holds two names or more, none of them a number, and most
    lines after it hold as many fields, of which some is a number.
    """
    with open_log(path) as file:
        head = file.read(_BEGINNING)
    text = head.decode("utf-8-sig", "replace")
    whole = text if len(head) < _BEGINNING else text[: text.rfind("\n") + 1]
    found = []
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(whole.split("\n")[:21], delimiter=delimiter) if row]
        except csv.Error:
            continue
        if len(rows) < 2 or len(rows[0]) < 2 or any(map(_number, rows[0])):
            continue
        body = [row for row in rows[1:] if len(row) == len(rows[0])]
        if 2 * len(body) > len(rows) - 1 and any(_number(cell) for row in body for cell in row):
            found.append((delimiter, rows[0]))
    return found[0] if len(found) == 1 else None


def _has_decimal_commas(path: Path, delimiter: str) -> bool:
    """Return whether the first rows hold commas that can't part thousands, and no decimal point."""
    rows = [row for row in islice(csv_rows(path, delimiter), 1, 201) if row]
    cells = [cell.strip() for row in rows for cell in row]
    commas = [match for cell in cells if (match := _COMMA.fullmatch(cell))]
    points = any("." in cell and _number(cell) for cell in cells)
    return not points and any(len(match[2]) != 3 or match[1].strip("+-") in ("", "0") for match in commas)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_csv(
    path: Path, gathered: Gathered, delimiter: str, rename: Callable[[str], str | None] | None = None
) -> None:
    """Gather a CSV file. An empty cell is a value that was not due; text is passed over.

    Args:
        path: the file.
        gathered: what to add to.
        delimiter: what stands between fields.
        rename: gives the column of a header's field, or None where it is no column.

    Raises:
        UserError: two columns that are read have the same name.
    """
    rows = csv_rows(path, delimiter)
    header = next(rows, None)
    if header is None:
        raise UserError(f"{path} has no header line; a CSV file needs one that names its columns.")
    columns = [name.strip() or None for name in header]
    if rename is not None:
        columns = [None if name is None else rename(name) for name in columns]
    twice = [name for name, count in Counter(filter(None, columns)).items() if count > 1]
    if twice:
        raise UserError(f"{path} has more than one column named {listed(twice)}; rename one of them.")
    names = [name and gathered.name(name) for name in columns]
    every = [name for name in names if name]
    decimal_comma = delimiter != "," and _has_decimal_commas(path, delimiter)
    if decimal_comma:
        gathered.notes.append("Numbers are written with a decimal comma: 0,5 is read as 0.5.")
    for cells in rows:
        if cells is None or len(cells) != len(columns):
            gathered.skipped[TORN] += 1
            continue
        if decimal_comma:
            cells = [cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell for cell in cells]
        if len(every) == len(cells) and not gathered.thinned:
            try:
                numbers = list(map(float, cells))
            except ValueError:
                numbers = [math.nan]
            total = sum(numbers)
            if total - total == 0:  # nothing but finite numbers, one for each column
                gathered.add(dict(zip(every, numbers, strict=True)))
                continue
        row: dict[str, float] = {}
        for name, cell in zip(columns, cells, strict=True):
            if name is None or not cell or (gathered.thinned and gathered.name(name) is None):
                continue
            try:
                number = float(cell)
            except ValueError:
                number = number_of(cell, name)  # "5/60" in a column of steps
            if number is not None:
                gathered.put(row, name, number)
        gathered.add(row)
    if gathered.rows and not _is_ended(path):
        gathered.notes.append(
            "The last line has no end; if the file was cut there, its last value lacks digits."
        )


def _is_ended(path: Path) -> bool:
    with open_log(path) as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) in b"\r\n"


def read_jsonl(path: Path, gathered: Gathered) -> None:
    """Gather a JSON Lines file with one object per row."""
    for row in json_rows(path):
        if row is None:
            gathered.skipped[TORN] += 1
        else:
            gathered.take(row)


def read_document(path: Path, gathered: Gathered) -> None:
    """Gather a JSON document: an array of objects, or an object in one of the usual shapes."""
    for row in documents.rows(path):
        if row is None:
            gathered.skipped[TORN] += 1
        else:
            gathered.take(row)


def parquet_columns(path: Path) -> list[str]:
    """Return the names of a Parquet file's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return list(file.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is no whole Parquet file ({shown(error)}).") from error


def read_parquet(path: Path, gathered: Gathered) -> None:
    """Gather the columns of numbers of a Parquet file, in batches.

    Raises:
        UserError: the file is torn, or two of its columns have the same name.
    """
    for names, batch in parquet_batches(path):
        for cells in zip(*batch, strict=True):
            row: dict[str, float] = {}
            for name, value in zip(names, cells, strict=True):
                if value is not None:
                    gathered.put(row, name, value)
            gathered.add(row)


def parquet_batches(path: Path) -> Iterator[tuple[list[str], list[list[float | None]]]]:
    """Yield names and values of the columns of numbers, some rows at a time; text is never loaded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [
                field.name
                for field in file.schema_arrow
                if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            ]
            twice = [name for name, count in Counter(file.schema_arrow.names).items() if count > 1]
            if twice:
                raise UserError(f"{path} has more than one column named {listed(twice)}; rename one of them.")
            if not names:
                return
            for batch in file.iter_batches(batch_size=4096, columns=names):
                columns = [column.cast(pa.float64(), safe=False) for column in batch.columns]
                yield list(batch.schema.names), [column.to_pylist() for column in columns]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is no whole Parquet file ({shown(error)}).") from error
