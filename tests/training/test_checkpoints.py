"""Checkpoints: what is torn is found before anything is loaded, and the one before it is used."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from crash_helpers import STEPS, difference, left_by, sign_again, tiny_recipe

from entropilot.engines.trl.checkpoints import MANIFEST, read_manifest
from entropilot.errors import UserError
from entropilot.readers import read
from entropilot.recording import token_samples
from entropilot.records import read_run
from entropilot.training.resume import last_checkpoint
from entropilot.training.stages import train

LAST = f"checkpoint-{STEPS}"
_whole: list[Path] = []


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, made once."""
    if not _whole:
        folder = tmp_path_factory.mktemp("whole")
        train(tiny_recipe(folder / "tiny"), folder / "run")
        _whole.append(folder / "run")
    return _whole[0]


def _copy(run: Path, out: Path, *without: int) -> tuple[Path, Any]:
    """Return a copy of a run without its model and these checkpoints, and its recipe."""
    shutil.copytree(run, out)
    shutil.rmtree(out / "model")
    for step in without:
        shutil.rmtree(out / "checkpoints" / f"checkpoint-{step}")
    return out, tiny_recipe(run.parent / "tiny")


def _files(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints" / LAST).iterdir())


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (_truncate, r"has \d+ bytes instead of \d+"),
    "missing": (Path.unlink, "is missing"),
    "empty": (lambda path: os.truncate(path, 0), "has 0 bytes instead of"),
    "one bit": (_flip, "has another checksum"),
}


def test_every_file_is_in_the_manifest(whole: Path) -> None:
    names = {
        "model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "config.json",
        "observer_0.safetensors",
        "rollout_0.safetensors",  # 8 = 3 + 3 + 2 updates: the run ends inside a rollout
    }
    manifest = read_manifest(whole / "checkpoints" / LAST)
    assert names < set(manifest["files"]) == set(_files(whole)) - {MANIFEST}
    assert manifest["step"] == STEPS and manifest["processes"] == 1 and manifest["rollout"] == "kept"
    assert (
        manifest["files"]["optimizer.pt"]["bytes"]
        == (whole / "checkpoints" / LAST / "optimizer.pt").stat().st_size
    )
    between = read_manifest(whole / "checkpoints" / "checkpoint-6")
    assert between["rollout"] == "whole" and "rollout_0.safetensors" not in between["files"]
    assert not (whole / "checkpoints" / "saving").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_found(whole: Path, tmp_path: Path, caplog: Any, damage: str) -> None:
    spoil, said = DAMAGES[damage]
    for name in _files(whole):
        folder = tmp_path / name / "checkpoints"
        shutil.copytree(whole / "checkpoints", folder)
        spoil(folder / LAST / name)
        caplog.clear()
        last = last_checkpoint(folder)
        assert last is not None and last[0].name == f"checkpoint-{STEPS - 1}", name
        (message,) = caplog.messages
        assert f"{LAST} can't be used (" in message, message
        if name != MANIFEST:
            assert re.search(f"{name} {said}", message), message


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
@pytest.mark.crash
def test_a_run_with_a_torn_checkpoint_goes_on_from_the_one_before(
    whole: Path, tmp_path: Path, caplog: Any, name: str, damage: str
) -> None:
    out, recipe = _copy(whole, tmp_path / "run", STEPS)
    torn = out / "checkpoints" / f"checkpoint-{STEPS - 1}"
    DAMAGES[damage][0](torn / name)
    train(recipe, out, resume=True)
    assert f"checkpoint-{STEPS - 1} can't be used ({name}" in caplog.text
    assert difference(left_by(out), left_by(whole)) is None
    assert '"kind": "resume", "step": 6' in (out / "run.jsonl").read_text()


