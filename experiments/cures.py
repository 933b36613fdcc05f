"""The cures for entropy collapse under equal conditions, on the tier `pool`: python -m experiments.cures

--part settings  three settings of every arm on two development seeds; the best mean of exact accuracy is taken
--part report    every arm, with the setting that `settings` chose, on five other seeds (the default)
--part second    the four best of the report and GRPO, as they are, on the tier `long`, whose problems do not repeat
--part tracking  how closely entropy follows a target above and one below the free run's, and a step of the target
--arms, --seeds  fewer of them; `--arms list` names all arms
--store          a file of rows (docs/results/cures.json): the part's rows are added, and rows of an earlier part that
                 --out lacks are taken from there

All arms see the same completions and take the same number of updates: 128 rollouts of 256 completions with four updates
each, and for on-policy GRPO 512 rollouts of 64 with one. A run that is finished is not made again, so the study can be
stopped and started. Each run takes one core for about two minutes: 78 runs for the settings, 65 for the report, 66 for
the tracking; the 25 of the second tier take longer.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.analysis.seeds import cell, differences, interval
from entropilot.errors import UserError
from entropilot.law.law import ENTROPY
from entropilot.records import Run, read_run
from entropilot.reports.table import series
from experiments.exploration.arms import BASE, DEVELOPMENT, REPORT
from experiments.exploration.study import probabilities
from experiments.runs import command, keep, make, once, out_folder, side_by_side

Changes = dict[str, Any]
STEPS = 512
ON_POLICY: Changes = {"steps_per_generation": 1}
PASS = (1, 16, 256)  # k of pass@k
# The second tier is fixed by its base model alone (see `entropilot.sandbox.tasks.LONG`); nothing is chosen on it.
SECOND: Changes = {
    "model": "sandbox:long",
    "data": {"source": "sandbox:long", "limit": 4096},
    "grpo": {"max_completion_length": 60, "max_steps": 240},
    "validate": {"every": 8, "problems": 256, "temperature": 1.0},
}
TRIED, SAMPLES = 128, 32  # problems of the second tier's test split, and attempts at each
BEST = 4


def _method(*names: str, **arguments: Any) -> Changes:
    """Return the changes that name methods; `arguments` has a section per name where there are several."""
    return {"method": names[0] if len(names) == 1 else list(names), "method_args": arguments}


def _grpo(**values: Any) -> Changes:
    return {"grpo": values}


def _held(target: float | str | dict[int, float], *names: str, **arguments: Any) -> Changes:
    return _method("entropy_target", *names, entropy_target={"target": target}, **arguments)


def _band(low: float, end: float) -> Changes:
    return _method("entrocraft", low=low, high=low + 0.1, low_end=end, high_end=end + 0.1)


# Three settings each: the paper's or the nearest that acts on so small a model, and one on either side.
ARMS: dict[str, tuple[Changes, ...]] = {
    "grpo": tuple(_grpo(learning_rate=rate) for rate in (1e-4, 2e-4, 4e-4)),
    "on_policy": tuple(_grpo(**ON_POLICY, learning_rate=rate) for rate in (1e-4, 2e-4, 4e-4)),
    "clip_higher": tuple(_grpo(epsilon_high=high) for high in (0.28, 0.4, 1.0)),
    "adaptive_bonus": tuple(_grpo(use_adaptive_entropy=True, entropy_target=h) for h in (0.1, 0.2, 0.4)),
    "clip_cov": tuple(_method("clip_cov", restrain=share) for share in (0.5, 1.0, 1.2)),
    "kl_cov": tuple(_method("kl_cov", restrain=1.0, coef=coef) for coef in (1.0, 3.0, 10.0)),
    "qae": tuple(_method("qae", quantile=k) for k in (0.2, 0.4, 0.6)),
    "qae_clip_cov": tuple(
        _method("qae", "clip_cov", qae={"quantile": 0.4}, clip_cov={"restrain": share})
        for share in (0.25, 0.5, 1.0)
    ),
    "w_reinforce": tuple(_method("w_reinforce", weight=weight) for weight in (0.1, 0.5, 1.0)),
    "stare": tuple(
        _method("stare", two_sided=True, target=None, weight_up=w, weight_down=m)
        for w, m in ((1.1, 0.9), (1.5, 0.5), (2.0, 0.25))
    ),
    "repo": tuple(_method("repo", zeta=zeta) for zeta in (0.003, 0.01, 0.1)),
    "entrocraft": tuple(_band(low, end) for low, end in ((0.2, 0.05), (0.3, 0.1), (0.5, 0.2))),
    "entropy_target": tuple(_held(h, "clip_cov", clip_cov={"restrain": 1.0}) for h in (0.15, 0.3, 0.5)),
}

# Policy entropy of GRPO falls from 0.70 to 0.06 nats here: 0.4 is above what it ends at, 0.03 below.
STEP = 256
TARGETS: dict[str, dict[int, float]] = {
    "above": {0: 0.4},
    "below": {0: 0.03},
    "step": {0: 0.4, STEP - 1: 0.4, STEP: 0.2},
}
DRIVERS: dict[str, Callable[[dict[int, float]], Changes]] = {
    "stare": lambda target: _held(dict(target), "stare"),
    "entrocraft": lambda target: _held(dict(target), "entrocraft"),
    "clip_cov": lambda target: _held(dict(target), "clip_cov", clip_cov={"restrain": 1.0}),
    # TRL's bonus knows one number and no schedule.
    "adaptive_bonus": lambda target: _grpo(use_adaptive_entropy=True, entropy_target=target[0]),
    "none": lambda target: _grpo(),
}
RATES = (1e-4, 2e-4)


def followed(driver: str) -> list[str]:
    """Return the targets that a driver is given: all, or for TRL's bonus those without a step."""
    return [goal for goal in TARGETS if goal != "step" or driver != "adaptive_bonus"]


