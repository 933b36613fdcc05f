"""Finish a run: save its model, write its last line."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from entropilot.engines.trl.checkpoints import reason
from entropilot.engines.trl.trainer import EntropyGRPOTrainer
from entropilot.errors import UserError
from entropilot.files import replace_folder
from entropilot.recording.probe import Probe
from entropilot.records import RunWriter
from entropilot.training.resume import Point


def _ended(trainer: EntropyGRPOTrainer, probe: Probe, point: Point) -> bool:
    """Return whether a run had come to its end at its last checkpoint: by number of steps, or because a rule said so."""
    said = probe.over or getattr(trainer, "stopped", None) is not None
    return said or 0 < trainer.args.max_steps <= point.step


def _only_load(trainer: EntropyGRPOTrainer, probe: Probe, point: Point, loaded: Callable[[], None]) -> None:
    """Take the weights of a run that had done its last step, but was killed before its model was saved."""
    trainer._load_from_checkpoint(str(point.checkpoint))
    trainer.state.global_step = point.step
    loaded()
    probe.end_training(trainer.view, report=False)


def _save(trainer: EntropyGRPOTrainer, out: Path) -> None:
    """Save the model; a crash meanwhile must not leave half of one under the final name."""
    partial, final = out / "model.partial", out / "model"
    if trainer.accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    try:
        trainer.save_model(str(partial))
        if trainer.accelerator.is_main_process:
            trainer.processing_class.save_pretrained(partial)
            (partial / "training_args.bin").unlink(missing_ok=True)
            replace_folder(partial, final)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The model can't be written to {final} ({reason(error)}); the record and the checkpoints are intact: make "
            "room or make the folder writable, and continue with --resume."
        ) from error
    trainer.accelerator.wait_for_everyone()  # the next stage of a chain loads it on every rank


def _end(writer: RunWriter | None, why: str, began: float, **values: Any) -> None:
    if writer is not None:
        writer.end(why, seconds=time.perf_counter() - began, **values)
