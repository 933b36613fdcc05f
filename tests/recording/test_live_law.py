"""The law while training: what the probe adds to a row, and when it speaks."""

from __future__ import annotations

import math
from typing import Any

import pytest

from entropilot.metrics import METRICS
from entropilot.recording.probe import Probe, Validation


def row(rollout: int, measured: bool = True) -> dict[str, Any]:
    """A rollout of a run that follows R = −0.5·exp(H) + 1.5 while its entropy falls from 0.5 nats."""
    h = 0.5 * 0.8**rollout
    accuracy = {"validation/accuracy": 1.5 - 0.5 * math.exp(h)} if measured else {}
    return {"entropy/policy_T1": h, "reward/mean": 0.5, **accuracy}


def watched() -> tuple[Probe, list[str]]:
    said: list[str] = []
    validation = Validation(rows=[{"prompt": "x"}], reward=lambda **_: [0.0])
    return Probe(validation=validation, on_alarm=said.append), said


def test_the_ceiling_is_that_of_the_law_and_lies_in_its_interval() -> None:
    probe, _ = watched()
    found = [probe._law(4 * rollout + 1, row(rollout)) for rollout in range(8)]
    assert all("law/ceiling" not in early for early in found[:4]), "four points are too few to speak of a law"
    assert found[7]["law/ceiling"] == pytest.approx(1.0) and found[7]["law/r2"] == pytest.approx(1.0)
    assert found[7]["law/ceiling_low"] <= found[7]["law/ceiling"] <= found[7]["law/ceiling_high"]
    assert set(found[7]) <= set(METRICS), "every logged name has its definition"


def test_only_rollouts_with_a_measurement_log_the_law() -> None:
    probe, _ = watched()
    assert probe._law(1, {"entropy/train_token_mean": 0.3}) == {}, "not the first update of a rollout"
    assert probe._law(5, row(0, measured=False)) == {}
    assert math.isnan(probe.history[-1][2]), "its entropy counts all the same"


def test_the_alarm_is_raised_once() -> None:
    probe, said = watched()
    rows = [probe._law(4 * rollout + 1, row(rollout)) for rollout in range(25)]
    assert len(said) == 1 and sum("law/alarm" in found for found in rows) == 1
    assert said[0].count("nats") == 1 and "nearly spent" in said[0]


def test_a_resumed_run_does_not_repeat_it() -> None:
    probe, said = watched()
    probe.alarmed = True
    for rollout in range(25):
        probe._law(4 * rollout + 1, row(rollout))
    assert said == []
