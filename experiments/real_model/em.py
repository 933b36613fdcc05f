"""Study 1: one-shot entropy minimisation (arXiv:2505.20282) with the paper's settings, on a real language model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from experiments.real_model.base import measured, prompt_file, shifted
from experiments.real_model.clock import Clock
from experiments.runs import make, once, recipe

ARMS = {  # choice of the prompt, temperature of sampling and loss
    "variance, T 0.5": ("variance", 0.5),
    "random, T 0.5": ("random", 0.5),
    "variance, T 1": ("variance", 1.0),
}
CHECKPOINTS = (1, 5, 10, 20)
SHIFT_AT = 10  # updates after which logits are compared with the base's


def recipe_of(prompt: Path, temperature: float, seed: int, updates: int) -> dict[str, Any]:
    """Return the recipe of one run: `recipes/smollm2/entropy_min.yaml` on this prompt.

    No optimiser is kept: with it, four checkpoints would take 6 GB.
    """
    return recipe(
        "smollm2/entropy_min",
        *(f"seed={seed}", f"data.source={prompt}", "data.limit=null", "validate=null"),
        *(f"method_args.temperature={temperature}", f"method_args.updates={updates}"),
        *(
            "grpo.save_strategy=steps",
            "grpo.save_steps=5",
            "grpo.save_total_limit=4",
            "grpo.save_only_model=true",
        ),
    )


def name_of(arm: str, seed: int) -> str:
    """Return the name of an arm's folder."""
    return f"em-{arm.replace(', ', '-').replace(' ', '')}-{seed}"


def one(out: Path, model: str, arm: str, seed: int) -> dict[str, Any]:
    """Return what one arm with one seed does after 1, 5, 10 and 20 updates; made once, and its models removed then.

    The first update is a run of its own: checkpoints come every five updates, and each takes 0.5 GB.
    """

    def run() -> dict[str, Any]:
        choice, temperature = ARMS[arm]
        folder = out / name_of(arm, seed)
        prompt = prompt_file(out, model, choice, seed)
        models = {}
        for updates in (1, max(CHECKPOINTS)):
            values = recipe_of(prompt, temperature, seed, updates) | {"model": model}
            models[updates] = make(folder / f"{updates}", values)
        long = folder / f"{max(CHECKPOINTS)}" / "checkpoints"
        models = {n: models[1] if n == 1 else long / f"checkpoint-{n}" for n in CHECKPOINTS}
        rows = {str(n): measured(path, folder / f"after-{n}") for n, path in models.items()}
        return rows | {"shift": shifted(model, models[SHIFT_AT], folder / "shift.json")}

    found = once(out / f"{name_of(arm, seed)}.json", run)
    for folder in (out / name_of(arm, seed)).glob("*/*"):
        if folder.name in ("model", "checkpoints"):
            shutil.rmtree(folder)
    return found


def study(out: Path, model: str, seeds: list[int], clock: Clock) -> None:
    """Make all arms of the first seed, then of the next."""
    for seed in seeds:
        for arm in ARMS:
            if clock.over():
                return
            rows = one(out, model, arm, seed)
            told = ", ".join(
                f"{n}: {rows[str(n)]['greedy']:.3f} {rows[str(n)]['avg@16']:.3f}" for n in CHECKPOINTS
            )
            print(f"{arm}, seed {seed}: greedy and avg@16 after updates {told}", flush=True)
