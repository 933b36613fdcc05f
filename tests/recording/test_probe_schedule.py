"""The probe over a whole run: its schedule, resuming, rollouts that do not fit the updates, and smaller questions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback
from trl_helpers import Recorded, letters, make_trainer

from entropilot.maths.tokens import TokenBatch
from entropilot.methods import KLCov
from entropilot.recording.metrics import rollout_metrics
from entropilot.recording.observer import Rollout
from entropilot.recording.probe import Probe, Validation


def test_groups_all_right_and_all_wrong():
    """Of six groups of two: right, wrong, mixed, right with one not scored, nothing scored, half right."""
    nan = math.nan
    rewards = torch.tensor([1, 1, 0, 0, 1, 0, nan, 1, nan, nan, 0.5, 0.5])
    ones = torch.ones(12, 3)
    rollout = Rollout(
        TokenBatch(ones, ones, rewards.nan_to_num(), ones), ones.bool(), None, rewards, {}, 0, 0.0
    )
    row = rollout_metrics(rollout, 2)
    assert (row["groups/all_right"], row["groups/all_wrong"]) == pytest.approx((2 / 6, 2 / 6))
    assert row["reward/mean"] == pytest.approx(5 / 9)
    rollout.rewards = torch.zeros(12)
    assert rollout_metrics(rollout, 2)["groups/all_wrong"] == 1.0, (
        "if nothing was right, all groups are wrong"
    )


def test_lengths_are_those_before_truncated_completions_are_masked(tmp_path):
    probe = Probe()
    trainer = make_trainer(
        tmp_path,
        recorded=Recorded(),
        observer=probe,
        callbacks=[probe],
        settings={"mask_truncated_completions": True, "max_steps": 1},
    )
    trainer.train()
    row, (ids, _) = trainer.state.log_history[0], Recorded().rows(0, 16)
    assert row["completion/length"] == np.mean([len(text) for text in ids])
    assert row["completion/truncated"] == 0.5


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_entropy_at_another_temperature_is_measured_every_so_many_rollouts(tmp_path, every):
    rows: dict[int, dict[str, Any]] = {}
    probe = Probe(entropy_every=every, on_row=lambda step, row: rows.update({step: row}))
    settings = {"temperature": 0.7, "steps_per_generation": 2, "max_steps": 8}
    make_trainer(tmp_path, recorded=Recorded(), observer=probe, callbacks=[probe], settings=settings).train()
    measured = [row["rollout"] for row in rows.values() if "entropy/policy_T1" in row]
    assert measured == [rollout for rollout in range(4) if rollout % every == 0]


class Stop(TrainerCallback):
    """Ends a training after a step, as a killed job would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop |= state.global_step == self.step


def watched(
    out: Any,
    checkpoint: str | None = None,
    stop: int = 0,
    past: dict[int, dict[str, Any]] | None = None,
    **settings: Any,
) -> dict[int, dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    validation = Validation([{"prompt": "1+2="}], letters, every=2, temperature=1.0, max_new_tokens=4)
    probe = Probe(validation=validation, on_row=lambda step, row: rows.update({step: row}))
    if past is not None and checkpoint is not None:
        probe.take_up(
            [{"step": step} | row for step, row in past.items()], int(checkpoint.rpartition("-")[2])
        )
    settings = {"max_steps": 12, "save_strategy": "steps", "save_steps": 2} | settings
    callbacks = [Stop(stop)] if stop else []
    method = KLCov(fraction=0.04)
    trainer = make_trainer(out, method=method, observer=probe, callbacks=callbacks, settings=settings)
    trainer.train(resume_from_checkpoint=checkpoint)
    return rows


def test_a_resumed_run_keeps_the_schedule(tmp_path):
    """From a checkpoint between two rollouts everything goes on as if nothing had happened; the completions are sampled."""
    whole = watched(tmp_path / "whole")
    assert {step: row["rollout"] for step, row in whole.items() if "rollout" in row} == {1: 0, 5: 1, 9: 2}
    assert [step for step, row in whole.items() if "validation/accuracy" in row] == [1, 9, 13]
    shares = [row["covariance/positive_share"] for row in whole.values() if "rollout" in row]
    assert len(set(shares)) > 1, "covariances of both signs, or a share that starts again can't be seen"
    past = watched(tmp_path / "cut", stop=6)
    rest = watched(tmp_path / "cut", checkpoint=str(tmp_path / "cut" / "checkpoint-4"), past=past)
    assert list(rest) == list(range(5, 14))
    for step, row in rest.items():
        assert row.keys() == whole[step].keys()
        for name in (name for name in row if not name.startswith("seconds/")):
            assert row[name] == whole[step][name], f"step {step}: {name}"


def test_a_run_that_is_resumed_in_the_middle_of_a_rollout(tmp_path):
    """What was left of the rollout is lost; the next one has the next number, and no number comes twice."""
    watched(tmp_path, stop=6)
    rest = watched(tmp_path, checkpoint=str(tmp_path / "checkpoint-6"))
    assert {step: row["rollout"] for step, row in rest.items() if "rollout" in row} == {7: 2, 11: 3}
    assert [step for step, row in rest.items() if "validation/accuracy" in row] == [7, 13]


@pytest.mark.parametrize(
    ("shape", "rollouts", "measured"),
    [
        ((2, 3), {1: 0, 2: 1, 4: 2, 5: 3}, [1, 4, 7]),  # a rollout begins in the middle of update 2 and of 5
        ((4, 2), {1: 0, 2: 2, 3: 4}, [1, 2, 3, 4]),  # two rollouts per update: one measurement, not two
    ],
)
def test_rollouts_that_do_not_fit_the_updates(tmp_path, monkeypatch, shape, rollouts, measured):
    steps = max(rollouts) + (len(rollouts) == 4)
    calls: list[int] = []
    measure = Validation.measure
    monkeypatch.setattr(Validation, "measure", lambda *given: calls.append(0) or measure(*given))
    rows: dict[int, dict[str, Any]] = {}
    validation = Validation([{"prompt": "1+2="}], letters, every=2, temperature=0.0, max_new_tokens=4)
    probe = Probe(validation=validation, on_row=lambda step, row: rows.update({step: row}))
    names = ("gradient_accumulation_steps", "steps_per_generation")
    settings = dict(zip(names, shape, strict=True)) | {"max_steps": steps}
    make_trainer(tmp_path, recorded=Recorded(), observer=probe, callbacks=[probe], settings=settings).train()
    assert {step: row["rollout"] for step, row in rows.items() if "rollout" in row} == rollouts
    assert [step for step, row in rows.items() if "validation/accuracy" in row] == measured
    assert len(calls) == len(measured)


def test_the_learning_rate_is_that_of_the_update(tmp_path):
    """When a step ends the schedule has already gone on: with 4 steps, linear, the rates are 1, 3/4, 1/2, 1/4 of it."""
    rows: dict[int, dict[str, Any]] = {}
    probe = Probe(on_row=lambda step, row: rows.update({step: row}))
    settings = {"lr_scheduler_type": "linear", "max_steps": 4}
    trainer = make_trainer(
        tmp_path, recorded=Recorded(), observer=probe, callbacks=[probe], settings=settings
    )
    trainer.train()
    rates = [row["learning_rate"] for row in rows.values()]
    assert rates == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3])
    assert rates == [row["learning_rate"] for row in trainer.state.log_history[:-1]]
