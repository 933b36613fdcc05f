"""A fault at every write of a checkpoint: one sentence, no spoilt checkpoint, and a run that goes on."""

from __future__ import annotations

import builtins
import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from crash_helpers import difference, finish, left_by, server, tiny_recipe

from entropilot.engines.trl import checkpoints
from entropilot.engines.trl.checkpoints import CheckpointingTrainer
from entropilot.errors import UserError
from entropilot.recipes.schema import Recipe
from entropilot.records import read_run
from entropilot.training.resume import last_checkpoint
from entropilot.training.stages import train

STEP = 2  # the checkpoint that is spoilt: inside a rollout
CHECKPOINT_SAID = r"The checkpoint of step 2 can't be written to .* earlier checkpoints are intact"
LENGTH = {"max_steps": 4, "save_total_limit": 1}


class Faults:
    """Count the writes of one checkpoint, and fail at one of them."""

    def __init__(self, folder: Path, at: int | None = None, die: bool = False) -> None:
        self.folder, self.at, self.die = folder, at, die
        self.writes: list[str] = []
        self.armed = False

    def write(self, name: str, half: Callable[[], None] | None = None) -> None:
        """Note a write; where it is the one, leave half of it and fail."""
        if not self.armed:
            return
        self.writes.append(name)
        if len(self.writes) - 1 != self.at:
            return
        self.armed = False
        if half is not None:
            half()
        if self.die:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def file(self, save: Callable[..., Any], position: int) -> Callable[..., Any]:
        """Watch a function that writes a file whose name is its argument number `position`."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            target = args[position]

            def half() -> None:
                save(*args, **kwargs)
                os.truncate(target, os.path.getsize(target) // 2)

            self.write(f"write {Path(target).name}", half)
            return save(*args, **kwargs)

        return watched

    def call(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Watch a function of the system."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.write(f"{name} {Path(str(args[0])).name}")
            return function(*args, **kwargs)

        return watched

    def opened(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Watch `open` for writing, below the folder of checkpoints."""

        def torn(file: Any, mode: str) -> None:
            with function(file, mode) as opened:
                opened.write(b"{" if "b" in mode else "{")

        def watched(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if set(mode) & set("wax+") and str(self.folder) in str(file):
                self.write(
                    f"open {Path(str(file)).name}",
                    lambda: torn(file, mode),
                )
            return function(file, mode, *args, **kwargs)

        return watched

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the checkpoint of step STEP."""
        save = CheckpointingTrainer._save_checkpoint

        def armed(trainer: Any, *args: Any) -> None:
            self.armed = trainer.state.global_step == STEP
            try:
                save(trainer, *args)
            finally:
                self.armed = False

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CheckpointingTrainer, "_save_checkpoint", armed)
            patch.setattr(torch, "save", self.file(torch.save, 1))
            patch.setattr("transformers.modeling_utils.safe_save_file", self.file(checkpoints.save_file, 1))
            patch.setattr(checkpoints, "save_file", self.file(checkpoints.save_file, 1))
            patch.setattr(builtins, "open", self.opened(builtins.open))
            patch.setattr("io.open", self.opened(open))
            patch.setattr(Path, "open", lambda path, mode="r", *a, **k: builtins.open(path, mode, *a, **k))  # noqa: SIM115
            for name in ("fsync", "mkdir", "rmdir", "unlink"):
                patch.setattr(os, name, self.call(getattr(os, name), name))
            patch.setattr(Path, "replace", self.call(Path.replace, "rename"))
            patch.setattr(shutil, "rmtree", self.call(shutil.rmtree, "remove"))
            yield


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, dict[str, Any], list[str]]:
    """A run as a kill behind its first checkpoint leaves it, its recipe, what it should leave, and the writes."""
    folder = tmp_path_factory.mktemp("faults")
    recipe = tiny_recipe(folder / "tiny", LENGTH)
    train(tiny_recipe(folder / "tiny", LENGTH | {"save_total_limit": 9}), folder / "run")
    expected = left_by(folder / "run")
    begun = folder / "begun"
    shutil.copytree(folder / "run", begun)
    for gone in ("model", *(f"checkpoints/checkpoint-{step}" for step in (2, 3, 4))):
        shutil.rmtree(begun / gone)
    shutil.copytree(begun, folder / "counted")
    faults = Faults(folder / "counted" / "checkpoints")
    with faults.watching():
        train(recipe, folder / "counted", resume=True)
    assert difference(left_by(folder / "counted"), expected) is None
    return begun, recipe, expected, faults.writes


def test_what_is_written(begun: Any) -> None:
    *_, writes = begun
    for name in (
        "model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "rollout_0.safetensors",
    ):
        assert f"write {name}" in writes
    assert {
        "open config.json",
        "open trainer_state.json",
        "rename checkpoint-2",
        "remove checkpoint-1",
    } < set(writes)
    assert len(writes) >= 18


def _once_each(writes: list[str]) -> list[int]:
    """Return the first place of every name; to remove a folder file by file is one write."""
    names = ["unlink" if name.startswith("unlink") else name for name in writes]
    return sorted(map(names.index, set(names)))


@pytest.mark.crash
def test_a_full_disk_at_every_write(begun: Any, tmp_path: Path) -> None:
    source, recipe, expected, writes = begun
    refused = 0
    for number in _once_each(writes):
        name, out = writes[number], tmp_path / str(number)
        shutil.copytree(source, out)
        with Faults(out / "checkpoints", number).watching():
            try:
                train(recipe, out, resume=True)
            except UserError as error:
                refused += 1
                assert "No space left on device" in str(error) and "--resume" in str(error), (name, error)
                assert "No space left on device" in read_run(out).header["end"]["reason"], name
        last = last_checkpoint(out / "checkpoints")
        assert last is not None and last[1]["step"] >= 1, name
        if not (out / "model").exists():
            train(recipe, out, resume=True)
        assert difference(left_by(out), expected) is None, name
    assert refused >= 18


def _die(recipe: dict[str, Any], out: Path, number: int) -> None:
    with Faults(out / "checkpoints", number, die=True).watching():
        train(Recipe.model_validate(recipe), out, resume=True)


@pytest.mark.crash
def test_a_kill_in_the_middle_of_a_write(begun: Any, tmp_path: Path) -> None:
    source, recipe, _, writes = begun
    # In a process as the others: beartype, which checks shapes in this one, draws from Python's random numbers.
    shutil.copytree(source, tmp_path / "whole")
    finish(recipe, tmp_path / "whole", resume=True)
    expected = left_by(tmp_path / "whole")
    names = (
        "write model.safetensors",
        "write optimizer.pt",
        "open trainer_state.json",
        "write rollout_0.safetensors",
        "rename checkpoint-2",
        "rmdir saving",
        "unlink optimizer.pt",  # of the checkpoint before
    )
    for number in map(writes.index, names):
        out = tmp_path / str(number)
        shutil.copytree(source, out)
        process = server().Process(target=_die, args=(recipe.resolved(), out, number))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, writes[number]
        finish(recipe, out, resume=True)
        assert difference(left_by(out), expected) is None, writes[number]


def _with_limit(recipe: dict[str, Any], out: Path, limit: int, said: str) -> None:
    signal.signal(
        signal.SIGXFSZ, signal.SIG_IGN
    )  # a write beyond the limit is an error then, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with pytest.raises(UserError, match=said):
        train(Recipe.model_validate(recipe), out, resume=True)


@pytest.mark.crash
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.safetensors", CHECKPOINT_SAID),
        ("optimizer.pt", CHECKPOINT_SAID),
        # The record is longer than a tokenizer of this size, and so it is refused first.
        ("tokenizer.json", r"run\.jsonl can't be written \(File too large\); the rows before are intact"),
    ],
)
def test_the_system_refuses_the_end_of_a_file(begun: Any, tmp_path: Path, name: str, said: str) -> None:
    """Also where a file is written by a library in another language, which no test can patch."""
    source, recipe, expected, _ = begun
    out = tmp_path / "run"
    shutil.copytree(source, out)
    limit = (out / "checkpoints" / "checkpoint-1" / name).stat().st_size - 1
    process = server().Process(target=_with_limit, args=(recipe.resolved(), out, limit, said))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert last_checkpoint(out / "checkpoints")[1]["step"] == 1  # type: ignore[index]
    train(recipe, out, resume=True)
    assert difference(left_by(out), expected) is None
