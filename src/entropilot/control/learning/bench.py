"""The benchmark: tasks × data sets × methods × seeds, resumable, and its tables with paired intervals."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from entropilot.control.learning.settings import MethodName, TrainSettings, settings_from
from entropilot.control.learning.train import imitate, prefer
from entropilot.control.segments import segments as segment_files
from entropilot.control.segments.actor import Actor
from entropilot.control.segments.authors import fit_authors, with_labels
from entropilot.control.segments.behaviour import find_behaviours
from entropilot.control.segments.collect import CollectSettings, collect
from entropilot.control.segments.labels import Label, compare, fixed_pairs, scores, script_values
from entropilot.control.segments.policies import NumpyPolicy, load_policy
from entropilot.control.segments.segments import concatenate
from entropilot.control.segments.types import Pairs, Segments
from entropilot.control.segments.workers import success_rate
from entropilot.errors import UserError
from entropilot.files import written_whole

RESULTS = "results.jsonl"
TEST_SEED = 0  # first of the starts of evaluation; data sets and behaviours use none of them


class BenchSettings(BaseModel):
    """What `control bench` takes. `methods` maps a name to what it changes in `train`.

    Authors are checkpoints of clones, one for each of `targets`; of the same clone where `author_seeds` are equal, and then
    they may be near each other: every row holds their KL. `tuned_on` are tasks on which settings were chosen; the tables
    leave them out of the mean over tasks.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = "bench"
    tasks: list[str] = Field(default=["drawer-open", "door-open", "plate-slide"], min_length=1)
    kinds: list[Literal["hom", "het"]] = Field(default=["hom", "het"], min_length=1)
    labels: list[Literal["script", "behaviour", "return"]] = Field(
        default=["script"], min_length=1
    )  # sac needs a critic
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 1, 2, 3, 4], min_length=1)
    targets: list[Annotated[float, Field(ge=0, le=1)]] = Field(default=[0.5, 0.2], min_length=1, max_length=2)
    author_seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 0], min_length=1, max_length=2)
    segments: int = Field(default=600, ge=4)
    pairs: int | None = Field(default=300, ge=1)  # none: all of them
    flip: float = Field(default=0.0, ge=0, le=1)
    steps_of_segment: int = Field(default=64, ge=2)
    returns: int = Field(default=0, ge=0)  # what the label behaviour needs
    train: dict[str, Any] = Field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    tuned_on: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits_together(self) -> BenchSettings:
        if "het" in self.kinds and len(self.targets) < 2:
            raise ValueError("kinds het needs the success rates of two authors in targets")
        if len(self.author_seeds) < len(self.targets):
            raise ValueError("author_seeds needs a seed for each of targets")
        if "behaviour" in self.labels and not self.returns:
            raise ValueError("the label behaviour needs returns: 100 or more steps")
        if self.pairs is not None and 2 * self.pairs > self.segments:
            raise ValueError(
                f"{self.segments} segments make {self.segments // 2} pairs at most; null compares all"
            )
        self.cuts()
        return self

    def cuts(self) -> CollectSettings:
        """Return how episodes are cut.

        Raises:
            UserError: they cannot be.
        """
        return CollectSettings(
            length=self.steps_of_segment, returns=self.returns, mark_every=16 if self.returns else 0
        )

    def settings(self, method: str, seed: int) -> TrainSettings:
        """Return the settings of one run.

        Raises:
            UserError: they cannot work, or a method's name is that of another method.
        """
        found = settings_from({"method": method} | self.train | self.methods[method])
        if method in get_args(MethodName) and found.method != method:
            raise UserError(
                f"methods.{method} sets method: {found.method}, another one; give it a name of its own."
            )
        return replace(found, seed=seed)


def behaviours(
    task: str,
    folder: Path,
    targets: list[float],
    seeds: list[int],
    processes: int = 1,
    report: Callable[[str], Any] = lambda _: None,
) -> list[tuple[NumpyPolicy, float]]:
    """Return the authors of a task, found once and kept in the folder.

    Raises:
        UserError: the folder holds other authors.
    """
    index, seeds = folder / f"{task}.json", seeds[: len(targets)]
    if not index.is_file():
        if len(set(seeds)) == 1:
            found = find_behaviours(task, tuple(targets), seeds[0], processes=processes, report=report)
        else:
            found = [
                find_behaviours(task, (target,), seed, processes=processes, report=report)[0]
                for target, seed in zip(targets, seeds, strict=True)
            ]
        for i, ((policy, rate), target) in enumerate(zip(found, targets, strict=True)):
            report(f"{task}: author {i} is {policy.name}, solves {rate:.2f} of 100 episodes, wanted {target}")
            policy.save(folder / f"{task}_{i}.npz")
        _write(index, {"targets": targets, "seeds": seeds, "rates": [rate for _, rate in found]})
    known = json.loads(index.read_text())
    if (known["targets"], known.get("seeds", [0] * len(targets))) != (targets, seeds):
        raise UserError(
            f"{index} holds authors for targets={known['targets']} and author_seeds={known.get('seeds')}, which are "
            "not those of this recipe; choose another --out."
        )
    return [(load_policy(folder / f"{task}_{i}.npz"), rate) for i, rate in enumerate(known["rates"])]


def authors_kl(authors: list[NumpyPolicy], states: np.ndarray) -> float:
    """Return the mean KL between two authors over states, nats a step; what there is for a label to tell."""
    means = [author.mean(states.reshape(-1, states.shape[-1])) for author in authors]
    return float((0.5 * ((means[0] - means[1]) / authors[0].std) ** 2).sum(-1).mean())


def _write(path: Path, values: Any) -> None:
    with written_whole(path) as file:
        file.write(json.dumps(values, indent=2).encode())


