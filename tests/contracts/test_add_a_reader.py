"""A reader from another package: installed beside ours, named in an entry point, used from the command line."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

CODE = """
from entropilot.readers.reader import Log, Reader, Source, known

def sniff(peek):
    return "diary" if peek.head.startswith(b"Dear diary") else None

def read(log, gathered, run):
    for line in log.path.read_text().splitlines()[1:]:
        day, mood, marks = line.split()
        gathered.take({"day": float(day), "mood": float(mood), "marks": float(marks)})
    return Source([log.path], "my diary")

READER = Reader(
    "diary", read, sniff=sniff, steps=(("day",),),
    columns=(
        *known("entropy", "entropy/train_token_mean", "nats", (2, "mood", "how I felt")),
        *known("performance", "validation/accuracy", "share", (1, "marks", "what I got")),
    ),
    log_entropy="the diary has moods",
)
"""


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "entropilot", *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def install(folder: Path, entry: str) -> None:
    """Lay a package down as pip does: a module, and metadata that names its entry point."""
    (folder / "diary_reader.py").write_text(CODE)
    info = folder / "diary_reader-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: diary-reader\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[entropilot.readers]\ndiary = {entry}\n")


def diary(folder: Path) -> Path:
    """H = 1/day and R = 0.8 − 0.1·exp(H): the law with a = 0.1, b = 0.8."""
    lines = [f"{day} {1 / day!r} {0.8 - 0.1 * math.exp(1 / day)!r}" for day in range(1, 7)]
    path = folder / "notes.txt"
    path.write_text("Dear diary,\n" + "\n".join(lines) + "\n")
    return path


def test_a_reader_from_outside_is_used_by_the_commands(run, tmp_path: Path) -> None:
    path = diary(tmp_path)
    without = run("fit", str(path))
    assert without.code == 2 and "holds no log that can be read" in without.err
    install(tmp_path, "diary_reader:READER")
    done = command(tmp_path, "fit", str(path), "--json")
    assert done.returncode == 0, done.stderr
    (fit,) = json.loads(done.stdout)
    assert fit["framework"] == "diary" and abs(fit["a"] - 0.1) < 1e-9 and abs(fit["b"] - 0.8) < 1e-9
    assert "entropy: mood (by default)" in done.stderr
    assert command(tmp_path, "read", str(path), "--to", str(tmp_path / "run")).returncode == 0
    (again,) = json.loads(run("fit", "run", "--json").out)
    assert (again["run"], again["a"], again["b"]) == ("my diary", fit["a"], fit["b"])
    assert json.loads((tmp_path / "run" / "run.jsonl").read_text().splitlines()[0])["framework"] == "diary"


def test_a_reader_that_is_broken_stops_nothing(tmp_path: Path) -> None:
    install(tmp_path, "no_such_module:READER")
    table = tmp_path / "log.csv"
    rows = [f"{step},{1 / step},{0.8 - 0.1 * math.exp(1 / step)}" for step in range(1, 7)]
    table.write_text("step,entropy,reward\n" + "\n".join(rows) + "\n")
    done = command(tmp_path, "fit", str(table))
    assert done.returncode == 0 and "The reader diary (no_such_module:READER) can't be loaded" in done.stderr