def test_no_row_is_lost_where_loading_fails(whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    out, recipe = _copy(whole, tmp_path / "run", STEPS)
    before = (out / "run.jsonl").read_bytes()

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("transformers.Trainer._load_optimizer_and_scheduler", fails)
    with pytest.raises(
        UserError, match=r"checkpoint-7 can't be loaded \(\[Errno 5\] Input/output error\); remove"
    ):
        train(recipe, out, resume=True)
    assert (out / "run.jsonl").read_bytes() == before


def test_without_a_whole_checkpoint_the_run_begins_anew(whole: Path, tmp_path: Path, caplog: Any) -> None:
    out, recipe = _copy(whole, tmp_path / "run")
    for path in (out / "checkpoints").glob("checkpoint-*"):
        _truncate(path / "model.safetensors")
    before = (out / "run.jsonl").read_bytes()
    train(recipe, out, resume=True)
    assert "the run begins anew, and its record so far is kept as run.jsonl.interrupted" in caplog.text
    assert (out / "run.jsonl.interrupted").read_bytes() == before
    assert read(out).run.rows == read_run(out).rows  # the folder still holds one log, not two
    assert difference(left_by(out), left_by(whole)) is None


@pytest.mark.parametrize("left", [b"", b'{"kind": "header", "sche'])
def test_a_kill_before_the_first_row(whole: Path, tmp_path: Path, left: bytes) -> None:
    recipe, out = tiny_recipe(whole.parent / "tiny"), tmp_path / "run"
    out.mkdir()
    (out / "run.jsonl").write_bytes(left)
    train(recipe, out, resume=True)
    assert difference(left_by(out), left_by(whole)) is None


def test_another_number_of_processes_is_refused(whole: Path, tmp_path: Path) -> None:
    out, recipe = _copy(whole, tmp_path / "run", STEPS, STEPS - 1)
    manifest = out / "checkpoints" / "checkpoint-6" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"processes": 1', '"processes": 2'))
    before = (out / "run.jsonl").read_bytes()
    with pytest.raises(UserError, match="was made with 2 processes, now there are 1; use as many as before"):
        train(recipe, out, resume=True)
    assert (out / "run.jsonl").read_bytes() == before


def test_a_checkpoint_without_an_optimizer_is_not_taken_up(whole: Path, tmp_path: Path, caplog: Any) -> None:
    out, _ = _copy(whole, tmp_path / "run")
    manifest = out / "checkpoints" / LAST / MANIFEST
    manifest.write_text(manifest.read_text().replace('"optimizer": true', '"optimizer": false'))
    last = last_checkpoint(out / "checkpoints")
    assert last is not None and last[0].name == f"checkpoint-{STEPS - 1}"
    assert "saved without the optimizer (grpo.save_only_model)" in caplog.text


def test_nothing_is_unpickled_from_a_run(whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A pickle can run any program; torch.load with weights_only builds tensors and plain values alone."""
    out, recipe = _copy(whole, tmp_path / "run", STEPS)
    assert not list(out.rglob("training_args.bin"))
    loaded: list[str] = []
    load = torch.load

    def watched(file: Any, *args: Any, **kwargs: Any) -> Any:
        if str(out) in str(file):
            assert kwargs.get("weights_only") is True, f"{file} is unpickled"
            loaded.append(Path(file).name)
        return load(file, *args, **kwargs)

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(torch, "load", watched)
    for name in ("load", "loads"):
        monkeypatch.setattr(pickle, name, forbidden)
    train(recipe, out, resume=True)
    assert set(loaded) == {"optimizer.pt", "scheduler.pt", "rng_state.pth"}


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_program_in_a_checkpoint_is_not_run(whole: Path, tmp_path: Path, name: str) -> None:
    """The manifest is no protection: whoever can write the folder can write the manifest."""

    class Program:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "ran"),))

    out, recipe = _copy(whole, tmp_path / "run", STEPS)
    torch.save({"state": Program()}, out / "checkpoints" / f"checkpoint-{STEPS - 1}" / name)
    sign_again(out / "checkpoints" / f"checkpoint-{STEPS - 1}")
    with pytest.raises(
        UserError, match=f"{STEPS - 1} can't be loaded .*; remove that folder, and continue with"
    ):
        train(recipe, out, resume=True)
    assert not (tmp_path / "ran").exists()
    assert [row["step"] for row in read_run(out).rows] == list(range(1, STEPS + 2))


def test_rows_are_on_disk_before_the_checkpoint_takes_its_name(
    whole: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    events: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{handle}").rsplit("/", 1)[-1])
        sync(handle)

    def replaced(self: Path, target: Path) -> Any:
        events.append(f"-> {Path(target).name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    train(tiny_recipe(whole.parent / "tiny", {"max_steps": 1}), tmp_path / "run")
    named = events.index("-> checkpoint-1")
    assert {
        "run.jsonl",
        *json.loads((tmp_path / "run/checkpoints/checkpoint-1" / MANIFEST).read_text())["files"],
    } <= set(events[:named])


def test_token_samples_go_on_inside_a_rollout(tmp_path: Path, monkeypatch: Any) -> None:
    # Rollouts are at steps 1, 4 and 7. Each gives a sample, whose drift is known after its third update; the second one
    # spares the fixed prompts, because the first one has completed them lately.
    monkeypatch.setattr(token_samples, "PER_RUN", 3)
    open_schedule = {"validate": None, "probe": {"tokens_every": None, "prefixes": 2}}
    recipe = tiny_recipe(tmp_path / "tiny", {"save_total_limit": 9}, **open_schedule)
    train(recipe, tmp_path / "whole")
    first = left_by(tmp_path / "whole")
    rows = {step: len(table["drift"]) for step, table in first["tokens"].items()}
    assert list(rows) == [1, 4, 7] and rows[4] < rows[1] == rows[7]
    for step in (2, 5):
        cut = _copy(tmp_path / "whole", tmp_path / f"cut-{step}", *range(step + 1, STEPS + 1))[0]
        train(recipe, cut, resume=True)
        assert difference(left_by(cut), first) is None, step
