"""What the studies share: runs that are made once, models that are measured once, intervals over seeds.

python -m experiments.measured MODEL RESULT.json --problems 128 --samples 64 --temperatures 0 1
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.analysis.seeds import cell
from experiments.runs import ENVIRONMENT, finished

ROOT = Path(__file__).parent.parent
__all__ = ["ENVIRONMENT", "ROOT", "call", "cell", "differences", "finished", "make", "measure", "measured"]


def call(*arguments: object) -> None:
    """Run a command of entropilot on one thread."""
    command = [sys.executable, "-m", "entropilot", *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | ENVIRONMENT)


def make(folder: Path, recipe: str, *overrides: str) -> Path:
    """Train a recipe of this repository into a folder unless that is done; returns the model's folder."""
    if not finished(folder):
        call("train", ROOT / "recipes" / f"{recipe}.yaml", *overrides, "--out", folder)
    return folder / "model"


def measured(
    model: Path | str, result: Path, *, samples: int, temperatures: Sequence[float] = (0, 1)
) -> dict:
    """Return what a model does on the test split, measured once in a process of its own."""
    if not result.exists():
        temperature = [str(t) for t in temperatures]
        command = [sys.executable, __file__, str(model), str(result), "--samples", str(samples)]
        command += ["--temperatures", *temperature]
        subprocess.run(command, check=True, env=os.environ | ENVIRONMENT)
    return json.loads(result.read_text())


def differences(one: Sequence[dict], other: Sequence[dict], name: str) -> str:
    """Return the mean paired difference of a column with its interval."""
    return cell([a[name] - b[name] for a, b in zip(one, other, strict=True)])


def measure(model: str, problems: int, samples: int, temperatures: Sequence[float]) -> dict[str, Any]:
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
    rows = load_problems(Data(source="sandbox:chains", split="test", limit=problems)).to_list()
    tier, found = get_tier("chains"), {}
    for temperature in temperatures:
        k = samples if temperature > 0 else 1
        result = evaluate(
            loaded,
            tokenizer,
            rows,
            build_reward("sandbox", "chains"),
            temperature=temperature,
            max_new_tokens=tier.max_completion_length,
            samples=k,
            seed=1,
        )
        answers = [[tier.answer_of(text) for text in texts] for texts in result.completions]
        meanings = cluster(answers, build_judge("exact"))
        powers = [2**i for i in range(k.bit_length()) if 2**i <= k]
        found[f"{temperature:g}"] = {
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
    return found


def _majority_right(group: Any, gold: str) -> bool:
    """Whether the largest cluster, the first of several, has the right answer."""
    known = [label for label, text in enumerate(group.representatives) if text is not None]
    best = max(known, key=lambda label: group.sizes[label], default=None)
    return best is not None and group.representatives[best] == gold


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("result", type=Path)
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    settings = parser.parse_args()
    values = measure(settings.model, settings.problems, settings.samples, settings.temperatures)
    partial = settings.result.with_suffix(".partial")
    partial.write_text(json.dumps(values))
    partial.replace(settings.result)
