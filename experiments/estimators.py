"""The law under three advantage estimators: python -m experiments.estimators --out runs/estimators

Trains recipes/grpo.yaml with GRPO's, RLOO's and REINFORCE++'s advantages on every seed (a run that is finished is not
made again), fits R = −a·exp(H) + b to each, forecasts each from its first 15 % of steps, and asks whether a and b are
the same: paired differences over seeds to GRPO with their 95 % t intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.analysis.seeds import cell
from entropilot.law.by_law import backtest, continue_by_law
from entropilot.law.law import fit_run
from entropilot.records import read_run
from entropilot.reports.text import aligned
from experiments.measured import difference_cell
from experiments.runs import command, keep, make, out_folder, recipe, side_by_side

ESTIMATORS = ("grpo", "rloo", "reinforce++")
PREFIX = 0.15  # the paper's
COLUMNS = {
    "acc end": "accuracy at the end",
    "H end": "entropy at the end, nats",
    "a": "a",
    "b": "b",
    "ceiling": "ceiling −a + b",
    "R at H = 0.2": "fitted R at H = 0.2",
    "R²": "R²",
    "RMSE": "RMSE",
    "forecast RMSE": "forecast RMSE (fit on the first 15 %, later H as measured)",
    "no change RMSE": "the same of predicting no change",
    "forecast in time, error at the end": "forecast in time from the first 15 %, error at the end",
}
COMPARED = ("a", "b", "ceiling", "R at H = 0.2", "acc end")


def measure(folder: Path) -> dict[str, Any]:
    """Return what the tables show of one run, and its course: step, policy entropy in nats, held-out accuracy."""
    run = read_run(folder)
    fit, names = fit_run(run)
    points = [(h, r) for _, h, r in run.column(*names)]
    held = backtest([h for h, _ in points], [r for _, r in points], PREFIX)
    steps = [(step, h, r) for step, h, r in run.column(*names)]
    begin, end = steps[0][0], max(row["step"] for row in run.rows)
    t, h, r = zip(*(row for row in steps if row[0] - begin <= PREFIX * (end - begin)), strict=True)
    ahead = continue_by_law(t, h, r, end)
    last = float(np.mean([r for _, r in points][-5:]))
    return {
        "acc end": last,
        "H end": float(np.mean([h for h, _ in points][-5:])),
        "a": fit.a,
        "b": fit.b,
        "ceiling": fit.ceiling,
        "R at H = 0.2": fit.predict(0.2),
        "R²": fit.r2,
        "RMSE": fit.rmse,
        "forecast RMSE": held.rmse,
        "no change RMSE": held.naive_rmse,
        "forecast in time, error at the end": ahead.performance - last,
        "course": steps,
    }


def one(folder: Path, estimator: str, seed: int) -> dict[str, Any]:
    """Train and measure one run; R is measured before every rollout, so that it gives 60 points."""
    make(folder, recipe("grpo", f"advantage_estimator={estimator}", f"seed={seed}", "validate.every=1"))
    return {"seed": seed} | measure(folder)


def over_seeds(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Return the rows of the first table: means with intervals, a column of each estimator."""
    rows = [["", *found]]
    return rows + [
        [words, *(cell([row[name] for row in runs]) for runs in found.values())]
        for name, words in COLUMNS.items()
    ]


def against_grpo(found: Mapping[str, Sequence[dict[str, Any]]]) -> list[list[str]]:
    """Return the rows of the second table: differences to GRPO, paired by seed."""
    others = [estimator for estimator in found if estimator != "grpo"]
    rows = [["", *others]]
    return rows + [
        [COLUMNS[name], *(difference_cell(found[other], found["grpo"], name) for other in others)]
        for name in COMPARED
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/estimators"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument(
        "--store", type=Path, help="keep a row of every run here (docs/results/law_on_sandbox.json)"
    )
    settings = parser.parse_args()
    out = out_folder(settings.out)
    jobs = [(estimator, seed) for seed in settings.seeds for estimator in ESTIMATORS]
    rows = side_by_side(lambda job: one(out / f"{job[0]}-{job[1]}", *job), jobs, settings.jobs)
    found = {
        e: [row for (estimator, _), row in zip(jobs, rows, strict=True) if estimator == e] for e in ESTIMATORS
    }
    keep(settings.store, "estimators", found)
    print(f"seeds {settings.seeds}; mean ± half of the 95 % t interval over seeds\n")
    print(aligned(over_seeds(found)))
    print("\npaired differences to grpo\n")
    print(aligned(against_grpo(found)))


if __name__ == "__main__":
    command(main)
