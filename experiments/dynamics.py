"""Covariance of responses against the fall of entropy, update by update: python -m experiments.dynamics --out runs/dynamics

Trains recipes/dynamics.yaml (strictly on-policy, entropy measured on fixed completions around every update) with AdamW, and
with plain SGD, whose step is the gradient that the theory speaks of. Prints correlations with 95 % t intervals over
seeds, and the covariance by accuracy of the prompt.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from entropilot.analysis.dynamics import Agreement, Level, agreement, by_difficulty
from entropilot.analysis.seeds import cell
from entropilot.records import read_run
from entropilot.reports.text import aligned
from experiments.runs import command, make, out_folder, recipe

OPTIMISERS = {"adam": (), "sgd": ("grpo.optim=sgd", "grpo.learning_rate=0.1")}
RULES = {"pg": "Cov(log π, π·A)", "npg": "Cov(log π, A)"}


def measure(folder: Path) -> tuple[dict[str, Agreement], list[Level]]:
    """Return the agreement by rule, and the covariance by difficulty, of one run."""
    run = read_run(folder)
    found = {}
    for rule in RULES:
        rows = run.column(f"dynamics/covariance_{rule}", "dynamics/entropy_before", "dynamics/entropy_after")
        found[rule] = agreement([row[1] for row in rows], [row[2] - row[3] for row in rows])
    return found, by_difficulty(run.rows)


def difficulty(levels: Sequence[Sequence[Level]], rows: list[list[str]], name: str) -> None:
    """Add a row per accuracy that every run had."""
    shared = set.intersection(*({level.accuracy for level in of_run} for of_run in levels))
    for accuracy in sorted(shared):
        here = [next(level for level in of_run if level.accuracy == accuracy) for of_run in levels]
        prompts = sum(level.prompts for level in here)
        values = [cell([getattr(level, f"covariance_{rule}") for level in here]) for rule in RULES]
        rows.append([name, f"{accuracy:.3f}", str(prompts), *values])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/dynamics"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    settings = parser.parse_args()
    out = out_folder(settings.out)
    heading = ["optimiser", "covariance", "Pearson", "Spearman", "detrended", "same sign", "η"]
    table, hard = [heading], [["optimiser", "accuracy", "prompts", *RULES.values()]]
    for name, how in OPTIMISERS.items():
        folders = [out / f"{name}-{seed}" for seed in settings.seeds]
        for seed, folder in zip(settings.seeds, folders, strict=True):
            make(folder, recipe("dynamics", f"seed={seed}", *how))
        found = [measure(folder) for folder in folders]
        for rule, words in RULES.items():
            runs = [of_run[rule] for of_run, _ in found]
            correlations = [
                cell([getattr(run, key).value for run in runs])
                for key in ("pearson", "spearman", "detrended")
            ]
            rest = [cell([run.same_sign for run in runs]), cell([run.step_size for run in runs])]
            table.append([name, words, *correlations, *rest])
        difficulty([levels for _, levels in found], hard, name)
    print(f"seeds {settings.seeds}; mean ± half of the 95 % t interval over seeds\n")
    print(aligned(table, (0, 1)))
    print("\ncovariance by accuracy of the prompt\n")
    print(aligned(hard, (0,)))


if __name__ == "__main__":
    command(main)
