"""Make the benchmark's authors, segments and pairs once each, and keep them in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.control.bench.settings import BenchSettings
from entropilot.control.segments import segments as segment_files
from entropilot.control.segments.behaviour import find_behaviours
from entropilot.control.segments.collect import collect
from entropilot.control.segments.labels import compare, fixed_pairs, script_values
from entropilot.control.segments.policies import NumpyPolicy, load_policy
from entropilot.control.segments.segments import concatenate
from entropilot.control.segments.types import Pairs, Segments
from entropilot.errors import UserError
from entropilot.files import write_json, written_whole


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
            authors = find_behaviours(task, tuple(targets), seeds[0], processes=processes, report=report)
        else:
            authors = [
                find_behaviours(task, (target,), seed, processes=processes, report=report)[0]
                for target, seed in zip(targets, seeds, strict=True)
            ]
        for i, ((policy, rate), target) in enumerate(zip(authors, targets, strict=True)):
            solved, wanted = f"{100 * rate:.0f} % success (100 episodes)", f"{100 * target:.0f} %"
            report(f"{task}: author {i} is {policy.name}, {solved}; asked for {wanted}")
            policy.save(folder / f"{task}_{i}.npz")
        write_json(index, {"targets": targets, "seeds": seeds, "rates": [rate for _, rate in authors]})
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
                computed = script_values(part, processes=processes)
                with written_whole(kept) as file:
                    np.save(file, computed)
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
