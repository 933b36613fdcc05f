"""Write checkpoints that a crash can't spoil, and find one that is spoilt before anything of it is loaded.

A checkpoint is written to a temporary folder, gets a manifest with the size and checksum of each file, is synced, and
only then takes its name. One in the middle of a rollout holds the samples that are still to be trained on, too, and
what the observer knows of the rollout.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints
from trl import GRPOTrainer

from entropilot.engines.trl.states import load_states, save_states
from entropilot.errors import UserError
from entropilot.files import replace_folder, write_json
from entropilot.ranks import gather_objects

logger = logging.getLogger("entropilot")

MANIFEST = "manifest.json"
STAGING = "saving"  # the temporary folder, inside the folder of checkpoints


class CheckpointError(UserError):
    """Raised on every process where a checkpoint can't be written; the one before it is untouched."""


def _checksum(path: Path) -> str:
    """Return the CRC-32 of a file: it tells a torn file, and is the fastest checksum of the standard library."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def write_manifest(folder: Path, **facts: Any) -> None:
    """List every file of a checkpoint with its size and checksum, in `manifest.json`.

    Args:
        folder: of the checkpoint, complete but for the manifest.
        **facts: what else to note: "step", "processes", "optimizer" (whether there is one), "rollout" ("whole", "kept"
            or "lost").
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "crc32": _checksum(path)}
        for path in paths
    }
    write_json(folder / MANIFEST, {"format": 1, **facts, "files": files}, option=None)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint after comparing every file with it.

    Raises:
        ValueError: the checkpoint is not whole; the message says what is wrong with which file.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        step, files = manifest["step"], manifest["files"].items()
        expected = [(folder / name, entry["bytes"], entry["crc32"]) for name, entry in files]
    except FileNotFoundError:
        raise ValueError(f"{MANIFEST} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{MANIFEST} is not readable") from None
    if not isinstance(step, int):
        raise ValueError(f"{MANIFEST} is not readable")
    # Sizes first: they are cheap, and most torn files show there.
    for path, size, _ in expected:
        if not path.is_file():
            raise ValueError(f"{path.name} is missing")
        if path.stat().st_size != size:
            raise ValueError(f"{path.name} has {path.stat().st_size} bytes instead of {size}")
    for path, _, checksum in expected:
        if _checksum(path) != checksum:
            raise ValueError(f"{path.name} has another checksum than when it was written")
    return manifest


