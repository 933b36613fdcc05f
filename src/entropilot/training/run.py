"""Carry a plan out: from what `check` settled to a trained model."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from entropilot.engines.trl.checks import updates_per_rollout
from entropilot.engines.trl.trainer import EntropyGRPOTrainer, NonFiniteLossError
from entropilot.errors import UserError
from entropilot.files import claim, unclaim
from entropilot.inputs.models import first_line, quiet
from entropilot.metrics import definitions
from entropilot.records import FILE_NAME, RunWriter
from entropilot.rewards.groups import named_group_rewards
from entropilot.training.finish import _end, _ended, _only_load, _save
from entropilot.training.plan import Plan
from entropilot.training.prepare import prepare
from entropilot.training.resume import nothing_more, resume_point


class _Start(TrainerCallback):
    """Says how many steps there will be, which transformers knows once training begins."""

    def __init__(self, on_start: Callable[[int], None]) -> None:
        self.on_start = on_start

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on_start(state.max_steps)


def run(
    plan: Plan,
    *,
    resume: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_row: Callable[[int, dict[str, Any]], None] | None = None,
    on_alarm: Callable[[str], None] | None = None,
) -> Path:
    """Carry a plan out, once; returns the folder of the trained model, which `transformers` loads.

    The plan's folder receives `run.jsonl`, `tokens/`, `checkpoints/` and `model/`.

    Args:
        plan: from `training.plan.check`.
        resume: continue from the last checkpoint in the folder.
        on_start: is called with the number of optimiser steps.
        on_row: is called with every row.
        on_alarm: is called once, with a sentence, when entropy is nearly spent.

    Raises:
        UserError: what the plan names can't be loaded, the folder is taken, the loss is not finite.
    """
    began = time.perf_counter()
    quiet()
    out = plan.out
    point = resume_point(plan) if resume else None
    step = None if point is None else point.step
    if not resume and (out / FILE_NAME).exists():
        raise UserError(
            f"{out} already holds a run; choose another --out, remove it, or continue it with --resume."
        )
    if step is not None and 0 < plan.config.max_steps <= step and (out / "model").exists():
        raise UserError(
            f"--resume: the run in {out} has done all its {step} steps, and its model is saved; to go on, raise "
            "grpo.max_steps."
        )
    if resume and (out / "model").exists() and nothing_more(plan):
        raise UserError(
            f"--resume: the run in {out} is finished, and its model is saved; to go on, raise grpo.max_steps (or what else "
            "says how long it goes), or set probe.stop=off or probe.on_finding=warn where that rule ended it."
        )
    new = claim(out)
    try:
        trainer, probe = prepare(plan, point, on_row, on_alarm)
        writer = None
        if trainer.accelerator.is_main_process:
            writer = probe.writer = RunWriter(out, _header(plan, trainer), resume_step=step)
    except BaseException:
        unclaim(out, new)
        raise
    if on_start is not None:
        trainer.add_callback(_Start(on_start))
    try:
        if point is not None and _ended(trainer, probe, point):
            _only_load(trainer, probe, point)
        else:
            trainer.train(resume_from_checkpoint=None if point is None else str(point.checkpoint))
        _save(trainer, out)
        _end(writer, "finished", began)
    except KeyboardInterrupt:
        _end(writer, "interrupted", began, step=trainer.state.global_step)
        raise
    except NonFiniteLossError as error:
        _end(writer, str(error), began, step=trainer.state.global_step)
        raise UserError(str(error)) from error
    except BaseException as error:
        _end(writer, f"{type(error).__name__}: {error}", began, step=trainer.state.global_step)
        if isinstance(error, ImportError):
            raise UserError(
                f"This recipe needs a package that is not installed: {first_line(error)}"
            ) from error
        raise
    finally:
        if writer is not None:
            writer.close()
    return out / "model"


def _header(plan: Plan, trainer: EntropyGRPOTrainer) -> dict[str, Any]:
    return {
        **plan.described(),
        "clip": trainer.clip,
        "updates_per_rollout": updates_per_rollout(trainer.args),
        "processes": trainer.accelerator.num_processes,
        "device": str(trainer.accelerator.device),
        "metrics": definitions(map(str, named_group_rewards(trainer.reward_funcs))) | plan.adapter.metrics(),
        **plan.adapter.header(trainer),
    }
