"""The quickstart's table over seeds: python -m experiments.easy_tier --out runs/easy_tier

Trains recipes/{grpo,clip_higher,no_clip,clip_cov,kl_cov}.yaml on every seed (a run that is finished is not made
again), prints the mean of every column with its 95 % t interval over seeds, and the paired differences to a control.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.analysis.seeds import cell, differences, ratio_cell
from entropilot.records import Run, read_run
from entropilot.reports.table import summarise
from entropilot.reports.text import aligned
from experiments.runs import command, keep, make, out_folder, recipe

# Each beside the control with the same clip and the same updates per rollout (Clip-Cov's clip of ±1 hardly ever
# bites: at most 0.6 % of tokens).
CONTROL = {"clip_higher": "grpo", "no_clip": "grpo", "clip_cov": "no_clip", "kl_cov": "no_clip"}
COLUMNS = {
    "acc start": "accuracy_start",
    "acc end": "accuracy_end",
    "H start": "entropy_start",
    "H end": "entropy_end",
    "a": "a",
    "b": "b",
    "ceiling": "ceiling",
    "R²": "r2",
}


Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def measure(run: Run) -> dict[str, Any]:
    """Return the run's summary and, where tokens are chosen, how many and their median share of the net covariance."""
    chosen = [row for row in run.rows if row.get("chosen/eligible")]
    found = {"chosen": None, "share": None}
    if chosen:
        found = {
            "chosen": float(np.mean([row["chosen/tokens"] for row in chosen])),
            "share": float(np.median([row["chosen/net_share"] for row in chosen])),
        }
    return summarise(run) | found


def over_seeds(table: Rows) -> list[list[str]]:
    """Return the rows of the first table: every column's mean with its interval."""
    rows = [["recipe", *COLUMNS]]
    for recipe_name, runs in table.items():
        rows.append([recipe_name, *(cell([run[key] for run in runs]) for key in COLUMNS.values())])
    return rows


def against_control(table: Rows) -> list[list[str]]:
    """Return the rows of the second table: differences to the control at the end, and the ratio of the entropies."""
    rows = [["recipe", "against", "acc end", "H end", "H ratio"]]
    for recipe_name, control in CONTROL.items():
        if recipe_name not in table or control not in table:
            continue
        ends = {
            key: [[run[key] for run in table[name]] for name in (recipe_name, control)]
            for key in ("accuracy_end", "entropy_end")
        }
        cells = [cell(differences(*pair), sign=True) for pair in ends.values()]
        rows.append([recipe_name, control, *cells, ratio_cell(*ends["entropy_end"], ".2f")])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/easy_tier"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument(
        "--methods", nargs="+", default=["grpo", "clip_higher", "no_clip", "clip_cov", "kl_cov"]
    )
    parser.add_argument(
        "--store", type=Path, help="keep a row of every run here (docs/results/easy_tier.json)"
    )
    settings = parser.parse_args()
    out = out_folder(settings.out)
    table: dict[str, list[dict[str, Any]]] = {method: [] for method in settings.methods}
    for seed in settings.seeds:
        for method in settings.methods:
            folder = out / f"{method}-{seed}"
            make(folder, recipe(method, f"seed={seed}"))
            table[method].append({"seed": seed} | measure(read_run(folder)))
    keep(settings.store, "easy tier", table)
    print(f"seeds {settings.seeds}; mean ± half of the 95 % t interval over seeds\n")
    print(aligned(over_seeds(table)))
    print("\npaired differences at the end, and the ratio of the entropies\n")
    print(aligned(against_control(table), (0, 1)))


if __name__ == "__main__":
    command(main)
