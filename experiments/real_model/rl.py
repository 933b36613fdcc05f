"""Studies 2 and 3: GRPO and what holds entropy up, then rewards without labels, on a real language model."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.analysis.dynamics import agreement
from entropilot.errors import UserError
from entropilot.law.assess import assess_run
from entropilot.law.forecast import forecast_run
from entropilot.records import ACCURACY, ENTROPY, REWARD, read_run
from experiments.real_model.base import measured, shifted
from experiments.real_model.clock import Clock
from experiments.runs import make, once, recipe

ROLLOUTS = 40
# Every arm draws the same number of completions (40 x 128) and makes the same number of updates (160), each on 32 of
# them; `on_policy` draws the 32 of every update anew.
ARMS = {
    "grpo": ("smollm2/grpo",),
    "on_policy": ("smollm2/grpo", "grpo.steps_per_generation=1", "validate.every=32"),
    "clip_cov": ("smollm2/clip_cov",),
    "kl_cov": ("smollm2/kl_cov",),
}
LABEL_FREE = {
    "empo": ("smollm2/empo",),
    # EMPO's objective with the true reward in its place
    "gold": ("smollm2/empo", "reward=exact", "reward_args={}"),
}


def recipe_of(arm: str, seed: int) -> dict[str, Any]:
    """Return the recipe of one run; no checkpoint is kept."""
    name, *changes = (ARMS | LABEL_FREE)[arm]
    return recipe(
        name, f"seed={seed}", f"data.seed={seed}", *changes, 'grpo.save_strategy="no"', "probe.prefixes=16"
    )


def course_of(folder: Path) -> dict[str, Any]:
    """Return what a run's record says: ends, courses, the law with its verdict, a forecast, ΔH against covariance.

    Ends are means over 640 completions (five rollouts of 128), of accuracy the single measurements. The law is of the
    training reward, which has a value in every rollout; the forecast is made from the first 30 % of them. ΔH is measured
    on fixed completions around every update, and compared with the covariance where a row holds one: at the first update
    of a rollout, whose completions the covariance is of. What can't be computed of a run is left out.
    """
    run = read_run(folder)
    row: dict[str, Any] = {}
    rollouts = max(1, len(run.column(REWARD)) // ROLLOUTS) * 5
    for name, metric, few in (
        ("reward", REWARD, rollouts),
        ("entropy", ENTROPY, rollouts),
        ("accuracy", ACCURACY, 1),
    ):
        values = [value for _, value in run.column(metric)]
        row[name] = {"start": float(np.mean(values[:few])), "end": float(np.mean(values[-few:]))}
        row[name]["course"] = [list(pair) for pair in run.column(metric)]
    with suppress(UserError):
        fit, _, assessment = assess_run(run, performance=REWARD)
        row["law"] = {"a": fit.a, "b": fit.b, "ceiling": fit.ceiling, "r2": fit.r2, "n": fit.n}
        row["law"] |= {"trusted": assessment.trusted}
    with suppress(UserError):
        ahead = forecast_run(run, 0.3, performance=REWARD)
        if ahead.measured is not None:
            low, high = ahead.interval
            row["forecast"] = {
                **{"value": ahead.performance, "low": low, "high": high, "law": ahead.law},
                **{"measured": ahead.measured[1], "inside": low <= ahead.measured[1] <= high},
            }
    around = ("dynamics/entropy_before", "dynamics/entropy_after")
    for rule in ("pg", "npg"):
        rows = run.column(f"dynamics/covariance_{rule}", *around)
        with suppress(UserError):
            found = agreement([each[1] for each in rows], [each[2] - each[3] for each in rows])
            row[f"dynamics {rule}"] = {
                **{"updates": found.updates, "pearson": found.pearson.value},
                **{"detrended": found.detrended.value, "same sign": found.same_sign},
            }
    return row


def one(out: Path, model: str, arm: str, seed: int) -> dict[str, Any]:
    """Return what one run leaves, measured once; its model is removed then, its record stays."""

    def run() -> dict[str, Any]:
        folder = out / f"{arm}-{seed}"
        trained = make(folder, recipe_of(arm, seed) | {"model": model})
        return measured(trained, out / f"{arm}-{seed}-after") | {"run": course_of(folder)}

    found = once(out / f"{arm}-{seed}.json", run)
    trained, shift = out / f"{arm}-{seed}" / "model", out / f"{arm}-{seed}-shift.json"
    if trained.exists() or shift.exists():
        found["shift"] = shifted(model, trained, shift)
    shutil.rmtree(trained, ignore_errors=True)
    return found


def _study(
    out: Path, model: str, arms: Iterable[str], seeds: list[int], clock: Clock, only: Sequence[str] | None
) -> None:
    chosen = [arm for arm in arms if only is None or arm in only]
    for seed in seeds:
        for arm in chosen:
            if clock.over():
                return
            row = one(out, model, arm, seed)
            told = ", ".join(f"{name} {row[name]:.3f}" for name in ("greedy", "avg@16", "pass@16", "entropy"))
            print(f"{arm}, seed {seed}: {told}", flush=True)


def study(out: Path, model: str, seeds: list[int], clock: Clock, arms: Sequence[str] | None = None) -> None:
    """Make the arms of study 2, or those named, of the first seed, then of the next."""
    _study(out, model, ARMS, seeds, clock, arms)


def label_free(
    out: Path, model: str, seeds: list[int], clock: Clock, arms: Sequence[str] | None = None
) -> None:
    """Make EMPO and its gold reward, or the one named, with the first two seeds."""
    _study(out, model, LABEL_FREE, seeds[:2], clock, arms)
