"""One rank of two fails, is killed, or gets the signal: a sentence, whole checkpoints, and a run that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from crash_helpers import difference, left_by, tiny_recipe
from ranks import Ranks, until

from entropilot.records import RecordWarning, read_run
from entropilot.training.resume import last_checkpoint

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.filterwarnings(f"ignore::{RecordWarning.__module__}.RecordWarning"),
]

WORKER = Path(__file__).with_name("fault_worker.py")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: Any) -> Path:
    """An uninterrupted run on two ranks; its recipe lies beside it."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = tiny_recipe(folder / "tiny", {"ddp_timeout": 60})
    (folder / "recipe.yaml").write_text(json.dumps(recipe.resolved()))  # JSON is YAML
    started = _start(folder / "recipe.yaml", folder / "run", "none")
    assert started.wait() == [0, 0], started.said()
    return folder / "run"


def _start(recipe: Path, out: Path, fault: str, *more: str) -> Ranks:
    command = [sys.executable, str(WORKER), fault, "train", str(recipe), "--out", str(out), *more]
    return Ranks(command, out.with_name(f"{out.name}-logs-{fault}{len(more)}"))


def _goes_on(recipe: Path, out: Path, whole: Path) -> None:
    started = _start(recipe, out, "none", "--resume")
    assert started.wait() == [0, 0], started.said()
    assert difference(left_by(out), left_by(whole)) is None


def test_a_nan_on_one_rank(whole: Path, tmp_path: Path) -> None:
    recipe, out = whole.parent / "recipe.yaml", tmp_path / "run"
    started = _start(recipe, out, "nan")
    assert started.wait() == [2, 2]
    for said in started.said():
        assert "error: The loss of step 5 is not finite" in said and "Traceback" not in said
    assert "The loss of step 5 is not finite" in read_run(out).header["end"]["reason"]
    assert [row["step"] for row in read_run(out).rows] == [1, 2, 3, 4]
    _goes_on(recipe, out, whole)


def test_a_rank_is_killed(whole: Path, tmp_path: Path) -> None:
    recipe, out = whole.parent / "recipe.yaml", tmp_path / "run"
    started = _start(recipe, out, "kill")
    assert started.wait() == [2, -signal.SIGKILL]
    (said, _) = started.said()
    assert "error: Another process of this run ended" in said and "continue with --resume" in said
    assert "Traceback" not in said
    assert last_checkpoint(out / "checkpoints")[1]["step"] == 4  # type: ignore[index]
    _goes_on(recipe, out, whole)


def test_a_full_disk_on_one_rank(whole: Path, tmp_path: Path) -> None:
    recipe, out = whole.parent / "recipe.yaml", tmp_path / "run"
    started = _start(recipe, out, "disk")
    assert started.wait() == [2, 2]
    for said in started.said():
        assert (
            "error: The checkpoint of step 5 can't be written to" in said
            and "No space left on device" in said
        )
        assert "Traceback" not in said
    assert last_checkpoint(out / "checkpoints")[1]["step"] == 4  # type: ignore[index]
    _goes_on(recipe, out, whole)


def test_the_signal_reaches_one_rank_only(whole: Path, tmp_path: Path) -> None:
    recipe, out = whole.parent / "recipe.yaml", tmp_path / "run"
    started = _start(recipe, out, "none")
    until(lambda: (out / "run.jsonl").is_file() and (out / "run.jsonl").read_text().count('"step"') >= 2)
    started.processes[1].send_signal(signal.SIGTERM)
    assert started.wait(30) == [0, 0], started.said()
    run = read_run(out)
    assert run.header["end"]["reason"] == "terminated"
    assert last_checkpoint(out / "checkpoints")[1]["step"] == run.rows[-1]["step"] < 8  # type: ignore[index]
    _goes_on(recipe, out, whole)


def test_accelerate_launch_starts_two_processes(tmp_path: Path) -> None:
    """The bundled configuration for a CPU; without one accelerate starts a single process there."""
    recipe = tiny_recipe(tmp_path / "tiny", {"max_steps": 1})
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe.resolved()))
    config = files("entropilot.training") / "accelerate" / "multi_cpu.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["-m", "entropilot", "train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]
    paths = [str(Path(__file__).parents[1] / place) for place in ("training", "engines/trl")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, *paths])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_run(tmp_path / "run").header["processes"] == 2