def data_set(
    task: str,
    kind: str,
    seed: int,
    folder: Path,
    bench: BenchSettings,
    authors: list[NumpyPolicy],
    processes: int,
) -> tuple[Segments, np.ndarray | None]:
    """Return the segments of a seed and the script's values at their marks; both are made once and kept.

    hom is all by the first author; het is half of that and half by the second.
    """
    parts, values = [], []
    count = bench.segments if kind == "hom" else bench.segments // 2
    needs_values = any(label != "return" for label in bench.labels)
    for i, author in enumerate(authors[: 1 if kind == "hom" else 2]):
        path = folder / f"{task}_{seed}_{i}.npz"
        size = bench.segments if i == 0 else bench.segments // 2  # whatever kinds are added later
        if not path.is_file():
            segment_files.save(collect(task, author, size, 10 + 10 * seed + i, bench.cuts(), processes), path)
        part = segment_files.load(path, task)
        if needs_values:
            kept = path.with_suffix(".values.npy")
            if not kept.is_file():
                found = script_values(part, processes=processes)
                with written_whole(kept) as file:
                    np.save(file, found)
            values.append(np.load(kept)[:count])
        parts.append(part.take(np.arange(min(count, len(part)))))
    return concatenate(parts), np.concatenate(values) if values else None


def comparisons(score: np.ndarray, bench: BenchSettings, seed: int) -> Pairs:
    """Return the pairs of a seed: `pairs` of them with every segment in one at most, or all."""
    rng = np.random.default_rng([7, seed])
    if bench.pairs is None:
        first, second = np.triu_indices(len(score), 1)
    else:
        first, second = fixed_pairs(len(score), bench.pairs, rng)
    return compare(score, first, second, flip=bench.flip, rng=rng)


def cells(bench: BenchSettings) -> Iterator[tuple[int, str, str, Label]]:
    """Seed by seed over everything else, so that a bench that is cut off has whole seeds."""
    for seed in bench.seeds:
        for task in bench.tasks:
            for kind in bench.kinds:
                for label in bench.labels:
                    yield seed, task, kind, label


def read_results(out: Path) -> list[dict[str, Any]]:
    """Return the runs that are finished; a torn last line is not one."""
    path, found = out / RESULTS, []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


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
    path = out / RESULTS
    if path.is_file() and not path.read_bytes().endswith(b"\n"):  # torn by a kill
        with path.open("a") as file:
            file.write("\n")
    for seed, task, kind, label in cells(bench):
        missing = [m for m in bench.methods if (seed, task, kind, label, m) not in done]
        if not missing:
            continue
        found = behaviours(task, out / "behaviours", bench.targets, bench.author_seeds, processes, report)
        authors = [policy for policy, _ in found]
        segments, values = data_set(task, kind, seed, out / "data", bench, authors, processes)
        score = scores(segments, label, values)
        pairs = comparisons(score, bench, seed)
        about: dict[str, Any] = {"authors_solve": [rate for _, rate in found][: 1 if kind == "hom" else 2]}
        if kind == "het":
            about["authors_kl"] = authors_kl(authors, segments.states)
        if label == "script":  # above 0 a segment is better than the judge itself would have done
            about["beats_script"] = float((score > 0).mean())
        clones: dict[tuple[Any, ...], tuple[Actor, float]] = {}
        for method in missing:
            row = {"seed": seed, "task": task, "kind": kind, "label": label, "method": method, **about}
            row |= _train_one(bench.settings(method, seed), segments, pairs, clones, processes)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
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
    mine = bench.model_dump()
    if path.is_file():
        theirs = json.loads(path.read_text())
        theirs.setdefault("author_seeds", [0, 0])
        free = ("seeds", "methods", "tasks", "kinds", "name", "labels", "tuned_on")
        changed = [key for key in mine if key not in free and mine[key] != theirs.get(key)]
        both = set(mine["methods"]) & set(theirs["methods"])
        changed += [f"methods.{m}" for m in sorted(both) if mine["methods"][m] != theirs["methods"][m]]
        if changed:
            raise UserError(
                f"{path.parent} holds a bench with other values of {', '.join(changed)}; choose another --out."
            )
        mine["methods"] = theirs["methods"] | mine["methods"]
    _write(path, mine)


def _train_one(
    settings: TrainSettings,
    segments: Segments,
    pairs: Pairs,
    clones: dict[tuple[Any, ...], tuple[Actor, float]],
    processes: int,
) -> dict[str, Any]:
    """Train and evaluate one method of a cell; methods of a cell share the imitation phase."""
    began = time.perf_counter()
    task, behaviour, note = segments.task, float(segments.success.mean()), {}

    def success(actor: Actor, episodes: int) -> float:
        return success_rate(task, actor.to_numpy(), episodes, TEST_SEED, processes)

    key = (settings.bc_steps, settings.bc_learning_rate, settings.bc_batch, settings.hidden, settings.bf16)
    if key not in clones:
        clone = imitate(segments, settings)
        clones[key] = clone, success(clone, settings.final_episodes)
    clone, rate = clones[key]
    chosen = settings
    if settings.method == "ppl_fitted":  # as `prefer` would, and how many authors were found is kept
        fitted = fit_authors(segments, seed=settings.seed)
        segments, note = with_labels(segments, fitted), {"authors": fitted.count}
        chosen = replace(settings, method="ppl")
    curve: list[tuple[int, float]] = []

    def watch(actor: Actor, step: int, _: Any) -> None:
        if settings.evaluate_every and step % settings.evaluate_every == 0 and step < settings.steps:
            curve.append((step, success(actor, settings.evaluate_episodes)))

    final = success(prefer(clone, segments, pairs, chosen, watch), settings.final_episodes)
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
