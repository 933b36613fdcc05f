"""The store of finished runs that every study uses: each run is trained once, each model measured once.

* `make` trains a recipe into a folder, in a process of its own, unless that is done; its recipe stands beside it.
* `once` keeps a measurement as JSON; `entropilot.files.read_rows` and `append_row` keep rows of a table.
* `side_by_side` runs several jobs at a time, `command` runs a study's `main` and prints an error as one sentence.

Intervals over seeds are in `entropilot.analysis.seeds`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from entropilot.errors import UserError
from entropilot.files import claim, write_text, written_whole
from entropilot.recipes.yaml_files import read_values
from entropilot.records import read_run

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def command(main: Callable[[], Any]) -> None:
    """Run a study from the command line; a user's error is printed as one sentence and ends it with code 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def out_folder(out: Path) -> Path:
    """Make the folder of a study before anything is run; return it as an absolute path.

    Raises:
        UserError: it can't be written.
    """
    out = out.resolve()
    claim(out)
    return out


def finished(run: Path) -> bool:
    """Return whether a run is there and ended well."""
    return (run / "run.jsonl").exists() and (read_run(run).header.get("end") or {}).get(
        "reason"
    ) == "finished"


def python(*arguments: object, what: str, threads: int = 1) -> None:
    """Run Python quietly, on one thread unless more are given.

    Raises:
        UserError: it failed; the last line that it printed says why.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{what} failed (code {done.returncode}): {last}")


def entropilot(*arguments: object, what: str, threads: int = 1) -> None:
    """Run a command of entropilot as `python` does."""
    python("-m", "entropilot", *arguments, what=what, threads=threads)


def recipe(name: str, *overrides: str) -> dict[str, Any]:
    """Read `recipes/NAME.yaml` of this repository and change some of its values: `seed=1`, `grpo.max_steps=40`."""
    return read_values(ROOT / "recipes" / f"{name}.yaml", list(overrides), example="method: kl_cov")


def make(
    run: Path,
    values: dict[str, Any],
    train: Sequence[object] = ("-m", "entropilot", "train"),
    threads: int = 1,
) -> Path:
    """Train a recipe into the folder `run` unless that is done; return the model's folder.

    A run that was cut off is begun anew. The recipe stands beside the folder, as `RUN.yaml`.

    Args:
        run: the folder.
        values: the recipe.
        train: what trains it, given the recipe's file, `--out` and the folder.
        threads: of the process; numbers may differ in the last digits from those of one thread.

    Raises:
        UserError: the folder holds a run of another recipe, or can't be written, or training failed.
    """
    written = run.with_name(f"{run.name}.yaml")
    text = yaml.safe_dump(values, sort_keys=False)
    if finished(run):
        if written.exists() and yaml.safe_load(written.read_text()) != yaml.safe_load(text):
            raise UserError(f"{run} holds a run of another recipe; choose another --out, or remove it.")
        return run / "model"
    with written_whole(written) as file:
        file.write(text.encode())
    if run.exists():
        run.rename(_unused(run))  # nothing of a run that was cut off is thrown away
    python(*train, written, "--out", run, what=f"Training {run.name}", threads=threads)
    return run / "model"


def _unused(run: Path) -> Path:
    number = 1
    while (other := run.with_name(f"{run.name}.cut{number}")).exists():
        number += 1
    return other


def once(path: Path, measure: Callable[[], Any], made_by: dict[str, Any] | None = None) -> Any:
    """Return what a JSON file holds; it is made by `measure` if it is not there.

    Args:
        path: the file.
        measure: makes its content.
        made_by: settings that are kept with the content, and must be the same when it is read again.

    Raises:
        UserError: other settings made the file, or it can't be written.
    """
    if not path.exists():
        values = measure()
        with written_whole(path) as file:
            kept = values if made_by is None else {"made by": made_by, "found": values}
            file.write(json.dumps(kept).encode())
    known = json.loads(path.read_text())
    if made_by is None:
        return known
    kept_by = known.get("made by", {})
    changed = [name for name in made_by | kept_by if kept_by.get(name) != made_by.get(name)]
    if changed:
        was = ", ".join(f"{name} {kept_by.get(name, 'unknown')}, not {made_by.get(name)}" for name in changed)
        raise UserError(f"{path} was made with {was}; choose another --out, or remove the file.")
    return known["found"]


def side_by_side(work: Callable[[Any], Any], jobs: Sequence[Any], processes: int) -> list[Any]:
    """Return `work(job)` of every job, `processes` at a time; each job is a process of its own, so threads suffice."""
    with ThreadPoolExecutor(max(1, processes)) as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            # What is running ends; hours of others are not begun.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def keep(file: Path | None, part: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Put a part's rows by arm, one of each run, into a small file that tables are checked against.

    Rows of other arms that the file has stay, and so do an arm's rows of other seeds, where rows have a `seed`. Six digits
    are enough. Texts are left out: they are paths of the machine that made the runs.

    Returns:
        The part as the file holds it; without a file, the rows.
    """
    if file is None:
        return dict(rows)
    kept = json.loads(file.read_text()) if file.exists() else {}
    new = json.loads(
        json.dumps(rows),
        parse_float=lambda text: float(f"{float(text):.6g}"),
        object_hook=lambda row: {key: value for key, value in row.items() if not isinstance(value, str)},
    )
    known = kept.get(part, {})
    kept[part] = known | {arm: _by_seed(known.get(arm), found) for arm, found in new.items()}
    write_text(file, json.dumps(kept).replace("{", "\n{") + "\n")
    return kept[part]


def _by_seed(known: Any, new: Any) -> Any:
    """Return an arm's rows of all seeds, new ones in place of known ones; the new ones alone where rows have no seed."""
    rows = [*(known or ()), *new] if isinstance(new, list) else []
    if not rows or any(not isinstance(row, dict) or "seed" not in row for row in rows):
        return new
    if len({row["seed"] for row in new}) < len(new):
        raise ValueError("An arm has two rows of one seed; give each run a seed of its own.")
    return [row for _, row in sorted({row["seed"]: row for row in rows}.items())]
