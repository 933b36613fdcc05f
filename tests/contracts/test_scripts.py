"""The scripts of examples/ run as they stand, shortened by their argument."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="the statistics install has no torch")


def run(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_each_is_short_and_says_how_it_is_started() -> None:
    for path in EXAMPLES.glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 60, path.name
        assert f"python examples/{path.name}" in lines[0], path.name


def test_somebody_elses_log(monkeypatch, tmp_path, capsys) -> None:
    log = ROOT / "tests" / "readers" / "data" / "wandb_history.jsonl"
    run("read_a_log.py", str(log), monkeypatch=monkeypatch, tmp_path=tmp_path)
    said = capsys.readouterr().out
    assert "entropy: train/entropy (by default)" in said
    assert re.search(r"^R = -?.* exp\(H\) .* ceiling", said, re.MULTILINE)
    table = tmp_path / "table.csv"
    table.write_text("step,reward\n1,0.5\n2,0.5\n3,0.6\n")
    run("read_a_log.py", str(table), monkeypatch=monkeypatch, tmp_path=tmp_path)
    assert "The log has no entropy" in capsys.readouterr().out
    table.write_text("step,reward,entropy\n1,0.5,0.9\n2,0.5,0.8\n")
    run("read_a_log.py", str(table), monkeypatch=monkeypatch, tmp_path=tmp_path)
    assert "no fit: " in capsys.readouterr().out


@needs_torch
def test_own_loop(monkeypatch, tmp_path, capsys) -> None:
    run("own_loop.py", "1", monkeypatch=monkeypatch, tmp_path=tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rollout")]
    reward = float(line.split("reward ")[1].split(",")[0])
    assert 0.3 < reward < 0.9, "the base model solves about 0.6 of these, 128 were sampled"


@needs_torch
@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:'pin_memory' argument is set:UserWarning"
)  # the scripts are for GPUs as well
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trl_drop_in.py", r"^step 4: entropy 0\.\d+, chosen tokens \d+$"),
        ("unlabelled_grpo.py", r"^step 4: semantic entropy \d\.\d+, majority 0\.\d+, no answer 0\.\d+$"),
    ],
)
def test_trl_scripts(name: str, said: str, monkeypatch, tmp_path, capsys) -> None:
    run(name, "4", monkeypatch=monkeypatch, tmp_path=tmp_path)
    assert re.search(said, capsys.readouterr().out, re.MULTILINE)


@needs_torch
@pytest.mark.slow(seconds=15)
def test_notebook(monkeypatch, tmp_path, capsys) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile(cell["source"].replace("STEPS = 80", "STEPS = 4"), cell["id"], "exec"), names)
    assert "policy entropy" in capsys.readouterr().out
    assert len(names["entropy"]) == 1, "four updates are one rollout"  # type: ignore[arg-type]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_parse(path: Path) -> None:
    """Only parsed: they need GPUs. Their options are held to verl's configuration by tests/engines/verl."""
    subprocess.run(["bash", "-n", str(path)], check=True)
