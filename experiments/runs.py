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

import yaml

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
    _call(("-m", "entropilot", "train", written, "--out", folder), f"Training {folder.name}")
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


def paired(one: Sequence[float | None], other: Sequence[float | None]) -> list[float | None]:
    """Return the differences of two columns, seed by seed."""
    return [None if a is None or b is None else a - b for a, b in zip(one, other, strict=True)]


def kept_rows(out: Path | None) -> list[dict[str, Any]]:
    """Return the rows of a file; what a kill tore is none."""
    found = []
    for line in out.read_text().splitlines() if out is not None and out.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found += [row] if isinstance(row, dict) else []
    return found


def keep_row(out: Path | None, row: dict[str, Any]) -> None:
    """Add a row to a file; it begins on a line of its own after a torn one."""
    if out is not None:
        torn = out.exists() and not out.read_bytes().endswith(b"\n")
        with out.open("a") as file:
            file.write("\n" * torn + json.dumps(row) + "\n")
