"""Turn the rows of runs into columns for the page: every metric that is a number, with its definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import Any

import numpy as np

from entropilot.records import Run, finite_number
from entropilot.reports.page.packing import Packer
from entropilot.reports.text import clean, mapping

MOST_METRICS = 400  # a page with more would not be read; how many were left out is said


def columns_of(run: Run) -> tuple[list[int], dict[str, np.ndarray]]:
    """Return the steps of a run and each numeric metric, NaN where a row does not have it."""
    layouts: dict[tuple[str, ...], list[int]] = {}  # few: rows with a validation, and rows without one
    for place, row in enumerate(run.rows):
        layouts.setdefault(tuple(row), []).append(place)
    values = {name: np.full(len(run.rows), np.nan) for name in dict.fromkeys(chain.from_iterable(layouts))}
    for names, places in layouts.items():
        columns = zip(*(run.rows[place].values() for place in places), strict=True)
        for name, column in zip(names, columns, strict=True):
            values[name][places] = _numbers(column)
    kept = {name: column for name, column in values.items() if name != "step" and not np.isnan(column).all()}
    return [row["step"] for row in run.rows], kept


def _numbers(column: Sequence[Any]) -> np.ndarray:
    if not set(map(type, column)) <= {float, NoneType}:  # nearly all are plain, and pages have millions
        column = [finite_number(value) for value in column]
    numbers = np.array(column, dtype=np.float64)  # None becomes NaN
    numbers[np.isinf(numbers)] = np.nan
    return numbers


def pack_series(steps: Sequence[int], values: Mapping[str, np.ndarray], packer: Packer) -> dict[str, Any]:
    """Return a run's steps and metrics, from `columns_of`, as references into the packer."""
    shown = dict(list(values.items())[:MOST_METRICS])
    return {
        "steps": packer.column(np.clip(steps, 0, 2**32 - 1) if steps else [], "u4"),
        "metrics": {clean(name, 200): packer.column(column, "f4") for name, column in shown.items()},
        "metrics_left_out": len(values) - len(shown),
    }


def definitions_of(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """Return unit and definition of every metric that a header of these runs defines."""
    known: dict[str, dict[str, str]] = {}
    for run in runs:
        for name, metric in mapping(run.header.get("metrics")).items():
            said = mapping(metric)
            entry = {key: clean(said[key], 1000) for key in ("unit", "definition") if said.get(key)}
            known.setdefault(clean(name, 200), entry)
    return known
