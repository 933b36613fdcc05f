"""Speed and studies of the control part: python benchmarks/control.py speed | study | why | online | drawer

speed   the score against the double sum, gradient steps, collection with one and two processes, segments with labels
study   finite worlds: when does the policy label help? A table with paired intervals (docs/methods/ppl.md)
why     finite worlds: what PPL's expectation would be worth, by whose segments are compared
online  finite worlds: regret against queries and environment steps
drawer  the online loop on MetaWorld's drawer-open, CPL, PPL and PPL with a Dirac label; --out keeps what is finished

Run with OMP_NUM_THREADS=1; `speed` needs MetaWorld.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from entropilot.methods.ppl import PPL


def best_of(run: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def double_sum(logp: torch.Tensor, kl: torch.Tensor, look_ahead: int, gamma: float) -> torch.Tensor:
    """The score as it is written, all segments at once."""
    steps, total = logp.shape[1], logp.sum(-1)
    for t in range(steps):
        for ahead in range(1, min(look_ahead, steps - 1 - t) + 1):
            total = total - gamma**ahead * kl[:, t + ahead]
    return total


def time_score() -> None:
    logp, kl = -torch.rand(64, 64), torch.rand(64, 64)
    method = PPL(look_ahead=64, gamma=0.99, window="sum")
    weights = method.weights(torch.ones(64, 64), torch.float32)
    in_double = method.weights(torch.ones(64, 64))
    exact = method.score(logp.double(), kl.double(), weights=in_double)
    relative = (exact / double_sum(logp.double(), kl.double(), 64, 0.99) - 1).abs().max().item()
    a = best_of(lambda: method.score(logp, kl, weights=weights), 200)
    b = best_of(lambda: double_sum(logp, kl, 64, 0.99), 5)
    print(
        f"score, 64 segments, T = L = 64: {a * 1e6:.0f} us, double sum {b * 1e3:.1f} ms, {b / a:.0f} times;",
        end=" ",
    )
    print(f"largest relative difference {relative:.1e}")


def time_training() -> None:
    from entropilot.control.actor import cpu_has_bf16
    from entropilot.control.segments import Pairs, Segments
    from entropilot.control.train import Data, Phase, TrainSettings, new_actor

    rng = np.random.default_rng(0)
    n, steps = 600, 64
    mean = np.tanh(rng.normal(size=(n, steps, 4)))
    segments = Segments(
        "drawer-open",
        rng.normal(size=(n, steps, 35)).astype(np.float32),
        np.clip(mean + 0.3 * rng.normal(size=mean.shape), -1, 1).astype(np.float32),
        np.full(n, steps),
        np.zeros(n, np.int64),
        np.array(["made up"]),
        mean.astype(np.float32),
        np.full(mean.shape, 0.3, np.float32),
        np.zeros((n, steps), np.float32),
        np.zeros((n, steps), np.float32),
        np.arange(n),
        np.zeros(n, np.int64),
        np.zeros(n, bool),
        np.array([0, steps]),
        np.zeros((n, 2, 0)),
    )
    pairs = Pairs(np.arange(300), np.arange(300, 600), rng.integers(0, 2, 300).astype(float))
    for bf16 in (True, False) if cpu_has_bf16() else (False,):
        phases = {}
        for method in ("sft", "cpl", "ppl", "ppl_dirac"):
            settings = TrainSettings(method=method, bf16=bf16)
            actor = new_actor(segments, settings)
            phases[method] = Phase(actor, Data(segments, pairs, actor), settings, "preference")
            phases[method].update()
        seconds = dict.fromkeys(phases, math.inf)
        for _ in range(30):  # in turns, so that a minute in which others took the core hits all of them
            for method, phase in phases.items():
                once = best_of(lambda phase=phase: [phase.update() for _ in range(5)], 1)
                seconds[method] = min(seconds[method], once / 5)
        rates = ", ".join(f"{method} {1 / took:.0f}" for method, took in seconds.items())
        print(f"steps/s at 32 pairs x 64 steps, 256x256, {'bf16' if bf16 else 'fp32'}: {rates}")


def time_collection(segments: int) -> None:
    from entropilot.control.behaviour import imitation_checkpoints
    from entropilot.control.collect import collect
    from entropilot.control.labels import script_values

    author = imitation_checkpoints("drawer-open", 0, 18)[18]
    seconds = {}
    for processes in (1, 2):
        began = time.perf_counter()
        collect("drawer-open", author, segments, 30, processes=processes)
        seconds[processes] = time.perf_counter() - began
        print(f"collection of {segments} segments, {processes} processes: {seconds[processes]:.1f} s")
    print(f"two processes are {seconds[1] / seconds[2]:.2f} times one")
    began = time.perf_counter()
    found = collect("drawer-open", author, segments, 31, processes=2)
    script_values(found, processes=2)
    took = time.perf_counter() - began
    print(
        f"{segments} segments with exact labels, 2 processes: {took:.0f} s; 2,500 would take {2500 / segments * took:.0f} s"
    )


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


def made(
    out: Path | None, name: str, condition: Any, seeds: list[int], learners: tuple[str, ...]
) -> dict[str, Any]:
    """Return a condition's result: the file's if it is of these learners, seeds and settings, else made and kept."""
    from entropilot.control.study import run_condition

    settings = json.loads(json.dumps(asdict(condition)))
    for row in kept_rows(out):
        same = row.get("condition") == settings and row.get("seeds") == seeds
        if row.get("name") == name and same and list(row["regret"]) == list(learners):
            return row
    found = {"name": name} | run_condition(condition, seeds, list(range(100, 112)), learners)
    keep_row(out, found)
    return found


def study(seeds: int, only: str, out: Path | None) -> None:
    """Every condition whose name contains `only`; one that the file holds is not made again."""
    from entropilot.control.study import LEARNERS, conditions, study_row

    print("| condition | " + " | ".join(LEARNERS) + " | ppl − cpl | ppl − cpl, last |")
    print("|" + "---|" * (len(LEARNERS) + 3))
    for name, condition in conditions().items():
        if only in name:
            row = made(out, name, condition, list(range(seeds)), LEARNERS)
            print(study_row(name, row), flush=True)


def why(seeds: int, out: Path | None) -> None:
    """CPL, PPL, and PPL with the expectation that one observed future stands for; pairs within and across authors."""
    from entropilot.control.study import WITH_EXPECTATION, conditions, paired

    chosen = {}
    for slip in (0.0, 0.3, 0.8):
        for gap in ("small", "large", "huge"):
            for pairing in ("any", "within", "across"):
                base = conditions()[f"author, slip {slip}, {gap} gap"]
                chosen[f"slip {slip}, {gap} gap, {pairing}"] = replace(base, pairing=pairing)
    for name in ("3200 segments", "3200 segments, huge gap, slip 0.8", "sparse reward"):
        chosen[name] = conditions()[name]
    print(
        "| condition | "
        + " | ".join(WITH_EXPECTATION)
        + " | ppl − cpl | expected, cut − cpl | expected − cpl |"
    )
    print("|" + "---|" * (len(WITH_EXPECTATION) + 4))
    for name, condition in chosen.items():
        regret = made(out, name, condition, list(range(seeds)), WITH_EXPECTATION)["regret"]
        means = " | ".join(f"{np.mean(regret[learner]):.3f}" for learner in WITH_EXPECTATION)
        against = [
            "{:+.3f} ± {:.3f}".format(*paired(regret[learner], regret["cpl"]))
            for learner in WITH_EXPECTATION[1:]
        ]
        print(f"| {name} | {means} | {' | '.join(against)} |", flush=True)


def online(seeds: int, out: Path | None) -> None:
    from entropilot.control.online import OnlineSettings
    from entropilot.control.online import online as run
    from entropilot.control.study import paired

    base = OnlineSettings()
    settings = {
        "author": base,
        "advantage": replace(base, teacher="advantage"),
        "author, 10 % wrong": replace(base, flip=0.1),
        "author, slip 0.8": replace(base, slip=0.8),
        "author, sparse": replace(base, sparse=True),
    }
    everything = {}
    print("| teacher | learner | regret after 40 queries | 100 | 200 | less CPL at 200 |")
    print("|---|---|---|---|---|---|")
    for name, chosen in settings.items():
        found = {
            learner: run(learner, chosen, list(range(seeds)))
            for learner in ("cpl", "ppl", "ppl_expected", "ppl_dirac", "pebble")
        }
        everything[name] = found
        for learner, result in found.items():
            regret = np.array(result["regret"])
            at = [regret[result["queries"].index(q)].mean() for q in (40, 100, 200)]
            difference = paired(regret[-1].tolist(), found["cpl"]["regret"][-1])
            print(f"| {name} | {learner} | " + " | ".join(f"{x:.3f}" for x in at), end="")
            print(f" | {difference[0]:+.3f} ± {difference[1]:.3f} |", flush=True)
    if out:
        out.write_text(json.dumps(everything))


LOOP = {"bc_steps": 300, "steps": 300, "learning_rate": 1e-4, "final_episodes": 50, "evaluate_every": 0}


def drawer(seeds: int, out: Path | None, rounds: int = 6) -> None:
    """Every learner on every seed; a run that the file holds, of these settings, is not made again."""
    from entropilot.control.online import online_metaworld
    from entropilot.control.study import paired
    from entropilot.control.train import settings_from

    rows, done = kept_rows(out), {}
    learners = ("cpl", "ppl", "ppl_dirac")
    for seed in range(seeds):
        for learner in learners:
            settings = settings_from(LOOP | {"method": learner, "seed": seed})
            key = {"task": "drawer-open", "train": json.loads(json.dumps(asdict(settings)))}
            known = [row["rounds"] for row in rows if all(row.get(name) == key[name] for name in key)]
            known = [found for found in known if len(found) == rounds]
            if known:
                done[learner, seed] = known[0]
                continue
            found = online_metaworld("drawer-open", settings, rounds=rounds)
            done[learner, seed] = found
            print(learner, seed, [row["success"] for row in found], flush=True)
            keep_row(out, key | {"method": learner, "seed": seed, "rounds": found})
    first = done["cpl", 0]
    print("| learner | " + " | ".join(f"{r['queries']} queries" for r in first) + " | less CPL at the end |")
    print("|" + "---|" * (len(first) + 2))
    for learner in learners:
        success = np.array([[row["success"] for row in done[learner, seed]] for seed in range(seeds)])
        other = [done["cpl", seed][-1]["success"] for seed in range(seeds)]
        mean, half = paired(success[:, -1].tolist(), other)
        print(
            f"| {learner} | "
            + " | ".join(f"{x:.2f}" for x in success.mean(0))
            + f" | {mean:+.2f} ± {half:.2f} |"
        )
    print("environment steps, mean over runs:", end=" ")
    print(np.mean([[row["environment_steps"] for row in rows] for rows in done.values()], 0).round())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "study", "why", "online", "drawer"])
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--segments", type=int, default=1250)
    parser.add_argument("--only", default="", help="conditions whose name contains this")
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    if settings.what == "speed":
        time_score()
        time_training()
        time_collection(settings.segments)
    elif settings.what == "study":
        study(settings.seeds, settings.only, settings.out)
    elif settings.what == "why":
        why(settings.seeds, settings.out)
    elif settings.what == "online":
        online(settings.seeds, settings.out)
    else:
        drawer(settings.seeds, settings.out)


if __name__ == "__main__":  # worker processes import this file
    main()