def tracked(driver: str, goal: str, rate: float, seed: int) -> str:
    """Return the name of a run; without a driver all targets are held against the same run."""
    return f"track-{driver}-{'free' if driver == 'none' else goal}-{rate:g}-{seed}"


def recipe_of(name: str, changes: Changes, seed: int, steps: int | None = STEPS) -> dict[str, Any]:
    """Return the recipe of a run; the seed draws the pool, the order, and every completion. `steps` None: as changed."""
    recipe = copy.deepcopy(BASE)
    for key, value in changes.items():
        recipe[key] = recipe[key] | value if isinstance(value, dict) and key in recipe else value
    if steps is not None:
        recipe["grpo"]["max_steps"] = steps
    if recipe["grpo"]["steps_per_generation"] == 1:
        recipe["validate"] = recipe["validate"] | {"every": 4 * recipe["validate"]["every"]}  # rollouts
    recipe["data"]["seed"] = seed
    return {"name": name, **recipe, "seed": seed}


def measured(out: Path, name: str, seed: int) -> dict[str, Any]:
    """Return what a finished run came to: exact accuracy on its pool, pass@k, problems lost, entropy, seconds."""
    folder = out / name
    pool = once(folder / "probabilities.json", lambda: probabilities(folder / "model", seed))["pool"]
    row = {f"pass@{k}": pool["pass"][str(k)] for k in PASS}
    return row | {"lost": float(np.mean(np.array(pool["p"]) < 1e-3))} | _entropy_and_seconds(folder)


