"""A training that takes seconds, in a process of its own that may be killed, and everything that it leaves."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from run_helpers import rows_of
from safetensors.torch import load_file
from trl_helpers import tiny_model

from entropilot.engines.trl.checkpoints import MANIFEST, read_manifest, write_manifest
from entropilot.recipes.schema import Recipe
from entropilot.records import RecordWarning, read_run, token_steps
from entropilot.sandbox.tokenizer import build_tokenizer
from entropilot.training.stages import train

UPDATES = 3  # per rollout
STEPS = 8  # ends inside a rollout, as do checkpoints 1, 2, 4, 5, 7


def letters(completions: list[Any], **_: Any) -> list[float]:
    """Reward that depends on the text alone and differs within most groups."""
    return [float(sum(map(ord, messages[-1]["content"])) % 3) / 2 for messages in completions]


def tiny_recipe(model: Path, grpo: dict[str, Any] | None = None, **fields: Any) -> Recipe:
    """Return a recipe of two and two thirds rollouts that saves after every update, on a model of 0.02 M parameters."""
    if not model.exists():
        tiny_model().save_pretrained(model)
        build_tokenizer().save_pretrained(model)
    settings = {
        "per_device_train_batch_size": 4,
        "steps_per_generation": UPDATES,
        "gradient_accumulation_steps": 1,
        "num_generations": 4,
        "max_completion_length": 8,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "linear",
        "max_steps": STEPS,
        "save_steps": 1,
        "save_total_limit": 3,
    }
    defaults = {
        "name": "tiny",
        "model": str(model),
        "data": {"source": "sandbox", "limit": 32},
        "method": "kl_cov",
        "method_args": {"fraction": 0.04},
        "reward": "crash_helpers.letters",
        "validate": {"problems": 4, "every": 2, "reward": "sandbox"},
        "probe": {"tokens_every": 2, "prefixes": 2},
        "seed": 3,
    }
    return Recipe.model_validate(defaults | {"grpo": settings | (grpo or {})} | fields)


def _train(recipe: dict[str, Any], out: Path, resume: bool) -> None:
    logging.getLogger("entropilot").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordWarning)  # a kill tears lines
        train(Recipe.model_validate(recipe), out, resume=resume)


def server() -> Any:
    """Return the context of processes that start in no time, because a server has imported everything for them."""
    context = multiprocessing.get_context("forkserver")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # the server imports before it is told where from
    context.set_forkserver_preload(["crash_preload"])
    return context


def start(recipe: Recipe, out: Path, resume: bool = False) -> Any:
    """Begin training in a process of its own."""
    process = server().Process(target=_train, args=(recipe.resolved(), out, resume))
    process.start()
    return process


def finish(recipe: Recipe, out: Path, resume: bool = False) -> None:
    """Train to the end in a process of its own."""
    process = start(recipe, out, resume)
    process.join(120)
    assert process.exitcode == 0


def _command(arguments: list[str], folder: Path) -> None:
    from entropilot.cli.main import main

    # Whoever started the server may have had SIGINT ignored, as a shell does for what runs in its background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    said = os.open("stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 2)
    logging.getLogger("entropilot").setLevel(logging.NOTSET)
    sys.argv = ["entropilot", *arguments]
    main()


def start_command(arguments: list[str], folder: Path) -> Any:
    """Begin `entropilot ARGUMENTS` in a process and folder of its own; what it says is in stderr.txt there."""
    process = server().Process(target=_command, args=(arguments, folder))
    process.start()
    return process


def left_by(out: Path) -> dict[str, Any]:
    """Return what a run left: weights, the whole of its last checkpoint, records without clocks, token samples."""
    checkpoint = max((out / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    state = {
        name: torch.load(checkpoint / name, weights_only=True) for name in ("optimizer.pt", "scheduler.pt")
    }
    rollout = sorted(checkpoint.glob("rollout_*"))
    return {
        "step": checkpoint.name,
        "model": load_file(out / "model" / "model.safetensors"),
        "weights": load_file(checkpoint / "model.safetensors"),
        "rollout": [load_file(file) for file in rollout],
        "observer": [load_file(file) for file in sorted(checkpoint.glob("observer_*"))],
        "tokens": {
            step: pq.read_table(out / "tokens" / f"step_{step:06d}.parquet").to_pydict()
            for step in token_steps(out)
        },
        "optimizer": state["optimizer.pt"],
        "scheduler": state["scheduler.pt"],
        "random": [file.read_bytes() for file in sorted(checkpoint.glob("rng_state*"))],
        "rows": rows_of(read_run(out)),
        "prefixes": json.loads((out / "prefixes.json").read_text()),
    }


def difference(one: Any, two: Any, where: str = "") -> str | None:
    """Return where two trees of values differ; None where they are equal, bit by bit."""
    if isinstance(one, torch.Tensor):
        return None if isinstance(two, torch.Tensor) and torch.equal(one, two) else where
    if isinstance(one, dict):
        if not isinstance(two, dict) or one.keys() != two.keys():
            return f"{where} (keys)"
        parts = [(one[key], two[key], f"{where}/{key}") for key in one]
    elif isinstance(one, list | tuple):
        if len(one) != len(two):
            return f"{where} (length {len(one)}, {len(two)})"
        parts = [(a, b, f"{where}/{i}") for i, (a, b) in enumerate(zip(one, two, strict=True))]
    else:
        return None if one == two else f"{where}: {one!r}, {two!r}"
    return next((place for place in (difference(*part) for part in parts) if place), None)


def sign_again(checkpoint: Path) -> None:
    """Write the manifest anew, as if a file that was changed had been written so."""
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    write_manifest(
        checkpoint, **{key: manifest[key] for key in ("step", "processes", "optimizer", "rollout")}
    )
    read_manifest(checkpoint)
