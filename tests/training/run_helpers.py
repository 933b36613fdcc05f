"""Real runs, small: a recipe of four steps, and eyes on what it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from entropilot.recipes.schema import Recipe
from entropilot.records import Run
from entropilot.training.stages import train

# Two rollouts of 8 prompts x 4, two updates each.
GRPO = {
    "per_device_train_batch_size": 16,
    "steps_per_generation": 2,
    "num_generations": 4,
    "max_completion_length": 20,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant",
    "max_steps": 4,
    "save_steps": 2,
}
_finished: list[Path] = []


def recipe(grpo: dict[str, Any] | None = None, **fields: Any) -> Recipe:
    """Return a small recipe with other values here and there."""
    defaults = {"name": "small", "data": {"limit": 64}, "validate": {"problems": 8}, "seed": 3}
    return Recipe.model_validate(defaults | {"grpo": GRPO | (grpo or {})} | fields)


def rows_of(run: Run) -> list[dict[str, Any]]:
    """Return the rows without the clock."""
    return [{key: value for key, value in row.items() if not key.startswith("seconds/")} for row in run.rows]


def same_weights(one: Path, two: Path) -> bool:
    """Whether two model folders hold the same numbers, bit by bit."""
    first, second = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run of four steps, made once a session; a test that changes it takes a copy."""
    if not _finished:
        out = tmp_path_factory.mktemp("finished") / "run"
        assert train(recipe(), out) == out / "model"
        _finished.append(out)
    return _finished[0]
