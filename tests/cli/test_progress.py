"""The plain lines of a training without a terminal."""

from __future__ import annotations

import pytest

pytest.importorskip("tqdm")

from entropilot.cli import progress


def test_lines_say_how_long_it_still_takes(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Rows come every 30 s; after step 3, at 60 s since the first, 7 steps of 30 s are left: 3.5 minutes, rounded to 4."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_has_terminal", lambda: False)
    line = progress.Progress("mine")
    line.start(10)
    for step in (1, 2, 3):
        now[0] += 30.0
        line.row(step, {"reward/mean": 0.5})
    assert capsys.readouterr().err.splitlines() == [
        "mine: step 1 of 10, reward 0.500",
        "mine: step 2 of 10, reward 0.500, about 4 min left",
        "mine: step 3 of 10, reward 0.500, about 4 min left",
    ]
    line.row(10, {})
    line.close()
    assert "left" not in capsys.readouterr().err
    line.start(4)  # the next stage of a chain
    now[0] += 30.0
    line.row(1, {"loss": 0.25})
    assert capsys.readouterr().err == "mine: step 1 of 4, loss 0.250 nats\n"
