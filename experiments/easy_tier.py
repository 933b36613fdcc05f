"""The quickstart's table over seeds: python -m experiments.easy_tier --out runs/easy_tier

Trains recipes/{grpo,clip_higher,no_clip,clip_cov,kl_cov}.yaml on every seed (a run that is finished is not made
again), prints the mean of every column with its 95 % t interval over seeds, and the paired differences to a control.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from entropilot.analysis.seeds import cell
from entropilot.records import read_run
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
    "seconds": "seconds",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/easy_tier"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
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
            table[method].append({"seed": seed} | summarise(read_run(folder)))
    keep(settings.store, "easy tier", table)
    print(f"seeds {settings.seeds}; mean ± half of the 95 % t interval over seeds\n")
    rows = [["recipe", *COLUMNS]]
    for method, runs in table.items():
        rows.append([method, *(cell([run[key] for run in runs]) for key in COLUMNS.values())])
    print(aligned(rows))
    print("\npaired differences at the end, and the ratio of the entropies\n")
    rows = [["recipe", "against", "acc end", "H end", "H ratio"]]
    for method, control in CONTROL.items():
        if method not in table or control not in table:
            continue
        pairs = list(zip(table[method], table[control], strict=True))
        differences = [[a[key] - b[key] for a, b in pairs] for key in ("accuracy_end", "entropy_end")]
        ratios = [float(np.log(a["entropy_end"] / b["entropy_end"])) for a, b in pairs]
        half = stats.t.ppf(0.975, len(ratios) - 1) * np.std(ratios, ddof=1) / np.sqrt(len(ratios))
        low, mid, high = (float(np.exp(np.mean(ratios) + sign * half)) for sign in (-1, 0, 1))
        ratio = f"{mid:.2f} ({low:.2f} to {high:.2f})"
        rows.append([method, control, *(cell(values) for values in differences), ratio])
    print(aligned(rows, (0, 1)))


if __name__ == "__main__":
    command(main)
