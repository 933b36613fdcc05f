"""A judge from another package, by its path or by an entry point, used from the command line; no edit inside `src/`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
class Lengths:
    name = "lengths"

    def __init__(self, *, slack: int = 0):
        self.slack = slack

    def equivalent(self, pairs, questions=None):
        return [abs(len(a) - len(b)) <= self.slack for a, b in pairs]

class NoJudge:
    pass
"""


def cluster(folder: Path, judge: str, *options: str) -> subprocess.CompletedProcess[str]:
    rows = folder / "rows.jsonl"
    rows.write_text(
        json.dumps(
            {"prompt": "p", "completions": [f"\\boxed{{{text}}}" for text in ("a", "b", "cc", "dddd")]}
        )
    )
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "entropilot", "cluster", str(rows), "--judge", judge, "--json", *options],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A module, and metadata that names its entry point, laid down as pip does."""
    (tmp_path / "length_judge.py").write_text(CODE)
    info = tmp_path / "length_judge-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: length-judge\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[entropilot.judges]\nlengths = length_judge:Lengths\n")
    return tmp_path


@pytest.mark.parametrize("judge", ["lengths", "length_judge.Lengths"])
def test_a_judge_of_another_package_by_name_or_path(judge: str, package: Path) -> None:
    done = cluster(package, judge)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["labels"] == [0, 0, 1, 2]


def test_its_options_come_from_its_signature(package: Path) -> None:
    done = cluster(package, "lengths", "--judge-arg", "slack=1")
    assert json.loads(done.stdout)["rows"][0]["labels"] == [0, 0, 0, 1]
    wrong = cluster(package, "lengths", "--judge-arg", "slak=1")
    assert wrong.returncode == 2
    assert "'lengths' does not take these options" in wrong.stderr


def test_a_class_that_is_no_judge_is_refused_in_words(package: Path) -> None:
    done = cluster(package, "length_judge.NoJudge")
    assert done.returncode == 2
    assert "has no method equivalent(pairs, questions)" in done.stderr
