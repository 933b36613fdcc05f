"""How long a training takes, by hand from the rows of its first rollouts, and measured."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from entropilot.recipes.schema import load_recipe
from entropilot.training import duration
from entropilot.training.duration import seconds_from, spoken

# Two updates a rollout; held-out accuracy (2 s) every second rollout, which is in the step before which it is measured.
ROWS = [
    {"rollout": 0, "seconds/step": 9.0, "seconds/validation": 2.0},  # begins slowly
    {"seconds/step": 5.0},
    {"rollout": 1, "seconds/step": 3.0},
    {"seconds/step": 1.0},
    {"rollout": 2, "seconds/step": 5.0, "seconds/validation": 2.0},
    {"seconds/step": 1.0},
    {"rollout": 3, "seconds/step": 3.0},
]


def test_by_hand() -> None:
    # (3 + 1 + (5 − 2) + 1) / 4 = 2 s a step; 40 steps are 20 rollouts, so 11 measurements: 40 · 2 + 11 · 2.
    found = seconds_from(ROWS, 40, every=2)
    assert (found.step, found.validation, found.whole) == (2.0, 2.0, 102.0)
    # What took 5 s there was not all of it validation.
    assert seconds_from([row | {"seconds/validation": None} for row in ROWS], 40, None).whole == 40 * 10 / 4


def test_a_training_of_one_rollout_is_all_that_there_is() -> None:
    found = seconds_from(ROWS[:2], 2, every=1)
    assert (found.step, found.whole) == (6.0, 2 * 6.0 + 2 * 2.0)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (59, "59 s"), (95, "2 min"), (7100, "118 min"), (9000, "2.5 h"), (400_000, "4.6 days")],
)
def test_spoken(seconds: float, said: str) -> None:
    assert spoken(seconds) == said


def test_check_measures_and_leaves_nothing(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        "transformers.integrations.TensorBoardCallback.on_train_begin", lambda *_: pytest.fail()
    )
    taken: list[list] = []
    monkeypatch.setattr(
        duration, "seconds_from", lambda rows, *rest: taken.append(rows) or seconds_from(rows, *rest)
    )
    small = ["grpo.per_device_train_batch_size=8", "grpo.steps_per_generation=2", "grpo.num_generations=4"]
    result = run("check", "quickstart_grpo", *small, "grpo.save_steps=1", "grpo.report_to=tensorboard",
                 "validate.problems=8", "--time")  # fmt: skip
    assert result.code == 0, result.err
    assert "time:                 about " in result.out and " on this machine (" in result.out
    # Three rollouts of two updates, and the first update of the fourth: of 240 steps no more were taken.
    assert [len(rows) for rows in taken] == [7]
    assert list(tmp_path.iterdir()) == []


STAGES = """
name: two
data: {limit: 8}
validate: null
probe: {tokens_every: 0}
reward: sandbox
stages: [first, second]
grpo: {per_device_train_batch_size: 8, num_generations: 4, max_completion_length: 4}
stage:
  first: {grpo: {steps_per_generation: 1, max_steps: 2}}
  second: {grpo: {steps_per_generation: 2, num_train_epochs: 3}}
"""


def test_every_stage_is_measured_on_the_first_model(run, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(STAGES)
    result = run("check", "two.yaml", "--time")
    assert result.code == 0, result.err
    assert [line.split(", ")[0] for line in result.out.splitlines() if line.startswith("time: ")] == [
        "time:                 stage first",
        "time:                 stage second",
    ]
    # Three epochs of eight prompts are known only when training begins.
    first, second = duration.measure(load_recipe("two.yaml"))
    assert (first.steps, second.steps) == (2, 12)


def test_several_processes_are_refused(run) -> None:
    result = run("check", "quickstart_grpo", "--processes", "2", "--time")
    assert result.code == 2 and result.err.startswith("error: --time measures one process")
