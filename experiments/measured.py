"""Measure a model on the test split of a tier of the sandbox, once, in a process of its own.

python -m experiments.measured MODEL RESULT.json --tier chains --problems 128 --samples 64 --temperatures 0 1
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.analysis.seeds import cell, differences
from entropilot.files import written_whole
from experiments.runs import command, python


def measured(
    model: Path | str,
    result: Path,
    *,
    samples: int,
    temperatures: Sequence[float] = (0, 1),
    tier: str = "chains",
) -> dict[str, Any]:
    """Return what a model does on the test split, measured once in a process of its own."""
    if not result.exists():
        settings = ("--tier", tier, "--samples", samples, "--temperatures", *temperatures)
        python("-m", "experiments.measured", model, result, *settings, what=f"Measuring {model}")
    return json.loads(result.read_text())


def difference_cell(one: Sequence[dict], other: Sequence[dict], name: str) -> str:
    """Return the mean difference of a column over seeds with its interval, for a table."""
    return cell(differences([row[name] for row in one], [row[name] for row in other]))


def measure(
    model: str, problems: int, samples: int, temperatures: Sequence[float], tier_name: str = "chains"
) -> dict[str, Any]:
    """Return accuracy, pass@k and semantic entropy per temperature, on problems of the test split."""
    import torch

    from entropilot.answers.clusters import cluster
    from entropilot.answers.judges import build_judge
    from entropilot.evaluation.in_memory import evaluate
    from entropilot.inputs.models import load_model
    from entropilot.inputs.problems import load_problems
    from entropilot.recipes.schema import Data, Recipe
    from entropilot.rewards.named import build_reward
    from entropilot.sandbox.tasks import get_tier

    torch.set_num_threads(1)
    loaded, tokenizer = load_model(Recipe(model=model))
    rows = load_problems(Data(source=f"sandbox:{tier_name}", split="test", limit=problems)).to_list()
    tier, by_temperature = get_tier(tier_name), {}
    for temperature in temperatures:
        k = samples if temperature > 0 else 1
        result = evaluate(
            loaded,
            tokenizer,
            rows,
            build_reward("sandbox", tier_name),
            temperature=temperature,
            max_new_tokens=tier.max_completion_length,
            samples=k,
            seed=1,
        )
        answers = [[tier.answer_of(text) for text in texts] for texts in result.completions]
        meanings = cluster(answers, build_judge("exact"))
        powers = [2**i for i in range(k.bit_length()) if 2**i <= k]
        by_temperature[f"{temperature:g}"] = {
            "accuracy": result.accuracy,
            "pass": {str(power): result.pass_at(power) for power in powers},
            "semantic entropy": float(np.mean([group.semantic_entropy for group in meanings])),
            "majority": float(
                np.mean(
                    [_majority_right(group, row["answer"]) for group, row in zip(meanings, rows, strict=True)]
                )
            ),
            "length": float(np.mean([length for row in result.lengths for length in row])),
        }
    return by_temperature


def _majority_right(group: Any, gold: str) -> bool:
    """Whether the largest cluster, the first of several, has the right answer."""
    known = [label for label, text in enumerate(group.representatives) if text is not None]
    best = max(known, key=lambda label: group.sizes[label], default=None)
    return best is not None and group.representatives[best] == gold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("result", type=Path)
    parser.add_argument("--tier", default="chains")
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    settings = parser.parse_args()
    how = (settings.problems, settings.samples, settings.temperatures, settings.tier)
    values = measure(settings.model, *how)
    with written_whole(settings.result) as file:
        file.write(json.dumps(values).encode())


if __name__ == "__main__":
    command(main)
