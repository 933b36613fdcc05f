"""Runs of a study: each made once in a process of its own, seeds side by side, measured once; intervals over seeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

from entropilot.errors import UserError
from entropilot.records import read_run

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def finished(folder: Path) -> bool:
    """Return whether a run is there and ended well."""
    return (folder / "run.jsonl").exists() and (read_run(folder).header.get("end") or {}).get(
        "reason"
    ) == "finished"


def _call(arguments: Sequence[object], what: str) -> None:
    """Run Python on one thread, quietly; what it said is shown if it fails."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], env=os.environ | ENVIRONMENT, capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{what} failed (code {done.returncode}): {last}")


def make(folder: Path, recipe: dict[str, Any]) -> Path:
    """Train a recipe into a folder unless that is done; return the model's folder.

    A run that was cut off is begun anew. The recipe stands beside the folder, as `FOLDER.yaml`.

    Raises:
        UserError: the folder holds a run of another recipe, or training failed.
    """
    written = folder.with_name(f"{folder.name}.yaml")
    text = yaml.safe_dump(recipe, sort_keys=False)
    if finished(folder):
        if written.exists() and yaml.safe_load(written.read_text()) != yaml.safe_load(text):
            raise UserError(f"{folder} holds a run of another recipe; choose another --out, or remove it.")
        return folder / "model"
    folder.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(text)
    if folder.exists():
        folder.rename(_unused(folder))  # nothing of a run that was cut off is thrown away
    _call(("-m", "entropilot.cli", "train", written, "--out", folder), f"Training {folder.name}")
    return folder / "model"


def _unused(folder: Path) -> Path:
    number = 1
    while (other := folder.with_name(f"{folder.name}.cut{number}")).exists():
        number += 1
    return other


def once(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a JSON file holds, made by `measure` if it is not there."""
    if not path.exists():
        values = measure()
        part = path.with_suffix(".part")
        part.write_text(json.dumps(values))
        part.replace(path)
    return json.loads(path.read_text())


def side_by_side(work: Callable[[Any], Any], jobs: Sequence[Any], processes: int) -> list[Any]:
    """Return `work(job)` of every job, `processes` at a time; each job is a process of its own, so threads suffice."""
    with ThreadPoolExecutor(max(1, processes)) as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(
                wait=False, cancel_futures=True
            )  # what is running ends; hours of others are not begun
            raise


def interval(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Return the mean and half of its 95 % t interval over seeds; a half of nan for one value, None for none."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    if not known:
        return None
    if len(known) == 1:
        return float(known[0]), float("nan")
    half = stats.t.ppf(0.975, len(known) - 1) * np.std(known, ddof=1) / np.sqrt(len(known))
    return float(np.mean(known)), float(half)


def cell(values: Sequence[float | None], spec: str = ".3f", sign: bool = False) -> str:
    """Return `mean ± half` for a table; a dash where nothing was measured."""
    found = interval(values)
    if found is None:
        return "–"
    mean = format(found[0], f"+{spec}" if sign else spec)
    return mean if np.isnan(found[1]) else f"{mean} ± {found[1]:{spec}}"


def paired(one: Sequence[float | None], other: Sequence[float | None]) -> list[float | None]:
    """Return the differences of two columns, seed by seed."""
    return [None if a is None or b is None else a - b for a, b in zip(one, other, strict=True)]


def ratio_cell(one: Sequence[float], other: Sequence[float]) -> str:
    """Return the geometric mean of ratios, seed by seed, with the ends of its 95 % t interval."""
    found = interval([float(np.log(a / b)) for a, b in zip(one, other, strict=True) if a > 0 and b > 0])
    if found is None:
        return "–"
    mean, half = found
    if np.isnan(half):
        return f"{np.exp(mean):.1f}"
    return f"{np.exp(mean):.1f} ({np.exp(mean - half):.1f} to {np.exp(mean + half):.1f})"
