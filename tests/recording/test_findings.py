"""What the probe does with findings while a run is training: say them once, keep them in the record, end training."""

from __future__ import annotations

import types
from typing import Any

import pytest

from entropilot.metrics import ENTROPY, REWARD
from entropilot.recording.probe import TOLD, Probe


class Engine:
    """An optimiser step at a time; keeps what is handed to the trackers."""

    step, is_main = 0, True

    def __init__(self) -> None:
        self.logged: dict[str, float] = {}

    def log(self, name: str, value: float) -> None:
        self.logged[name] = value


@pytest.fixture(autouse=True)
def no_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entropilot.recording.probe.update_metrics", lambda *_: {})


def drive(probe: Probe, steps: range, values: Any) -> list[int]:
    """Do the updates of some steps; return those after which training should stop."""
    ends, engine = [], Engine()
    for engine.step in steps:
        probe._pending, probe._passes = dict(values(engine.step)), [types.SimpleNamespace(seconds=0.0)]
        if probe.end_update(engine, 0.1):
            ends.append(engine.step)
    assert TOLD not in engine.logged, "trackers take numbers"
    return ends


def dead(step: int) -> dict[str, float]:
    return {REWARD: 0.0}


def truncated(step: int) -> dict[str, float]:
    return {REWARD: 0.5 + 0.01 * (step % 3), "completion/truncated": step / 50}


def watched(action: str) -> tuple[Probe, list[str], dict[int, dict[str, Any]]]:
    said: list[str] = []
    rows: dict[int, dict[str, Any]] = {}
    probe = Probe(on_finding=action, on_alarm=said.append, on_row=rows.__setitem__)  # type: ignore[arg-type]
    return probe, said, rows


@pytest.mark.parametrize(("action", "ends"), [("off", []), ("warn", []), ("stop", [40])])
def test_a_dead_run_is_told_once_and_stopped_where_asked(action: str, ends: list[int]) -> None:
    """The first check is at row 30, the second, which tells, at row 40."""
    probe, said, rows = watched(action)
    assert drive(probe, range(1, 61), dead) == ends
    told = {step: row[TOLD] for step, row in rows.items() if TOLD in row}
    if action == "off":
        assert (said, told) == ([], {})
        return
    assert list(told) == [40] and told[40] == {"dead run": said[0]} and len(said) == 1
    assert said[0].startswith("error: dead run, steps 1 to 40: reward/mean is 0 at all 40 steps.")
    assert "so the model can't learn which of them is better." in said[0]
    assert "Check the reward of a few answers by hand." in said[0]
    assert probe.over == (action == "stop")


def test_a_warning_is_told_and_ends_nothing() -> None:
    probe, said, _ = watched("stop")
    assert drive(probe, range(1, 61), truncated) == []
    assert len(said) == 1 and said[0].startswith("warning: truncation") and not probe.over


def test_a_resumed_run_does_not_tell_again() -> None:
    probe, _, rows = watched("warn")
    drive(probe, range(1, 56), dead)
    past = [{"step": step} | row for step, row in rows.items()]
    again, said, _ = watched("stop")
    again.take_up(past, 50)
    assert again.over, "it had come to its end"
    drive(again, range(51, 100), dead)
    assert said == []
    earlier, said, rows = watched("warn")  # from a checkpoint before it was told
    earlier.take_up(past, 35)
    assert not earlier.over
    drive(earlier, range(36, 50), dead)
    assert [step for step, row in rows.items() if TOLD in row] == [40] and len(said) == 1


def test_the_method_of_the_run_reaches_the_checks() -> None:
    """A log-ratio of 0 throughout is wrong for KL-Cov only."""
    for method, names in (("kl_cov", ["inert method"]), ("none", [])):
        probe = Probe(on_finding="warn", settings={"method": method})
        drive(probe, range(1, 61), lambda step: {ENTROPY: 0.5 + step / 600, "log_ratio/p99": 0.0})
        assert list(probe.told) == names
