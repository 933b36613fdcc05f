"""`kill -9` at any moment, then `--resume`: what is left equals what an uninterrupted run leaves, bit by bit."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from crash_helpers import STEPS, UPDATES, difference, finish, left_by, start, tiny_recipe

from entropilot.engines.trl.checkpoints import MANIFEST
from entropilot.errors import UserError
from entropilot.records import read_run

KILLS, KILLS_EACH = 30, 3


def _begun(out: Path) -> bool:
    return (out / "run.jsonl").is_file()


def _rows(out: Path) -> int:
    try:
        return (out / "run.jsonl").read_text().count('"step"')
    except FileNotFoundError:  # not begun yet, or just put aside by a session that begins anew
        return -1


def _ended(out: Path) -> bool:
    try:
        return read_run(out).header["end"] is not None
    except UserError:  # nothing of it is there yet, or not even its first line
        return False


def _checkpoint(out: Path) -> int | None:
    """Return the step of the last checkpoint that has its name."""
    steps = [
        json.loads(path.read_text())["step"] for path in out.glob(f"checkpoints/checkpoint-*/{MANIFEST}")
    ]
    return max(steps, default=None)


def _killed(process: Any, out: Path, rows: int, delay: float) -> bool:
    """Kill a training `delay` seconds after it has written so many rows; return whether it was not done yet."""
    limit = time.monotonic() + 120
    while process.is_alive() and _rows(out) < rows:
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.join(delay)
    process.kill()
    process.join()
    return process.exitcode == -9 and not _ended(out)  # behind the record's last line a process only leaves


@pytest.mark.crash
@pytest.mark.filterwarnings("ignore::entropilot.records.RecordWarning")
def test_thirty_kills_at_random_moments(tmp_path: Path, capsys: Any) -> None:
    """Each run is killed up to three times while it begins, loads, trains or saves, and goes on after every kill."""
    seed = random.SystemRandom().randrange(10**6)
    draw, recipe = random.Random(seed), tiny_recipe(tmp_path / "tiny")
    finish(recipe, tmp_path / "whole")
    whole, said = left_by(tmp_path / "whole"), [f"seed {seed}"]
    kills = inside = run = 0
    while kills < KILLS:
        out, run = tmp_path / f"cut-{run}", run + 1
        # From before the first byte (-1) to behind the last row, and a little further.
        for rows in sorted(draw.randint(-1, STEPS + 1) for _ in range(KILLS_EACH)):
            delay = draw.uniform(0, 0.3)
            if not _killed(start(recipe, out, resume=_begun(out)), out, rows, delay):
                break  # it came to its end first
            step = _checkpoint(out)
            kills, inside = kills + 1, inside + (step is not None and step % UPDATES != 0)
            said.append(f"{out.name} killed {delay:.3f} s behind row {rows}; last checkpoint {step}")
        else:
            finish(recipe, out, resume=_begun(out))
        assert difference(left_by(out), whole) is None, said
    with capsys.disabled():
        print("", *said, sep="\n")  # noqa: T201
    assert inside >= KILLS // 6, "too few of the kills fell inside a rollout to tell anything"
