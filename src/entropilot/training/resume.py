"""Find where a run can be taken up again, and what must be the same for that: `entropilot train --resume`.

Weights, optimiser, schedule, place in the data and random state come from the last checkpoint. One between two
rollouts gives, on the same machine, bit by bit the model of an uninterrupted run. One inside a rollout does not: its
remaining updates would need the samples that were in memory, so a new rollout begins there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from entropilot.errors import UserError
from entropilot.recipes.schema import Recipe
from entropilot.recipes.yaml_files import short
from entropilot.records import FILE_NAME, read_run
from entropilot.training.plan import Plan

# What may differ when a run is continued: how long it goes on and what is kept, not what is learned.
MAY_CHANGE = (
    "grpo.max_steps",
    "grpo.num_train_epochs",
    "grpo.save_steps",
    "grpo.save_total_limit",
    "grpo.logging_steps",
    "method_args.updates",
    "probe.stop",
    "probe.on_finding",
    "probe.tokens_every",
)

MAY_END = ("probe.stop", "probe.on_finding")  # rules that can end a run before its length


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def last_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the last whole checkpoint of a folder and its state: what a kill left half-written is passed over."""
    steps = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")}
    for path in sorted((p for p, step in steps.items() if step.isdecimal()), key=lambda p: -int(steps[p])):
        try:
            # transformers writes this file last.
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            if isinstance(state["global_step"], int):
                return path, state
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


@dataclass(frozen=True)
class Point:
    """Hold where a run is taken up again: a checkpoint, its optimiser step, and the passes over the data so far."""

    checkpoint: Path
    step: int
    epochs: int


def resume_point(plan: Plan) -> Point:
    """Return the point of a run's last checkpoint.

    Raises:
        UserError: there is none, or the run is of another recipe.
    """
    last = last_checkpoint(plan.out / "checkpoints")
    if not (plan.out / FILE_NAME).is_file() or last is None:
        raise UserError(
            f"--resume: {plan.out} holds no checkpoint to continue from; start without --resume in a new folder."
        )
    refuse_other(plan)
    checkpoint, state = last
    epoch = state.get("epoch")
    return Point(checkpoint, state["global_step"], int(epoch) if isinstance(epoch, int | float) else 0)


def refuse_other(plan: Plan) -> None:
    """Refuse a plan that learns otherwise than the one that the run in its folder was made with.

    Raises:
        UserError: it does; the first key that differs is named.
    """
    # A key that an older version did not write stands for its default.
    before = _flat(Recipe().resolved()) | _flat(read_run(plan.out).header.get("recipe", {}))
    now = _flat(json.loads(json.dumps(plan.described()["recipe"])))
    different = [
        key for key in sorted({*before, *now}) if before.get(key) != now.get(key) and key not in MAY_CHANGE
    ]
    if different:
        key = different[0]
        raise UserError(
            f"--resume: the run in {plan.out} was made with another recipe ({key} was {short(before.get(key))}, is now "
            f"{short(now.get(key))}); use the same recipe, or another --out."
        )


def nothing_more(plan: Plan) -> bool:
    """Return whether a run came to its end and its length is still set as it was then."""
    header = read_run(plan.out).header
    if (header.get("end") or {}).get("reason") != "finished":
        return False
    before = _flat(Recipe().resolved()) | _flat(header.get("recipe", {}))
    now = _flat(json.loads(json.dumps(plan.described()["recipe"])))
    length = ("grpo.max_steps", "grpo.num_train_epochs", "method_args.updates", *MAY_END)
    return all(before.get(key) == now.get(key) for key in length)


def replay_epochs(trainer: Any, epochs: int) -> None:
    """Let the sampler of a resumed run go on where it was.

    TRL draws the order of every epoch from one generator, which no checkpoint holds: without the past draws a
    resumed run would see the first epoch's order again.
    """
    make = trainer._get_train_sampler

    def sampler(dataset: Any = None) -> Any:
        made = make(dataset)
        if getattr(made, "generator", None) is not None:
            for _ in range(epochs):
                torch.randperm(made.num_samples, generator=made.generator)
        return made

    trainer._get_train_sampler = sampler


def refuse_foreign(checkpoint: Path, model: Any) -> None:
    """Refuse a checkpoint whose weights would not fit the model."""
    try:
        saved = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:  # adapters only
        return
    except ValueError as error:
        raise UserError(f"--resume: {checkpoint}/config.json is not readable; start a new run.") from error
    now = json.loads(model.config.to_json_string(use_diff=False))
    for key in ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"):
        if key in saved and saved[key] != now.get(key):
            raise UserError(
                f"--resume: {checkpoint} is of another model ({key} is {short(saved[key])} there, {short(now.get(key))} "
                "in the model of the recipe); use the model it was made with, or another --out."
            )
