"""A Hub id that can't be reached is told within seconds; a folder is never asked of the Hub."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

constants = pytest.importorskip("huggingface_hub.constants")

from entropilot.errors import UserError  # noqa: E402
from entropilot.inputs import hub  # noqa: E402
from entropilot.recipes.schema import Data  # noqa: E402


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch):
    """A server that accepts and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield server


def test_a_hub_that_does_not_answer_costs_less_than_three_seconds(silent) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"--model: nobody/none is neither .*127.0.0.1:\d+ does not answer"):
        hub.check_model("nobody/none", "--model")
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("name", ["./x", "/x/y", "~/x", "a/b/c", "gpt", "here/x", r"a\\b/c"])
def test_a_folder_is_never_asked_of_the_hub(silent, tmp_path: Path, monkeypatch, name: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_answers", lambda address: pytest.fail("the Hub was asked"))
    with pytest.raises(UserError, match="the folder .* does not exist"):
        hub.check_model(name)


def test_what_is_there_is_accepted_without_asking(silent, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(hub, "_answers", lambda address: pytest.fail("the Hub was asked"))
    for name in ("sandbox", "sandbox:pool", str(tmp_path)):
        hub.check_model(name)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: "/cache/config.json")
    hub.check_model("owner/cached")


@pytest.mark.parametrize("name", ["./x", "/x/y", "a/b/c", "gpt", "here/x"])
def test_a_path_without_data_is_never_asked_of_the_hub(
    silent, tmp_path: Path, monkeypatch, name: str
) -> None:
    pytest.importorskip("datasets", reason="problems are loaded with the extra train")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_answers", lambda address: pytest.fail("the Hub was asked"))
    from entropilot.inputs.problems import load_problems

    began = time.monotonic()
    with pytest.raises(UserError, match="data.source: there is no file .*; give a path that ends in .jsonl"):
        load_problems(Data(source=name))
    assert time.monotonic() - began < 3


def test_data_on_a_hub_that_does_not_answer_costs_less_than_three_seconds(silent) -> None:
    pytest.importorskip("datasets", reason="problems are loaded with the extra train")
    from entropilot.inputs.problems import load_problems

    began = time.monotonic()
    with pytest.raises(UserError, match=r"data.source: nobody/none is neither a file .* does not answer"):
        load_problems(Data(source="nobody/none"))
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("cache", "folder"),
    [
        ("datasets.config.HF_DATASETS_CACHE", "nobody___none"),
        ("huggingface_hub.constants.HF_HUB_CACHE", "datasets--nobody--none"),
    ],
)
def test_data_that_was_loaded_before_is_not_asked_for(
    silent, tmp_path, monkeypatch, cache: str, folder: str
) -> None:
    pytest.importorskip("datasets", reason="problems are loaded with the extra train")
    monkeypatch.setattr(hub, "_answers", lambda address: pytest.fail("the Hub was asked"))
    monkeypatch.setattr(cache, str(tmp_path))
    (tmp_path / folder).mkdir()
    hub.check_dataset("nobody/none")


def test_a_judges_model_is_looked_for_before_it_is_loaded(silent) -> None:
    pytest.importorskip("torch", reason="model judges need torch")
    from entropilot.answers.judges import build_judge

    with pytest.raises(UserError, match="The entailment judge's model: nobody/none is neither a folder"):
        build_judge("entailment", model="nobody/none")
    with pytest.raises(UserError, match="The entailment judge's model: the folder ./none does not exist"):
        build_judge("entailment", model="./none")


def test_train_says_so_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("{model: nobody/none, data: sandbox, grpo: {max_steps: 4}}")
    code = (
        "import sys, entropilot.cli.main as cli\nsys.argv = ['entropilot', 'train', 'r.yaml']\n"
        "try: cli.main()\n"
        "except SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    )
    settings = {"HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"]}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=settings, capture_output=True, text=True, check=True
    )
    assert run.stdout == "2 False\n" and "HF_HUB_OFFLINE is set" in run.stderr
    assert not (tmp_path / "runs").exists()