class CheckpointingTrainer(GRPOTrainer):
    """Add checkpoints that a crash can't spoil to TRL's trainer, where `crash_safe` is set.

    Attributes:
        crash_safe: False leaves checkpoints as TRL writes them.
        before_commit: is called on the main process before a checkpoint takes its name; rows up to its step have to be
            on disk by then.
        saving: a checkpoint is being written.
        teacher: `entropilot.engines.trl.teacher.Teacher`; None without one.
        observer: is asked for its `state()`, plain data and tensors, and given it back with `restore(...)`, where it has
            these.
    """

    crash_safe: bool = False
    before_commit: Callable[[], None] | None = None
    saving: bool = False
    teacher: Any = None
    observer: Any = None

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train as transformers does; what rewards remember goes on from the checkpoint, too."""
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)
        if folder:
            load_states(Path(folder), self.reward_funcs)
            if self.teacher is not None:
                self.teacher.load(Path(folder))
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, STAGING) if self.saving else folder

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial))
        name, staging = f"checkpoint-{self.state.global_step}", folder / STAGING
        if not self.crash_safe:
            self._write(model, trial, folder / name)
            return
        self._all_or_none(folder, lambda: self._clear(staging))
        self.saving = True
        try:
            self._all_or_none(folder, lambda: self._write(model, trial, staging / name))
        finally:
            self.saving = False
        self._all_or_none(folder, lambda: self._commit(staging, folder / name))

    def _all_or_none(self, folder: Path, write: Callable[[], None]) -> None:
        """Do a part of the writing on every process; where one fails, raise the same error on all."""
        failure: BaseException | None = None
        try:
            write()
        # torch.save and safetensors report a full disk with errors of their own.
        except (OSError, RuntimeError, SafetensorError, UserError) as error:
            failure = error
        said = [text for text in gather_objects(None if failure is None else reason(failure)) if text]
        if not said:
            return
        if self.accelerator.is_main_process:
            shutil.rmtree(folder / STAGING, ignore_errors=True)
        raise CheckpointError(
            f"The checkpoint of step {self.state.global_step} can't be written to {folder} ({said[0]}); the record and "
            "earlier checkpoints are intact: make room or make the folder writable, and continue with --resume."
        ) from failure

    def _clear(self, staging: Path) -> None:
        if self.accelerator.is_main_process:
            if staging.exists():  # what a kill left half-written
                shutil.rmtree(staging)
            staging.mkdir(parents=True)

    def _write(self, model: Any, trial: Any, folder: Path) -> None:
        # Before transformers' own files: `trainer_state.json`, which it writes last, tells a whole checkpoint.
        if self.accelerator.is_main_process:
            save_states(folder, self.reward_funcs)
            if self.teacher is not None:
                self.teacher.save(folder)
        super()._save_checkpoint(model, trial)
        if self.crash_safe:
            self._rollout_state = self._keep_rollout(folder)
            self._keep_observed(folder)

    def _commit(self, staging: Path, final: Path) -> None:
        states = gather_objects(self._rollout_state)  # and by then all processes have written their files
        if not self.accelerator.is_main_process:
            return
        part = staging / final.name
        (part / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing reads
        if self.before_commit is not None:
            self.before_commit()
        write_manifest(
            part,
            step=self.state.global_step,
            processes=self.accelerator.num_processes,
            optimizer=not self.args.save_only_model,
            rollout="lost" if "lost" in states else states[0],
        )
        replace_folder(part, final)
        staging.rmdir()
        rotate_checkpoints(str(final.parent), self.args.save_total_limit, use_mtime=True)

    # --- a rollout that is not used up yet ------------------------------------------------------------------

    def _keep_rollout(self, folder: Path) -> str:
        """Write this process's samples where updates of theirs are still to come; return "whole", "kept" or "lost"."""
        if self._step % (self.args.steps_per_generation * self.num_iterations) == 0:
            return "whole"
        tensors: dict[str, Tensor] = {}
        for place, part in enumerate(self._buffered_inputs):
            for name, value in part.items():
                if isinstance(value, Tensor):
                    # Parts may be views of one tensor, which the format does not know.
                    tensors[f"{place}/{name}"] = (
                        value.detach().cpu().clone(memory_format=torch.contiguous_format)
                    )
                elif value is not None:  # images come as lists
                    return "lost"
        place = {"step": str(self._step), "parts": str(len(self._buffered_inputs))}
        save_file(tensors, folder / self._own("rollout"), metadata=place)
        return "kept"

    def _keep_observed(self, folder: Path) -> None:
        """Write what this process's observer has to keep."""
        state = self.observer.state() if hasattr(self.observer, "state") else None
        if state is not None:
            facts, tensors = state
            tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
            save_file(tensors, folder / self._own("observer"), metadata={"facts": json.dumps(facts)})

    def _own(self, kind: str) -> str:
        return f"{kind}_{self.accelerator.process_index}.safetensors"

    def take_up(self, checkpoint: Path) -> None:
        """Go on in the middle of the rollout that a checkpoint holds, where it holds one.

        Args:
            checkpoint: folder of a whole checkpoint, written with as many processes as there are now.
        """
        self._load_rng_state(
            str(checkpoint)
        )  # loaded again when training begins; an error there would be late
        observed, file = checkpoint / self._own("observer"), checkpoint / self._own("rollout")
        if observed.is_file() and hasattr(self.observer, "restore"):
            facts, tensors = _load(observed)
            self.observer.restore(json.loads(facts["facts"]), tensors)
        if not file.is_file():
            return
        place, tensors = _load(file)
        buffered: list[dict[str, Any]] = [{} for _ in range(int(place["parts"]))]
        for key, value in tensors.items():
            part, name = key.split("/", 1)
            buffered[int(part)][name] = value.to(self.accelerator.device)
        self._buffered_inputs, self._step = buffered, int(place["step"])


def _load(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and the tensors of a safetensors file."""
    with safe_open(file, framework="pt") as opened:
        return opened.metadata(), load_file(file)


def reason(error: BaseException) -> str:
    """Return why a file could not be written, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
