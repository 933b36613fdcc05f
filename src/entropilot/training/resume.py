"""Find where a run can be taken up again, and what must be the same for that: `entropilot train --resume`.

Weights, optimiser, schedule, place in the data, random state and the samples of an unfinished rollout come from the
last whole checkpoint. On the same machine the resumed run is, bit by bit, the uninterrupted one.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from entropilot.engines.trl.checkpoints import read_manifest
from entropilot.errors import UserError
from entropilot.inputs.models import first_line
from entropilot.ranks import gather_objects, rank
from entropilot.recipes.schema import Recipe
from entropilot.recipes.yaml_files import short
from entropilot.records import FILE_NAME, PUT_ASIDE, read_run
from entropilot.training.plan import Plan

logger = logging.getLogger("entropilot")

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
    """Return the last whole checkpoint of a folder and its manifest.

    Every file is compared with the manifest before anything is loaded. A checkpoint that does not fit is passed over,
    with a warning that says what is wrong with it.
    """
    steps = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")}
    for path in sorted((p for p, step in steps.items() if step.isdecimal()), key=lambda p: -int(steps[p])):
        try:
            manifest = read_manifest(path)
            if not manifest.get("optimizer", True):
                raise ValueError("it was saved without the optimizer (grpo.save_only_model)")
        except ValueError as error:
            logger.warning("%s can't be used (%s); looking for the one before it.", path, error)
            continue
        return path, manifest
    return None


@dataclass(frozen=True)
class Point:
    """Hold where a run is taken up again: a checkpoint, its optimiser step, and the passes over the data so far."""

    checkpoint: Path
    step: int
    epochs: int


def resume_point(plan: Plan) -> Point | None:
    """Return the point of a run's last whole checkpoint; None where it has none and begins anew.

    Of several processes the first reads the checkpoints, and the others are told.

    Raises:
        UserError: there is no run, it is of another recipe, or it was made with another number of processes.
    """
    _ = plan.config.device  # joins the processes, where there are several
    answer: Point | UserError | None = None
    if rank() == 0:
        try:
            answer = _resume_point(plan)
        except UserError as error:
            answer = error
    answer = gather_objects(answer)[0]
    if isinstance(answer, UserError):
        raise answer
    return answer


def _resume_point(plan: Plan) -> Point | None:
    if not (plan.out / FILE_NAME).is_file():
        raise UserError(f"--resume: {plan.out} holds no run to continue; start without --resume.")
    last = last_checkpoint(plan.out / "checkpoints")
    if last is None:
        if (plan.out / "model").exists():
            raise UserError(
                f"--resume: {plan.out} holds a trained model, but no checkpoint to continue from; choose another --out."
            )
        if not _header_is_torn(plan.out / FILE_NAME):
            refuse_other(plan)
        logger.warning(
            "%s holds no checkpoint to continue from: the run begins anew, and its record so far is kept as %s.",
            plan.out,
            PUT_ASIDE,
        )
        return None
    refuse_other(plan)
    checkpoint, manifest = last
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if manifest.get("processes", processes) != processes:
        raise UserError(
            f"--resume: the run in {plan.out} was made with {manifest['processes']} processes, now there are {processes}; "
            "use as many as before, or another --out."
        )
    if manifest.get("rollout") == "lost":
        logger.warning(
            "%s lies inside a rollout whose samples could not be kept: a new rollout begins there, and the run differs "
            "from an uninterrupted one.",
            checkpoint,
        )
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    epoch = state.get("epoch")
    return Point(checkpoint, state["global_step"], int(epoch) if isinstance(epoch, int | float) else 0)


def _header_is_torn(file: Path) -> bool:
    """Return whether a kill came before the first line of a record was written whole."""
    with file.open("rb") as opened:
        return not opened.readline().endswith(b"\n")


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


LOADING_ERRORS = (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError)


def not_loadable(checkpoint: Path, error: BaseException) -> UserError:
    """Return the error of a checkpoint that is as it was written, and can't be loaded all the same."""
    return UserError(
        f"--resume: {checkpoint} can't be loaded ({first_line(error)}); remove that folder, and continue with --resume "
        "from the one before."
    )


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
