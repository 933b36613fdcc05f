"""Whole JSON documents: arrays of objects, histories inside an object, series by metric; read into rows."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from entropilot.errors import UserError
from entropilot.readers.lines import BLOCK, LONGEST, open_log

LARGEST = 32 << 20  # bytes of one object; an array is read item by item, whatever its size
_SPACE = re.compile(r"[\s,\ufeff]*")
_WHOLE = re.compile(r"\d{1,15}")
_DEEPEST = 4
_NEAR = 64  # characters from the end of a text at which it may just lack the rest
# A row that holds one value of one metric, as MLflow and Comet export them.
_LONG = (
    ("key", "value"),
    ("metricName", "metricValue"),
    ("metric", "value"),
    ("tag", "value"),
    ("name", "value"),
)


def rows(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the rows of a JSON document; None where the rest of it is torn.

    Raises:
        UserError: it is one object of more than 32 MB.
    """
    with open_log(path) as file:
        items = _items(file, path)
        first = next(items, None)
        if first is None:
            yield None
            return
        second = next(items, _END)
        if second is _END:
            yield from _of_object(first)
        else:
            yield from _of_items(chain((first, second), items))


_END: Any = object()


def _items(file: BinaryIO, path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the objects of an array, or of objects one after the other, holding one of them at a time."""
    decoder, text = codecs.getincrementaldecoder("utf-8")("replace"), ""
    parse = json.JSONDecoder(parse_int=float).raw_decode  # an int of many digits would be an error
    at, tried, started, array, ended = 0, 0, False, False, False
    while True:
        at = _space(text, at)
        if at < len(text) and not started and text[at] == "[":
            started, array, at = True, True, at + 1
            continue
        started = started or at < len(text)
        if at < len(text) and text[at] == "]":
            return
        if at < len(text) and (ended or len(text) - at > tried):
            try:
                item, at = parse(text, at)
                tried = 0
                if isinstance(item, dict):
                    yield item
                continue
            except RecursionError:
                yield None
                return
            except ValueError as error:
                place = getattr(error, "pos", len(text))
                early = "Unterminated string" in str(error) or place >= len(text) - _NEAR
                if not early:  # more of it would not help
                    yield None
                    return
                tried = 2 * (len(text) - at)  # try again when there is twice as much: linear in all
        if ended:
            if at < len(text):
                yield None
            return
        if len(text) - at > (LONGEST if array else LARGEST):
            if not array:
                raise UserError(
                    f"{path} is one JSON object of more than {LARGEST >> 20} MB; write its rows as JSON Lines, one object "
                    "per line."
                )
            yield None
            return
        block = file.read(BLOCK)
        ended = not block
        text, at = text[at:] + decoder.decode(block, ended), 0


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _of_items(items: Iterator[dict[str, Any] | None]) -> Iterator[dict[str, Any] | None]:
    """Yield rows as they are; of rows with one value each, the values under their metrics' names."""
    for item in items:
        pair = next((pair for pair in _LONG if item and pair[0] in item and pair[1] in item), None)
        if item is not None and pair is not None and isinstance(item[pair[0]], str):
            yield {"step": item.get("step"), item[pair[0]]: item[pair[1]]}
        else:
            yield item


def _of_object(document: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Yield the rows that one object holds, in whichever of the usual shapes."""
    histories = sorted(_histories(document), key=len, reverse=True)
    if histories:
        yield from _of_items(item if isinstance(item, dict) else None for item in histories[0])
        return
    table: dict[float, dict[str, Any]] = {}
    for name, series in _series(document):
        for step, value in series:
            table.setdefault(step, {"step": step})[name] = value
    if table:
        yield from table.values()
        return
    if document and all(_WHOLE.fullmatch(key) and isinstance(row, dict) for key, row in document.items()):
        yield from ({"step": float(step), **row} for step, row in document.items())
        return
    yield document


def _histories(document: dict[str, Any], depth: int = 0) -> Iterator[list[Any]]:
    """Yield the lists of objects within, such as `log_history`."""
    for name, value in document.items():
        if isinstance(value, list) and (
            name == "log_history" or any(isinstance(item, dict) for item in value)
        ):
            if not _pairs(value):
                yield value
        elif isinstance(value, dict) and depth < _DEEPEST:
            yield from _histories(value, depth + 1)


def _series(document: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, list[Any]]]:
    """Yield every metric's name and its pairs of step and value."""
    columns = {name: value for name, value in document.items() if _is_column(value)}
    lengths = {len(value) for value in columns.values()}
    if len(columns) > 1 and len(lengths) == 1:  # one list per column
        steps = next((columns[name] for name in ("step", "steps", "global_step") if name in columns), None)
        steps = [float(i) for i in range(lengths.pop())] if steps is None else steps
        for name, values in columns.items():
            pairs = [
                (step, value) for step, value in zip(steps, values, strict=True) if isinstance(step, float)
            ]
            yield prefix + name, pairs
        return
    for name, value in document.items():
        pairs = _pairs(value)
        if pairs:
            yield prefix + name, pairs
        elif isinstance(value, dict) and depth < _DEEPEST:
            yield from _series(value, f"{prefix}{name}/", depth + 1)


def _is_column(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and not any(isinstance(cell, dict | list) for cell in value)
    )


def _pairs(value: Any) -> list[tuple[float, Any]]:
    """Return the pairs of step and value of one metric: `{"1": 0.5}`, `[[1, 0.5]]`, `[{"step": 1, "value": 0.5}]`."""
    if isinstance(value, dict) and value:
        steps, values = value.get("steps", value.get("step")), value.get("values", value.get("value"))
        if isinstance(steps, list) and isinstance(values, list) and len(steps) == len(values):
            value = [list(pair) for pair in zip(steps, values, strict=True)]
        elif all(_WHOLE.fullmatch(key) for key in value):
            if any(isinstance(cell, dict | list) for cell in value.values()):
                return []
            return [(float(key), cell) for key, cell in value.items()]
    if isinstance(value, list) and value:
        if all(isinstance(item, list) and len(item) == 2 for item in value):
            return [(step, cell) for step, cell in value if isinstance(step, float)]
        if all(isinstance(item, dict) and "value" in item and len(item) <= 4 for item in value):
            named = any(
                "key" in item or "metric" in item or "tag" in item or "name" in item for item in value
            )
            return (
                []
                if named
                else [(item["step"], item["value"]) for item in value if isinstance(item.get("step"), float)]
            )
    return []
