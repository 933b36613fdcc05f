"""Covariance of responses against the fall of entropy, update by update: python -m experiments.dynamics --out runs/dynamics

Trains recipes/dynamics.yaml (strictly on-policy, entropy measured on fixed completions around every update) with AdamW, and
with plain SGD, whose step is the gradient that the theory speaks of. Prints correlations with 95 % t intervals over
seeds, and the covariance by accuracy of the prompt.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entropilot.analysis.dynamics import agreement, by_difficulty
from entropilot.analysis.seeds import cell
from entropilot.records import read_run
from entropilot.reports.text import aligned
from experiments.runs import command, keep, make, out_folder, recipe

OPTIMISERS = {"adam": (), "sgd": ("grpo.optim=sgd", "grpo.learning_rate=0.1")}
RULES = {"pg": "Cov(log π, π·A)", "npg": "Cov(log π, A)"}
CORRELATIONS = ("pearson", "spearman", "detrended")


def measure(folder: Path) -> dict[str, Any]:
    """Return what the tables show of one run: the agreement by rule, and the covariance by accuracy of the prompt."""
    run = read_run(folder)
    found: dict[str, Any] = {}
    for rule in RULES:
        rows = run.column(f"dynamics/covariance_{rule}", "dynamics/entropy_before", "dynamics/entropy_after")
        fit = agreement([row[1] for row in rows], [row[2] - row[3] for row in rows])
        found[rule] = {name: getattr(fit, name).value for name in CORRELATIONS} | {
            "same sign": fit.same_sign,
            "positive": fit.positive,
            "step size": fit.step_size,
            "entropy": [rows[0][2], rows[-1][3]],
        }
    return found | {"levels": [level._asdict() for level in by_difficulty(run.rows)]}


def agreements(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Return the rows of the first table: correlations with the fall of entropy, by optimiser and rule."""
    rows = [["optimiser", "covariance", "Pearson", "Spearman", "detrended", "same sign", "η"]]
    for optimiser, runs in found.items():
        for rule, words in RULES.items():
            correlations = [cell([run[rule][name] for run in runs], ".2f") for name in CORRELATIONS]
            rest = [
                cell([100 * run[rule]["same sign"] for run in runs], ".0f") + " %",
                cell([run[rule]["step size"] for run in runs]),
            ]
            rows.append([optimiser, words, *correlations, *rest])
    return rows


def difficulty(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Return the rows of the second table: one per optimiser and accuracy that every run had."""
    rows = [["optimiser", "accuracy", "prompts", *RULES.values()]]
    for optimiser, runs in found.items():
        levels = [{level["accuracy"]: level for level in run["levels"]} for run in runs]
        for accuracy in sorted(set.intersection(*map(set, levels))):
            here = [of_run[accuracy] for of_run in levels]
            prompts = sum(level["prompts"] for level in here)
            values = [cell([level[f"covariance_{rule}"] for level in here]) for rule in RULES]
            rows.append([optimiser, f"{accuracy:.3f}", f"{prompts:,}", *values])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/dynamics"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--store", type=Path, help="keep a row of every run here (docs/results/law_on_sandbox.json)"
    )
    settings = parser.parse_args()
    out = out_folder(settings.out)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in OPTIMISERS}
    for seed in settings.seeds:
        for name, how in OPTIMISERS.items():
            folder = out / f"{name}-{seed}"
            make(folder, recipe("dynamics", f"seed={seed}", *how))
            found[name].append({"seed": seed} | measure(folder))
    keep(settings.store, "dynamics", found)
    print(f"seeds {settings.seeds}; mean ± half of the 95 % t interval over seeds\n")
    print(aligned(agreements(found), (0, 1)))
    print("\ncovariance by accuracy of the prompt\n")
    print(aligned(difficulty(found), (0,)))


if __name__ == "__main__":
    command(main)
