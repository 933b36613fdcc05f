"""Carry a plan out: from what `check` settled to a trained model."""

from __future__ import annotations

import contextlib
import errno
import os
import re
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
from entropilot.records import FILE_NAME, PUT_ASIDE, RunWriter, forget_tokens, read_run
from entropilot.rewards.groups import named_group_rewards
from entropilot.training.card import write_card
from entropilot.training.finish import _end, _ended, _only_load, _save
from entropilot.training.leave import GRACE_SECONDS, Leave, Terminated
from entropilot.training.plan import Plan
from entropilot.training.prepare import prepare
from entropilot.training.resume import LOADING_ERRORS, not_loadable, nothing_more, resume_point


class _Begin(TrainerCallback):
    """Calls back when training begins: everything of a checkpoint is loaded, and the number of steps is known."""

    def __init__(self, on_begin: Callable[[int], None]) -> None:
        self.on_begin = on_begin

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on_begin(state.max_steps)


def run(
    plan: Plan,
    *,
    resume: bool = False,
    grace: float = GRACE_SECONDS,
    on_start: Callable[[int], None] | None = None,
    on_row: Callable[[int, dict[str, Any]], None] | None = None,
    on_alarm: Callable[[str], None] | None = None,
) -> Path:
    """Carry a plan out, once; returns the folder of the trained model, which `transformers` loads.

    The plan's folder receives `run.jsonl`, `tokens/`, `checkpoints/` and `model/`.

    Args:
        plan: from `training.plan.check`.
        resume: continue from the last whole checkpoint in the folder; where there is none yet, begin anew, and keep what
            was recorded as run.jsonl.interrupted.
        grace: seconds after SIGTERM in which the optimiser step has to end; see `training.leave`.
        on_start: is called with the number of optimiser steps.
        on_row: is called with every row.
        on_alarm: is called once, with a sentence, when entropy is nearly spent.

    Raises:
        UserError: what the plan names can't be loaded, the folder is taken, the loss is not finite, a file can't be
            written, or another process of the run died.
        Terminated: SIGTERM came; it ends the process with exit code 0.
    """
    leave = Leave(grace)
    with leave.listening():
        return _run(plan, resume, leave, on_start, on_row, on_alarm)


def _run(
    plan: Plan,
    resume: bool,
    leave: Leave,
    on_start: Callable[[int], None] | None,
    on_row: Callable[[int, dict[str, Any]], None] | None,
    on_alarm: Callable[[str], None] | None,
) -> Path:
    began = time.perf_counter()
    quiet()
    out = plan.out
    point = resume_point(plan) if resume else None
    step = None if point is None else point.step
    if not resume and (out / FILE_NAME).exists():
        raise UserError(
            f"{out} already holds a run; choose another --out, remove it, or continue it with --resume."
        )
    all_steps = step is not None and 0 < plan.config.max_steps <= step
    # A kill between the model and the record's last line leaves a run without its end: it is ended again.
    if all_steps and (out / "model").exists() and read_run(out).header["end"] is not None:
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
    writer: RunWriter | None = None

    def open_record() -> None:
        nonlocal writer
        if writer is None and trainer.accelerator.is_main_process:
            if resume and point is None:
                (out / FILE_NAME).replace(out / PUT_ASIDE)
            if resume:
                forget_tokens(out, after=step or 0)
            writer = probe.writer = RunWriter(out, _header(plan, trainer), resume_step=step)
            trainer.before_commit = writer.sync

    def on_begin(steps: int) -> None:
        open_record()
        if on_start is not None:
            on_start(steps)

    try:
        trainer, probe = prepare(plan, point, on_row, on_alarm)
        leave.take(trainer, probe, lambda why: _end(writer, why, began, step=trainer.state.global_step))
        if point is None:  # a resumed run marks its record when its checkpoint is loaded, not before
            open_record()
    except BaseException:
        unclaim(out, new)
        raise
    trainer.add_callback(_Begin(on_begin))
    try:
        if point is not None and _ended(trainer, probe, point):
            _only_load(trainer, probe, point, open_record)
        else:
            trainer.train(resume_from_checkpoint=None if point is None else str(point.checkpoint))
        if trainer.leaving:
            raise Terminated(
                f"terminated by SIGTERM after step {trainer.state.global_step}; a checkpoint was saved"
            )
        _save(trainer, out)
        _end(writer, "finished", began)
        if writer is not None:
            write_card(out)
    except (KeyboardInterrupt, Terminated) as stop:
        why = "terminated" if isinstance(stop, Terminated) else "interrupted"
        _end(writer, why, began, step=trainer.state.global_step)
        raise
    except BaseException as error:
        loading = point is not None and writer is None and trainer.accelerator.is_main_process
        if loading and isinstance(error, LOADING_ERRORS) and not isinstance(error, UserError):
            raise not_loadable(point.checkpoint, error) from error
        refusal = _sentence(error, out)
        with contextlib.suppress(UserError):  # a full disk takes no last line either
            said = f"{type(error).__name__}: {error}" if refusal is None else str(refusal)
            _end(writer, said, began, step=trainer.state.global_step)
        if refusal is None or refusal is error:
            raise
        raise refusal from error
    finally:
        if writer is not None:
            writer.close()
    return out / "model"


# What the back ends of torch.distributed say where the other end of a connection is gone.
PEER_IS_GONE = re.compile(
    r"connection (closed|reset|refused)|NCCL|socket|broken pipe|timed out", re.IGNORECASE
)


def _sentence(error: BaseException, out: Path) -> UserError | None:
    """Return the error of a run as a sentence; None for what is a fault of the program."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, NonFiniteLossError):
        return UserError(str(error))
    if isinstance(error, ImportError):
        return UserError(f"This recipe needs a package that is not installed: {first_line(error)}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return UserError(
            f"A file of the run in {out} can't be written ({error.strerror}); make room or make the folder writable, and "
            "continue with --resume."
        )
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and isinstance(error, RuntimeError) and PEER_IS_GONE.search(str(error)):
        return UserError(
            "Another process of this run ended, or can't be reached; look for its own message, and continue with --resume."
        )
    return None


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
