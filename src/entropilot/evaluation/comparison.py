"""Compare two evaluations of the same problems by paired differences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.analysis.passk import paired_difference
from entropilot.errors import UserError
from entropilot.evaluation.grading import columns_of

GRADED = "graded.jsonl"
Line = dict[str, Any]


def read_graded(folder: Path) -> list[dict[str, Any]]:
    """Return what an earlier evaluation graded in a folder.

    Raises:
        UserError: it holds none, or a broken one.
    """
    path = folder / GRADED
    try:
        with path.open(encoding="utf-8") as file:
            lines = [json.loads(line) for line in file if line.strip()]
        if not lines or not all(
            isinstance(line, dict) and {"data", "temperature", "key", "scores", "answers"} <= set(line)
            for line in lines
        ):
            raise ValueError("it holds no graded problems")
    except OSError as error:
        raise UserError(
            f"--compare: {folder} holds no finished evaluation ({error.strerror}: {GRADED}); give the --out folder of "
            "one, or a model."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"--compare: {path} can't be read ({error}); evaluate again.") from error
    return lines


def cells(lines: Sequence[Line]) -> dict[tuple[str, float], list[Line]]:
    """Return graded lines by (data, temperature), in order."""
    found: dict[tuple[str, float], list[Line]] = {}
    for line in lines:
        found.setdefault((str(line["data"]), float(line["temperature"] or 0.0)), []).append(line)
    return found


def compare(
    base: Sequence[Line], other: Sequence[Line], names: tuple[str, str], *, seed: int = 0
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the paired differences other − base of every cell that both have, and notes on what was not paired.

    Problems are paired by a digest of prompt and answer. Cells are matched by data and temperature; where both sides
    have a single temperature for the data, it may differ.
    """
    found, notes = [], []
    ours, theirs = cells(other), cells(base)
    for (data, temperature), lines in ours.items():
        match = theirs.get((data, temperature))
        mine = [key for key in ours if key[0] == data]
        other_temperatures = [key for key in theirs if key[0] == data]
        if match is None and len(mine) == len(other_temperatures) == 1:
            match = theirs[other_temperatures[0]]
            notes.append(
                f"{data}: {names[1]} at T = {temperature:g} is compared with {names[0]} at T = "
                f"{other_temperatures[0][1]:g}"
            )
        if match is None:
            notes.append(f"{data} at T = {temperature:g}: {names[0]} has no such evaluation to compare with")
            continue
        known = {line["key"]: line for line in match}
        pairs = [(known[line["key"]], line) for line in lines if line["key"] in known]
        if not pairs:
            notes.append(f"{data} at T = {temperature:g}: no problem is in both evaluations")
            continue
        if len(pairs) < max(len(lines), len(match)):
            notes.append(
                f"{data} at T = {temperature:g}: {len(pairs)} problems are in both evaluations, of "
                f"{len(match)} and {len(lines)}"
            )
        a, b = columns_of([pair[0] for pair in pairs]), columns_of([pair[1] for pair in pairs])
        differences = {}
        for name in a:
            if name in b and (np.isfinite(a[name]) & np.isfinite(b[name])).any():
                result = paired_difference(a[name], b[name], seed=seed)
                differences[name] = result._asdict()
        found.append(
            {
                "base": names[0],
                "model": names[1],
                "data": data,
                "temperature": temperature,
                "differences": differences,
            }
        )
    return found, notes
