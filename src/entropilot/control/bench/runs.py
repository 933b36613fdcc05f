"""Run the benchmark: tasks × data sets × methods × seeds. It can be stopped at any time; finished runs are skipped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from entropilot.control.bench.data import authors_kl, behaviours, comparisons, data_set
from entropilot.control.bench.settings import BenchSettings
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.learning.train import imitate, prefer
from entropilot.control.segments.actor import Actor
from entropilot.control.segments.labels import Label, scores
from entropilot.control.segments.types import Pairs, Segments
from entropilot.control.segments.workers import success_rate
from entropilot.errors import UserError
from entropilot.files import append_row, read_rows, write_json

RESULTS = "results.jsonl"
TEST_SEED = 0  # first of the starts of evaluation; data sets and behaviours use none of them


def cells(bench: BenchSettings) -> Iterator[tuple[int, str, str, Label]]:
    """Seed by seed over everything else, so that a bench that is cut off has whole seeds."""
    for seed in bench.seeds:
        for task in bench.tasks:
            for kind in bench.kinds:
                for label in bench.labels:
                    yield seed, task, kind, label


def read_results(out: Path) -> list[dict[str, Any]]:
    """Return the runs that are finished."""
    return read_rows(out / RESULTS)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("seed", "task", "kind", "label", "method"))


def run_bench(
    bench: BenchSettings,
    out: Path,
    processes: int = 1,
    report: Callable[[str], Any] = lambda _: None,
) -> list[dict[str, Any]]:
    """Run what is missing in the folder; a run that is done is never done again. Return all rows.

    Raises:
        UserError: the folder holds a bench of other settings.
    """
    for method in bench.methods:
        bench.settings(method, 0)  # a wrong setting is refused before hours of work
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        return _run(bench, out, processes, report)


def _run(
    bench: BenchSettings, out: Path, processes: int, report: Callable[[str], Any]
) -> list[dict[str, Any]]:
    _claim(bench, out / "bench.json")
    done = {_key(row) for row in read_results(out)}
    for seed, task, kind, label in cells(bench):
        missing = [m for m in bench.methods if (seed, task, kind, label, m) not in done]
        if not missing:
            continue
        known = behaviours(task, out / "behaviours", bench.targets, bench.author_seeds, processes, report)
        authors = [policy for policy, _ in known]
        segments, values = data_set(task, kind, seed, out / "data", bench, authors, processes)
        score = scores(segments, label, values)
        pairs = comparisons(score, bench, seed)
        about: dict[str, Any] = {"authors_solve": [rate for _, rate in known][: 1 if kind == "hom" else 2]}
        if kind == "het":
            about["authors_kl"] = authors_kl(authors, segments.states)
        if label == "script":  # above 0 a segment is better than the judge itself would have done
            about["beats_script"] = float((score > 0).mean())
        clones: dict[tuple[Any, ...], tuple[Actor, float]] = {}
        for method in missing:
            row = {"seed": seed, "task": task, "kind": kind, "label": label, "method": method, **about}
            row |= _train_one(bench.settings(method, seed), segments, pairs, clones, processes)
            append_row(out / RESULTS, row)
            report(
                f"seed {seed} {task} {kind} {label} {method}: {row['success']:.2f} (clone {row['clone']:.2f}), "
                f"{row['seconds']:.0f} s"
            )
    return read_results(out)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold a folder against a second process, which would collect the same data; the system frees it after a kill."""
    try:
        import fcntl
    except ImportError:  # Windows: nobody watches there
        yield
        return
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"Another bench is at work in {out}; wait for it, or give another --out and other seeds."
            ) from error
        yield


def _claim(bench: BenchSettings, path: Path) -> None:
    """Keep the settings; seeds, methods, tasks may be added to a folder, what makes a run what it is may not change."""
    settings = bench.model_dump()
    if path.is_file():
        kept = json.loads(path.read_text())
        kept.setdefault("author_seeds", [0, 0])
        free = ("seeds", "methods", "tasks", "kinds", "name", "labels", "tuned_on")
        changed = [key for key in settings if key not in free and settings[key] != kept.get(key)]
        both = set(settings["methods"]) & set(kept["methods"])
        changed += [f"methods.{m}" for m in sorted(both) if settings["methods"][m] != kept["methods"][m]]
        if changed:
            raise UserError(
                f"{path.parent} holds a bench with other values of {', '.join(changed)}; choose another --out."
            )
        settings["methods"] = kept["methods"] | settings["methods"]
    write_json(path, settings)


def _train_one(
    settings: TrainSettings,
    segments: Segments,
    pairs: Pairs,
    clones: dict[tuple[Any, ...], tuple[Actor, float]],
    processes: int,
) -> dict[str, Any]:
    """Train and evaluate one method of a cell; methods of a cell share the imitation phase."""
    began = time.perf_counter()
    task, behaviour = segments.task, float(segments.success.mean())

    def success(actor: Actor, episodes: int) -> float:
        return success_rate(task, actor.to_numpy(), episodes, TEST_SEED, processes)

    key = (settings.bc_steps, settings.bc_learning_rate, settings.bc_batch, settings.hidden, settings.bf16)
    if key not in clones:
        clone = imitate(segments, settings)
        clones[key] = clone, success(clone, settings.final_episodes)
    clone, rate = clones[key]
    curve: list[tuple[int, float]] = []
    note: dict[str, Any] = {}

    def watch(actor: Actor, step: int, _: Any) -> None:
        if settings.evaluate_every and step % settings.evaluate_every == 0 and step < settings.steps:
            curve.append((step, success(actor, settings.evaluate_episodes)))

    final = success(prefer(clone, segments, pairs, settings, watch, note.update), settings.final_episodes)
    curve.append((settings.steps, final))
    return {
        "success": final,
        "clone": rate,
        "curve": curve,
        "episodes": settings.final_episodes,
        "behaviour": behaviour,
        "seconds": round(time.perf_counter() - began, 1),
        "settings": asdict(settings),
        **note,
    }
