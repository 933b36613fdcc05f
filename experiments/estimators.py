"""The law under three advantage estimators: python -m experiments.estimators --out runs/estimators

Trains recipes/grpo.yaml with GRPO's, RLOO's and REINFORCE++'s advantages on every seed (a run that is finished is not
made again), fits R = −a·exp(H) + b to each, forecasts each from its first 15 % of steps, and asks whether a and b are
the same: paired differences over seeds to GRPO with their 95 % t intervals.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from entropilot.analysis.seeds import cell
from entropilot.law.by_law import backtest, continue_by_law
from entropilot.law.law import fit_run
from entropilot.records import read_run
from entropilot.reports.text import aligned
from experiments.measured import difference_cell
from experiments.runs import command, make, out_folder, recipe, side_by_side

ESTIMATORS = ("grpo", "rloo", "reinforce++")
PREFIX = 0.15  # the paper's


def measure(folder: Path) -> dict[str, float]:
    """Return what the table shows of one run."""
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
    }


def one(folder: Path, estimator: str, seed: int) -> dict[str, float]:
    """Train and measure one run; R is measured before every rollout, so that it gives 60 points."""
    make(folder, recipe("grpo", f"advantage_estimator={estimator}", f"seed={seed}", "validate.every=1"))
    return measure(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/estimators"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    settings = parser.parse_args()
    out = out_folder(settings.out)
    jobs = [(estimator, seed) for seed in settings.seeds for estimator in ESTIMATORS]
    rows = side_by_side(lambda job: one(out / f"{job[0]}-{job[1]}", *job), jobs, settings.jobs)
    found = {
        e: [row for (estimator, _), row in zip(jobs, rows, strict=True) if estimator == e] for e in ESTIMATORS
    }
    print(f"seeds {settings.seeds}; mean ± half of the 95 % t interval over seeds\n")
    table = [["", *ESTIMATORS]]
    for name in found["grpo"][0]:
        table.append([name, *(cell([row[name] for row in runs]) for runs in found.values())])
    print(aligned(table))
    print("\npaired differences to grpo\n")
    table = [["", *ESTIMATORS[1:]]]
    for name in found["grpo"][0]:
        table.append([name, *(difference_cell(found[e], found["grpo"], name) for e in ESTIMATORS[1:])])
    print(aligned(table))


if __name__ == "__main__":
    command(main)