def _entropy_and_seconds(folder: Path) -> dict[str, Any]:
    """Return the mean entropy of the last twelfth of a run, nats, and its seconds."""
    run = read_run(folder)
    entropy = series(run, ENTROPY)[1]
    last = max(1, len(entropy) // 12)
    return {
        "entropy": float(np.mean(entropy[-last:])),
        "seconds": (run.header.get("end") or {}).get("seconds"),
    }


def generalised(out: Path, name: str) -> dict[str, Any]:
    """Return what a finished run on the second tier came to on problems that it never met: pass@k of sampled attempts."""

    def sampled() -> dict[str, float]:
        from entropilot.evaluation.tier_properties import attempts
        from entropilot.inputs.models import load_model, quiet
        from entropilot.recipes.schema import Data, Recipe
        from entropilot.sandbox.tasks import LONG

        quiet()
        model, tokenizer = load_model(
            Recipe(model=str(out / name / "model"), data=Data(source="sandbox:long"))
        )
        tried = attempts(model.eval(), tokenizer, LONG, LONG.problems("test", TRIED, 0), SAMPLES)
        return {f"pass@{k}": tried.pass_at(k) for k in (1, 8, SAMPLES)}

    return once(out / name / "sampled.json", sampled) | _entropy_and_seconds(out / name)


def tracking(run: Run, target: Callable[[int], float], since: int = 0) -> dict[str, float | None]:
    """Return how an entropy followed its target, over the rollouts of a run after `since` optimiser steps.

    Keys: `error`, the mean of |ln(H/H*)| from the first arrival on; `overshoot`, the largest |ln(H/H*)| on the far side
    of the target after it; `steps`, optimiser steps from `since` to the first arrival, None where there was none (then
    `error` is over all of them); `entropy`, the mean of the last twelfth of the run, nats. Arrival is the first rollout
    within 10 %, or on the other side of the target.
    """
    steps, entropy = series(run, ENTROPY)
    seen = [(step, math.log(max(h, 1e-6) / target(step))) for step, h in zip(steps, entropy, strict=True)]
    seen = [(step, gap) for step, gap in seen if step > since]
    side = math.copysign(1.0, seen[0][1])
    arrived = next((i for i, (_, gap) in enumerate(seen) if abs(gap) <= 0.1 or gap * side < 0), None)
    after = [gap for _, gap in seen[arrived or 0 :]]
    return {
        "error": float(np.mean(np.abs(after))),
        "overshoot": None if arrived is None else max(0.0, *(-side * gap for gap in after)),
        "steps": None if arrived is None else float(seen[arrived][0] - since),
        "entropy": float(np.mean(entropy[-max(1, len(entropy) // 12) :])),
    }


def _run_all(out: Path, jobs: dict[str, tuple[Changes, int]], steps: int | None, processes: int) -> None:
    def train(name: str) -> None:
        changes, seed = jobs[name]
        make(out / name, recipe_of(name, changes, seed, steps))
        print(f"{name} is done", file=sys.stderr)

    side_by_side(train, list(jobs), processes)


def settle(
    out: Path, arm: str, seeds: Sequence[int], steps: int, processes: int
) -> list[list[dict[str, Any]]]:
    """Run three settings of an arm on the development seeds; return the rows of every setting."""
    names = {(i, seed): f"{arm}-setting{i}-{seed}" for i in range(3) for seed in seeds}
    jobs = {name: (ARMS[arm][i], seed) for (i, seed), name in names.items()}
    _run_all(out, jobs, steps, processes)
    return [[measured(out, names[i, seed], seed) for seed in seeds] for i in range(3)]


def best_setting(rows: Sequence[Sequence[dict[str, Any]]]) -> int:
    """Return the number of the setting of largest mean pass@1."""
    return int(np.argmax([np.mean([row["pass@1"] for row in found]) for found in rows]))


def report(
    out: Path, chosen: dict[str, int], seeds: Sequence[int], steps: int, processes: int
) -> dict[str, list[dict[str, Any]]]:
    """Run every arm with its setting on the report seeds; return {arm: [row of every seed]}."""
    names = {(arm, seed): f"{arm}-{seed}" for seed in seeds for arm in chosen}
    jobs = {name: (ARMS[arm][chosen[arm]], seed) for (arm, seed), name in names.items()}
    _run_all(out, jobs, steps, processes)
    return {arm: [measured(out, names[arm, seed], seed) for seed in seeds] for arm in chosen}


def second(
    out: Path, chosen: dict[str, int], seeds: Sequence[int], processes: int
) -> dict[str, list[dict[str, Any]]]:
    """Run arms with their settings of the pool on the second tier; return {arm: [row of every seed]}."""
    names = {(arm, seed): f"second-{arm}-{seed}" for seed in seeds for arm in chosen}
    jobs: dict[str, tuple[Changes, int]] = {}
    for (arm, seed), name in names.items():
        changes = ARMS[arm][chosen[arm]]
        jobs[name] = (changes | SECOND | {"grpo": changes.get("grpo", {}) | SECOND["grpo"]}, seed)
    _run_all(out, jobs, None, processes)
    return {arm: [generalised(out, names[arm, seed]) for seed in seeds] for arm in chosen}


def best_of(rows: dict[str, list[dict[str, Any]]], count: int = BEST) -> list[str]:
    """Return GRPO and the arms of largest mean pass@1 beside it."""
    means = {arm: float(np.mean([row["pass@1"] for row in found])) for arm, found in rows.items()}
    others = sorted((arm for arm in means if arm != "grpo"), key=lambda arm: -means[arm])
    return ["grpo", *others[:count]]


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table: means over seeds with half of the 95 % interval; differences are paired with GRPO."""
    columns = list(next(iter(rows.values()))[0])
    lines = [
        f"| arm | {' | '.join(columns)} | pass@1 against GRPO |",
        "|---" * (len(columns) + 2) + "|",
    ]
    base = [row["pass@1"] for row in rows.get("grpo", [])]
    for arm, found in rows.items():
        cells = [cell([row[column] for row in found]) for column in columns]
        gain = differences([row["pass@1"] for row in found], base) if base and arm != "grpo" else []
        lines.append(f"| {arm} | {' | '.join(cells)} | {cell(gain, sign=True) if gain else '–'} |")
    return "\n".join(lines)


def draw(rows: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """Draw what every arm gained over GRPO and the entropy it ended at, by gain; needs matplotlib."""
    from matplotlib import pyplot as plt

    base = [row["pass@1"] for row in rows["grpo"]]
    gains = {arm: [a["pass@1"] - b for a, b in zip(found, base, strict=True)] for arm, found in rows.items()}
    arms = sorted(rows, key=lambda arm: np.mean(gains[arm]))
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(8, 0.6 + 0.35 * len(arms)))
    panels = (
        (left, gains, 100, "accuracy against GRPO, points"),
        (right, {arm: [row["entropy"] for row in rows[arm]] for arm in arms}, 1, "entropy at the end, nats"),
    )
    for axis, values, unit, name in panels:
        for height, arm in enumerate(arms):
            each = [unit * float(value) for value in values[arm]]
            mean, half = interval(each) or (math.nan, math.nan)
            colour = "black" if arm == "grpo" else "tab:blue"
            axis.plot(each, [height] * len(each), "o", color=colour, alpha=0.3, markersize=4)
            axis.errorbar(
                mean, height, xerr=0 if math.isnan(half) else half, color=colour, fmt="s", capsize=3
            )
        axis.set_xlabel(name)
        axis.grid(axis="x", alpha=0.3)
        axis.margins(y=0.15)
    left.axvline(0, color="black", linewidth=0.8)
    right.set_xlim(left=0)
    left.set_yticks(range(len(arms)), arms)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def track(
    out: Path, seeds: Sequence[int], steps: int, processes: int
) -> dict[str, list[dict[str, float | None]]]:
    """Run every driver on its targets, at two learning rates; return {"driver target rate": [row of every seed]}.

    Of the step what comes after it is measured.
    """
    from entropilot.methods.entropy_target import EntropyTarget

    jobs: dict[str, tuple[Changes, int]] = {}
    for seed in seeds:
        for driver in DRIVERS:
            for goal in followed(driver):
                for rate in RATES:
                    changes = DRIVERS[driver](TARGETS[goal])
                    changes["grpo"] = changes.get("grpo", {}) | {"learning_rate": rate}
                    jobs[tracked(driver, goal, rate, seed)] = (changes, seed)
    _run_all(out, jobs, steps, processes)
    rows = {}
    for driver in DRIVERS:
        for goal in followed(driver):
            follow = EntropyTarget(target=dict(TARGETS[goal]))
            for rate in RATES:
                rows[f"{driver} {goal} {rate:g}"] = [
                    tracking(
                        read_run(out / tracked(driver, goal, rate, seed)),
                        lambda step, follow=follow: follow.at(step - 1, 0.0),
                        since=STEP if goal == "step" else 0,
                    )
                    for seed in seeds
                ]
    return rows


def tracking_table(rows: dict[str, list[dict[str, float | None]]]) -> str:
    """Return a Markdown table: means over seeds with half of the 95 % interval, and a dash where no seed arrived."""
    columns = ("error", "overshoot", "steps", "entropy")
    lines = [f"| driver | target | rate | {' | '.join(columns)} | arrived |", "|---" * 8 + "|"]
    for name, found in rows.items():
        cells = [cell([row[key] for row in found], ".0f" if key == "steps" else ".3f") for key in columns]
        arrived = sum(row["steps"] is not None for row in found)
        lines.append(f"| {' | '.join([*name.split(), *cells])} | {arrived} of {len(found)} |")
    return "\n".join(lines)


def earlier(files: Sequence[Path | None], part: str) -> dict[str, Any]:
    """Return the rows of an earlier part by arm, as `keep` wrote them; of an arm in several files, those of the last."""
    rows: dict[str, Any] = {}
    for file in files:
        if file is not None and file.exists():
            rows |= json.loads(file.read_text()).get(part, {})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/cures"))
    parser.add_argument("--part", choices=["settings", "report", "second", "tracking"], default="report")
    parser.add_argument("--arms", help="comma-separated names")
    parser.add_argument("--seeds", help="comma-separated numbers")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps of a run, for a trial")
    parser.add_argument(
        "--figure", type=Path, help="draw the table of the report or of the second tier (matplotlib)"
    )
    parser.add_argument(
        "--store", type=Path, help="add the rows of the part to this file (docs/results/cures.json)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    settings = parser.parse_args()
    if settings.arms == "list":
        print("\n".join(ARMS))
        return
    arms = list(ARMS) if settings.arms is None else [name.strip() for name in settings.arms.split(",")]
    for arm in arms:
        if arm not in ARMS:
            raise UserError(f"--arms: the study has no arm {arm!r}; it has: {', '.join(ARMS)}.")
    default = {"settings": DEVELOPMENT, "tracking": REPORT[:3]}.get(settings.part, REPORT)
    try:
        seeds = list(default) if settings.seeds is None else [int(seed) for seed in settings.seeds.split(",")]
    except ValueError:
        raise UserError(
            f"--seeds {settings.seeds}: give numbers with commas between them, such as 1,2,3."
        ) from None
    out = out_folder(settings.out)
    files = [settings.store, out / "rows.json"]
    if settings.part == "settings":
        for arm in arms:
            tried = settle(out, arm, seeds, settings.steps, settings.jobs)
            means = ", ".join(f"{np.mean([row['pass@1'] for row in found]):.3f}" for found in tried)
            print(f"{arm}: {means}; setting {best_setting(tried)}")
            for file in files:
                keep(file, settings.part, {arm: tried})
        return
    # Without the part `settings` the middle one of three, which is the paper's or the recipe's.
    known = earlier(files, "settings")
    chosen = {arm: best_setting(known[arm]) if arm in known else 1 for arm in ARMS}
    if settings.part == "tracking":
        rows = track(out, seeds, settings.steps, settings.jobs)
        text = tracking_table(rows)
    else:
        if settings.part == "report":
            rows = report(out, {arm: chosen[arm] for arm in arms}, seeds, settings.steps, settings.jobs)
        else:
            if settings.arms is None:  # the report is made first, if it is not there
                found = earlier(files, "report")
                arms = best_of(found or report(out, chosen, REPORT, settings.steps, settings.jobs))
            rows = second(out, {arm: chosen[arm] for arm in arms}, seeds, settings.jobs)
        text = table(rows)
        if settings.figure is not None:
            draw(rows, settings.figure)
    for file in files:
        keep(file, settings.part, rows)
    (out / f"{settings.part}.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    command(main)
