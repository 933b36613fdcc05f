"""TRL's output folder and TensorBoard's events, as the real ones write them, and what goes wrong with such files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from entropilot.errors import UserError
from entropilot.law.law import fit_run
from entropilot.readers import read

H, R = "entropy/train_token_mean", "reward/mean"


def history(folder: Path) -> list[dict]:
    """Return what TRL logged, by the plainest means."""
    return json.loads((folder / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]


def test_what_trl_wrote(trl_run: Path) -> None:
    reading = read(trl_run)
    assert reading.framework == "trl"
    assert [column.source for column in reading.columns.values()] == ["entropy", "reward", "step"]
    logged = {entry["step"]: entry for entry in history(trl_run) if "entropy" in entry}
    assert [row["step"] for row in reading.run.rows] == [1, 2, 3, 4]
    for row in reading.run.rows:
        entry = logged[row["step"]]
        assert (row[H], row[R]) == (entry["entropy"], entry["reward"])
        assert row["rewards/digits/mean"] == entry["rewards/digits/mean"]
    # The completions' own table, one Parquet file per step, agrees with the history. An evaluation, here at 2 and 4,
    # writes its last completions over those of the same step's training.
    for step, row in zip((1, 2, 3, 4), reading.run.rows, strict=True):
        if step % 2:
            assert row["completions/digits/mean"] == pytest.approx(row["rewards/digits/mean"], abs=1e-6)
        else:
            assert "completions/digits/mean" not in row
    assert reading.skipped == {}
    assert reading.notes == (
        "The history is that of checkpoint-4, the latest that is whole.",
        "The completions of 2 steps are left out: they are past the history, or of an evaluation, which TRL writes over "
        "those of the same step's training.",
        "eval_reward has fewer than 3 values, so reward is used.",
    )
    assert len(reading.files) == 5 and reading.run.name == "demo"
    assert fit_run(reading.run, reading.entropy, reading.performance)[0].n == 4


def test_evaluations_are_joined_to_the_entropy_of_their_step(trl_run: Path) -> None:
    reading = read(trl_run, performance="eval_reward")
    assert reading.performance == "validation/reward"  # a sum of two reward functions is no accuracy
    evaluated = {entry["step"]: entry["eval_reward"] for entry in history(trl_run) if "eval_reward" in entry}
    assert reading.run.column(H, "validation/reward") == [
        (step, next(e["entropy"] for e in history(trl_run) if e["step"] == step), value)
        for step, value in evaluated.items()
    ]
    assert reading.notes[-1] == "Of 2 values of eval_reward, 2 have the entropy of their step."


@pytest.mark.parametrize("inner", ["checkpoint-4", "checkpoint-4/trainer_state.json"])
def test_a_checkpoint_or_its_state_will_do(trl_run: Path, inner: str) -> None:
    reading = read(trl_run / inner)
    assert [row["step"] for row in reading.run.rows] == [1, 2, 3, 4]


def test_events_hold_the_same(trl_run: Path) -> None:
    pytest.importorskip("tensorboard")
    state = read(trl_run)
    for path in (trl_run / "runs", next((trl_run / "runs").iterdir())):
        events = read(path)
        assert events.framework == "tensorboard"
        assert events.columns["entropy"].source == "train/entropy"
        assert events.columns["performance"].source == "train/reward"
        for ours, theirs in zip(events.run.rows, state.run.rows, strict=True):
            assert (ours["step"], ours[H], ours[R]) == pytest.approx(
                (theirs["step"], theirs[H], theirs[R]), rel=1e-6
            )


@pytest.fixture
def copied(trl_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trl_run, tmp_path / "demo", ignore=shutil.ignore_patterns("*.safetensors"))


def test_a_torn_checkpoint_gives_way_to_the_one_before(copied: Path) -> None:
    later = copied / "checkpoint-12"
    later.mkdir()
    whole = (copied / "checkpoint-4" / "trainer_state.json").read_bytes()
    (later / "trainer_state.json").write_bytes(whole[: len(whole) // 2])
    reading = read(copied)
    assert reading.skipped == {"torn files": 1} and len(reading.run.rows) == 4


def test_the_later_checkpoint_is_read_by_number_not_by_name(copied: Path) -> None:
    state = json.loads((copied / "checkpoint-4" / "trainer_state.json").read_text())
    state["global_step"] = 12
    state["log_history"] += [{"step": 12, "entropy": 0.125, "reward": 1.0}]
    (copied / "checkpoint-12").mkdir()
    (copied / "checkpoint-12" / "trainer_state.json").write_text(json.dumps(state))
    assert [row["step"] for row in read(copied).run.rows][-1] == 12
    shutil.copy(copied / "checkpoint-4" / "trainer_state.json", copied)  # saved by hand, and earlier
    assert [row["step"] for row in read(copied).run.rows][-1] == 12
    (copied / "checkpoint-notes").mkdir()
    shutil.copy(copied / "checkpoint-12" / "trainer_state.json", copied)
    assert read(copied).files[0] == copied / "trainer_state.json"


def test_completions_alone_hold_no_entropy(copied: Path) -> None:
    shutil.rmtree(copied / "checkpoint-4")
    with pytest.raises(
        UserError, match="completions/ holds rewards but no entropy; TRL writes one with each"
    ):
        read(copied)


def test_a_torn_file_of_completions_is_counted(copied: Path) -> None:
    file = copied / "completions" / "completions_00003.parquet"
    file.write_bytes(file.read_bytes()[:100])
    reading = read(copied)
    assert reading.skipped == {"torn files": 1}
    assert ["completions/digits/mean" in row for row in reading.run.rows] == [True, False, False, False]


def test_nulls_and_nans_of_a_history(tmp_path: Path) -> None:
    text = """{"log_history": [{"step": 1, "entropy": 0.5, "reward": NaN}, {"step": 2, "entropy": null, "reward": 1},
      {"step": 3, "entropy": 0.25, "reward": 0.75}, 7, {"step": 4, "entropy": 0.2, "reward": 0.8, "x": %s},
      {"entropy": 0.1, "reward": 1.0}]}"""
    (tmp_path / "trainer_state.json").write_text(text % ("9" * 5000))
    reading = read(tmp_path)
    assert reading.run.column(H, R) == [(3, 0.25, 0.75), (4, 0.2, 0.8)]
    assert reading.skipped == {
        "values NaN or ±inf": 3,
        "torn lines": 1,
        "rows without a step": 1,
        "missing steps": 1,
    }
    assert reading.notes == (
        "Of 3 values of reward, 2 have the entropy of their step, 1 none and take no part in a law.",
        "entropy: 1 of its values are NaN or ±inf and were skipped.",
        "reward: 1 of its values are NaN or ±inf and were skipped.",
    )


def test_rewards_of_generation_steps_only(tmp_path: Path) -> None:
    """With steps_per_generation = 4 TRL logs a reward at every fourth step; only these points take part in a law."""
    entries = [
        {"step": s, "loss": 0.0, "entropy": 1 - s / 32} | ({"reward": s / 16} if s % 4 == 1 else {})
        for s in range(1, 17)
    ]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 16, "log_history": entries}))
    reading = read(tmp_path)
    assert len(reading.run.rows) == 16 and reading.run.column(H)[-1] == (16, 0.5)
    assert reading.run.column(H, R) == [(s, 1 - s / 32, s / 16) for s in (1, 5, 9, 13)]
    assert fit_run(reading.run, reading.entropy, reading.performance)[0].n == 4


def test_several_evaluation_sets_are_told_apart(tmp_path: Path) -> None:
    """TRL logs each under `eval_reward`; only the loss and the times carry the set's name."""
    entries = []
    for step in (1, 2, 3):
        entries += [
            {"step": step, "entropy": 1 / step, "reward": 0.1},
            {"step": step, "eval_easy_loss": 0.0, "eval_easy_runtime": 1.0, "eval_reward": 0.75},
            {"step": step, "eval_hard_loss": 0.0, "eval_hard_runtime": 1.0, "eval_reward": 0.25},
        ]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": entries}))
    reading = read(tmp_path)
    assert reading.run.column("validation/reward") == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert reading.columns["performance"].source == "mean of eval_easy_reward, eval_hard_reward"
    assert reading.notes == (
        "Performance is the mean of 2 validation sets, each with the same weight, at the steps that have all of them: "
        "eval_easy_reward, eval_hard_reward; choose one with --performance (performance=… in Python).",
    )
    reading = read(tmp_path, performance="eval_hard_reward")
    assert reading.run.rows[0]["validation/reward"] == 0.25 and reading.run.rows[0]["eval_easy_loss"] == 0.0


@pytest.mark.slow
def test_trl_really_logs_several_evaluation_sets_so(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from train_trl import train

    train(tmp_path, [], run_name="two evaluations")
    with pytest.raises(UserError, match="no column eval_reward"):
        read(tmp_path, performance="eval_reward")
    row = read(tmp_path, performance="eval_hard_reward").run.rows[1]
    assert row["eval_easy_reward"] != row["validation/reward"]
