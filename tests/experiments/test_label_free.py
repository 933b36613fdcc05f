"""The study of learning without labels: the fall after the peak, and runs that are taken up again."""

from __future__ import annotations

import json
import signal
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from entropilot.engines.trl.checkpoints import write_manifest
from entropilot.errors import UserError
from entropilot.methods.advantage_method import RewardBatch
from entropilot.metrics import METRICS
from entropilot.recipes.schema import Recipe
from entropilot.records import ACCURACY, Run, RunWriter, read_run
from entropilot.sandbox.tasks import TIERS
from entropilot.training.plan import check
from experiments.label_free import store
from experiments.label_free.clipped import NegativeClip
from experiments.label_free.compare import ARMS, PARTS, by_arm, by_stop, recipe_of, row_of
from experiments.label_free.errors import Slip, is_short, slip_of
from experiments.label_free.errors import row_of as row_of_errors
from experiments.label_free.errors import table as errors_table
from experiments.label_free.falls import course, course_of
from experiments.label_free.onset import row_of as row_of_rollout
from experiments.label_free.onset import solved, value_token
from experiments.label_free.signals import SIGNALS, alarms, damage, first_beyond, limits_of, signals_of
from experiments.label_free.store import OutOfTime, arm, hour, train
from experiments.runs import keep


def test_the_fall_is_the_peak_less_the_end_each_a_mean_of_three() -> None:
    # Means of three: (.6+.9+.9)/3 = .8, (.9+.9+.6)/3 = .8, (.9+.6+.6)/3 = .7, (.6+.6+.75)/3 = .65, then .7
    found = course([1, 9, 17, 25, 33, 41, 49], [0.6, 0.9, 0.9, 0.6, 0.6, 0.75, 0.75])
    assert found is not None
    assert (found.start, found.peak_step) == (0.6, 17)  # the first of two equal peaks
    assert (found.peak, found.lowest, found.end) == pytest.approx((0.8, 0.65, 0.7), abs=1e-12)
    assert found.fall == pytest.approx(0.1, abs=1e-12) and found.fell


def test_a_course_of_two_measurements_has_no_peak() -> None:
    assert course([1, 9], [0.6, 0.9]) is None


def test_a_rise_is_no_fall() -> None:
    found = course([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4])
    assert found is not None and found.fall == 0 and not found.fell


def test_a_horizon_keeps_the_measurement_after_its_last_update(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, {"name": "x"})
    for step, accuracy in ((1, 0.0), (121, 0.3), (241, 0.6), (249, 0.9)):
        writer.row(step, {ACCURACY: accuracy})
    writer.close()
    found = course_of(read_run(tmp_path), 240)
    assert found is not None and found.end == pytest.approx(0.3, abs=1e-12)  # (0 + .3 + .6) / 3
    assert course_of(read_run(tmp_path), 120) is None


def test_an_arm_is_the_recipe_in_the_studys_setting() -> None:
    values = arm("empo", 103, 256, 480, "grpo.scale_rewards=none")
    assert values["data"] == {"source": "sandbox:chains", "limit": 256, "seed": 103}
    assert (values["seed"], values["reward"]) == (103, "empo")
    assert (values["grpo"]["max_steps"], values["grpo"]["scale_rewards"]) == (480, "none")


class _Process:
    """Stands for a training that ends well, fails, or is still running when the hour comes."""

    code: int | None = 0
    started: list[list[str]] = []
    signals: list[int] = []

    def __init__(self, command: list[str], **_: Any) -> None:
        self.started.append(command)
        self.returncode = self.code

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not self.signals:
            raise subprocess.TimeoutExpired("train", timeout or 0)
        return self.returncode or 0

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> type[_Process]:
    monkeypatch.setattr(_Process, "started", [])
    monkeypatch.setattr(_Process, "signals", [])
    monkeypatch.setattr(_Process, "code", 0)
    # In the study's module alone: a run's header asks git by the real one.
    names = {name: getattr(subprocess, name) for name in ("STDOUT", "TimeoutExpired")}
    monkeypatch.setattr(store, "subprocess", SimpleNamespace(Popen=_Process, **names))
    return _Process


def test_a_run_that_is_cut_off_by_the_hour_is_interrupted_and_kept(
    tmp_path: Path, process: type[_Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "code", None)
    with pytest.raises(OutOfTime):
        train(tmp_path / "run", {"seed": 1}, datetime.now() + timedelta(hours=1))
    assert process.signals == [signal.SIGINT] and "--resume" not in process.started[0]
    assert yaml.safe_load((tmp_path / "run.yaml").read_text()) == {"seed": 1}


def test_after_the_hour_nothing_is_begun(tmp_path: Path, process: type[_Process]) -> None:
    with pytest.raises(OutOfTime):
        train(tmp_path / "run", {"seed": 1}, datetime.now() - timedelta(minutes=1))
    assert process.started == [] and not (tmp_path / "run.yaml").exists()


def test_a_run_goes_on_from_its_checkpoint_and_without_one_anew(
    tmp_path: Path, process: type[_Process]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "left").write_text("")
    train(run, {"seed": 1})
    assert "--resume" not in process.started[0]
    assert [path.name for path in tmp_path.glob("run.cut-*/left")] == ["left"]  # nothing is thrown away
    checkpoint = run / "checkpoints" / "checkpoint-40"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"global_step": 40}')
    write_manifest(checkpoint, step=40)
    train(run, {"seed": 1})
    assert process.started[1][-1] == "--resume"


def test_a_failure_names_the_log_and_another_recipe_is_refused(
    tmp_path: Path, process: type[_Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "code", 2)
    with pytest.raises(UserError, match=r"Training run failed \(code 2\); see .*run\.log"):
        train(tmp_path / "run", {"seed": 1})
    with pytest.raises(UserError, match="another recipe"):
        train(tmp_path / "run", {"seed": 2})


def test_a_finished_run_is_not_made_again(tmp_path: Path, process: type[_Process]) -> None:
    writer = RunWriter(tmp_path / "run", {"name": "x"})
    writer.end("finished")
    writer.close()
    assert train(tmp_path / "run", {"seed": 1}) == tmp_path / "run" / "model"
    assert process.started == []


def test_an_hour_is_todays() -> None:
    at = hour("08:05")
    assert (at.hour, at.minute, at.date()) == (8, 5, datetime.now().date())


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_is_a_recipe_that_the_check_accepts(name: str) -> None:
    values = recipe_of(name, 2, 256, PARTS["screen"])
    recipe = Recipe.model_validate(values)
    check(recipe, processes=1, elsewhere=True)
    control = recipe_of("empo", 2, 256, PARTS["screen"])
    # One setting for all: only the reward, the method, the labels, or the scaling differ.
    assert {key: value for key, value in values["grpo"].items() if key != "scale_rewards"} == control["grpo"]
    data = {key: value for key, value in values["data"].items() if key != "labelled_share"}
    assert (data, values["validate"]) == (control["data"], control["validate"])


def test_every_part_has_arms_of_the_study_and_its_control() -> None:
    assert all(name in ARMS for part in PARTS.values() for name in part.arms)
    assert {name for part in PARTS.values() for name in part.arms} == set(ARMS)
    for part in ("confirm", "hard"):
        assert not {*PARTS["screen"].seeds} & {*PARTS[part].seeds}, "screening seeds confirm nothing"


@pytest.mark.parametrize("name", PARTS["hard"].arms)
def test_the_harder_part_differs_in_model_problems_and_length_alone(name: str) -> None:
    values = recipe_of(name, 2, 256, PARTS["hard"])
    check(Recipe.model_validate(values), processes=1, elsewhere=True)
    easy = recipe_of(name, 2, 256, PARTS["screen"])
    assert values["model"] == values["data"]["source"] == "sandbox:long"
    length = {"max_completion_length": TIERS["long"].max_completion_length}
    assert values["grpo"] == easy["grpo"] | length
    easy["data"]["source"] = easy["model"] = "sandbox:long"
    assert {**values, "grpo": 0} == {**easy, "grpo": 0}


def row(seed: int, fall: float, **more: Any) -> dict[str, Any]:
    """Return what is stored of a run with a peak of 0.9."""
    return {"seed": seed, "peak": 0.9, "end": 0.9 - fall, "fall": fall, "majority": None} | more


def test_a_table_of_arms_pairs_the_falls_and_counts_them() -> None:
    """Falls .2, .0, .1 against .04, .0, .0: −.16, 0, −.1, mean −.087. Two of three fell, none of three: p = 0.4."""
    empo = [row(seed, fall, majority=1.0) for seed, fall in enumerate((0.2, 0.0, 0.1))]
    drawn = {"pass": {"1": 0.5, "8": 0.75, "32": 1.0}}
    cure = [row(seed, fall, **drawn) for seed, fall in enumerate((0.04, 0.0, 0.0))]
    heads, control, found = by_arm({"empo": empo, "scrl": cure})
    assert control[5:8] == ["–", "2 of 3", "–"] and control[9:] == ["–"] * 3
    assert found[5].startswith("-0.087") and found[6:9] == ["0 of 3", "0.40", "–"]
    assert dict(zip(heads, found, strict=True))["pass@8"] == "0.750 ± 0.000"


def test_a_table_of_stops_counts_only_runs_in_which_the_rule_spoke() -> None:
    stop = {"step": 100, "there": 0.85, "later": 0.9}
    runs = [row(1, 0.1, stop=stop), row(2, 0.2, stop=stop | {"step": 120}), row(3, 0.0, stop=None)]
    _, found = by_stop({"empo": runs, "gold_reward": [row(1, 0.0)]})
    assert found[:2] == ["empo", "2 of 3"] and found[2].startswith("110 ±")
    assert found[3].startswith("0.850") and found[5].startswith("0.750") and found[6].startswith("+0.100")


def recorded(folder: Path, flips: list[float | None], right: list[float], accuracy: float) -> Run:
    """Write a run of one update a rollout whose accuracy is 0.9 and then, for the last half, another."""
    writer = RunWriter(folder, {"name": "x"})
    for step, (rate, share) in enumerate(zip(flips, right, strict=True), 1):
        measured = 0.9 if step <= len(flips) // 2 else accuracy
        writer.row(
            step, {"semantic/flip_rate": rate, "semantic/majority_accuracy": share, ACCURACY: measured}
        )
    writer.close()
    return read_run(folder)


def test_an_alarm_is_set_on_some_runs_and_counted_on_others(tmp_path: Path) -> None:
    """Flips rise by 0.04 in the run that falls and by 0.02 in the one that holds: the limit is 0.03, between them."""
    fallen = recorded(tmp_path / "a", [0.01] * 20 + [0.05] * 20, [1.0] * 40, 0.5)
    held = recorded(tmp_path / "b", [0.01] * 20 + [0.03] * 20, [1.0] * 40, 0.9)

    def rows_of(*runs: Run) -> list[dict[str, Any]]:
        return [
            {"fall": found.fall, "signals": signals_of(run), "damage": damage(run)}
            for run in runs
            if (found := course_of(run)) is not None
        ]

    limits = limits_of(rows_of(fallen, held))
    assert limits["flip rate rises"] == pytest.approx(0.03) and limits["margin falls"] is None
    assert limits_of(rows_of(held))["flip rate rises"] is None, "nothing fell"
    # Means of eight: flips exceed 0.01 + 0.03 where seven of eight are high (0.035), at step 27; majorities are 5 points
    # below their best where three of eight are wrong by 0.2 (0.075), at step 33.
    new = recorded(tmp_path / "c", [0.01] * 20 + [0.05] * 20, [1.0] * 30 + [0.8] * 10, 0.5)
    quiet = recorded(tmp_path / "d", [0.01] * 40, [1.0] * 40, 0.5)
    alarming = recorded(tmp_path / "e", [0.01] * 20 + [0.05] * 20, [1.0] * 40, 0.9)
    rises = signals_of(new)["flip rate rises"]
    assert first_beyond(rises, 0.03) == 27 and first_beyond(rises, 0.05) is None
    assert [gone for _, gone in rises] == pytest.approx([0.005 * count for count in range(1, 9)])
    assert (damage(new), damage(quiet)) == (33, None)

    def alarms_of(*runs: Run) -> dict[str, list[str]]:
        return {line[0]: line[1:] for line in alarms(limits, rows_of(*runs))}

    table = alarms_of(new, quiet, alarming)
    assert table["flip rate rises"] == ["0.03", "1 of 2", "1 of 1", "6"]
    assert table["margin falls"] == ["–"] * 4, "what was not recorded sets no alarm"
    once = recorded(tmp_path / "f", [None] * 40, [1.0] * 40, 0.5)  # it falls, and no prompt came round
    assert "flip rate rises" not in signals_of(once)
    assert alarms_of(once, alarming)["flip rate rises"] == ["0.03", "0 of 0", "1 of 1", "–"]
    assert alarms_of(once)["flip rate rises"] == ["0.03", "–", "–", "–"]


def test_what_is_kept_of_a_run_is_its_course_its_alarms_and_its_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    recorded(folder, [0.01] * 20 + [0.05] * 20, [1.0] * 30 + [0.8] * 10, 0.5)
    assert row_of(folder, 7, "chains") is None, "it did not end"
    with (folder / "run.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "end", "reason": "finished"}) + "\n")
    found = row_of(folder, 7, "chains")
    assert found is not None and found["seed"] == 7 and found["fall"] == pytest.approx(0.4)
    assert list(found["signals"]) == ["flip rate rises"] and (found["damage"], found["pass"]) == (33, None)
    (folder / "sampled.json").write_text(
        json.dumps({"1": {"pass": {"1": 0.5, "2": 0.6, "8": 0.7, "32": 0.9}}})
    )
    again = row_of(folder, 7, "chains")
    assert again is not None and again["pass"] == {"1": 0.5, "8": 0.7, "32": 0.9}


def test_rows_of_other_seeds_and_arms_stay_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    keep(file, "confirm", {"empo": [{"seed": 12, "end": 0.5}], "ttrl": [{"seed": 11, "end": 0.4}]})
    part = keep(file, "confirm", {"empo": [{"seed": 11, "end": 0.7}, {"seed": 12, "end": 0.6, "path": "x"}]})
    assert part["empo"] == [{"seed": 11, "end": 0.7}, {"seed": 12, "end": 0.6}]
    assert part["ttrl"] == [{"seed": 11, "end": 0.4}]
    assert json.loads(file.read_text()) == {"confirm": part}
    assert keep(file, "setting", {"empo": [[1, 2]]}) == {"empo": [[1, 2]]}
    with pytest.raises(ValueError, match="two rows of one seed"):
        keep(file, "confirm", {"empo": [{"seed": 1}, {"seed": 1}]})
    assert keep(file, "setting", {"empo": [[3]]}) == {"empo": [[3]]}, "rows without a seed are replaced"


def test_every_signal_is_a_metric_that_is_recorded() -> None:
    assert {metric for metric, _ in SIGNALS.values()} <= set(METRICS)


def test_the_first_wrong_value_says_which_operation_was_read() -> None:
    """6*8+0-2: 8, 8, 6. Written 8;6: at place 1 the next operation (8-2=6). Of 6 nothing, 8*... gives it there."""
    assert slip_of("6*8+0-2=?", "8;8;6;#6") is None and slip_of("6*8+0-2=?", "6*8=8;8+0=8;8-2=6;#6") is None
    assert slip_of("6*8+0-2=?", "8;6;4;#4") == Slip(1, (1,), last=False)
    assert slip_of("6*8+0-2=?", "6*8=8;8-2=6;#6") == Slip(1, (1,), last=False)
    assert slip_of("6*8+0-2=?", "8;8;4;#4") == Slip(2, (-2,), last=True)  # 8*8 = 64
    assert slip_of("6*8+0-2=?", "8;8;7;#7") == Slip(2, (), last=True)
    assert slip_of("6*8+0-2=?", "8;8;#8") is None, "a value is missing, and none is wrong"
    assert slip_of("6*8+0-2=?", "6*8=8;8+") is None, "cut off"
    assert [is_short(text) for text in ("8;8;6;#6", "6*8=8;#8", "#6")] == [True, False, False]
    problems = ["6*8+0-2=?"] * 4
    found = row_of_errors(
        problems, ["8;8;6;#6", "8;6;4;#4", "8;8;7;#7", "6-2=4;#4"], [True, False, False, False]
    )
    assert found == {
        **{"accuracy": 0.25, "short": 0.75, "wrong": 3, "slips": 3, "commonest place": 1, "next": 1},
        **{"had a next": 2, "last": 0, "had a last": 2, "direct": 0.0},
    }
    lines = errors_table({"empo": [found | {"wrong": 10}, found]})
    assert [line[0] for line in lines[1:]] == ["empo, wrong", "empo, right"] and lines[1][-2:] == [
        "1 of 2",
        "0 of 2",
    ]


def test_negative_advantages_are_cut_and_what_they_are() -> None:
    """The three advantages that the docstring names, from EMPO's rewards in a group of eight."""
    rewards = torch.tensor([[(8 - n) / 8] * (8 - n) + [n / 8] * n for n in (1, 2, 3)], dtype=torch.float64)
    centred = rewards - rewards.mean(1, keepdim=True)
    advantages = centred / rewards.std(1, keepdim=True)  # unbiased, as TRL's
    assert advantages[:, -1].tolist() == pytest.approx([-2.47, -1.62, -1.21], abs=0.005)
    nothing = torch.zeros(24, 1)
    batch = RewardBatch(rewards.flatten(), 8, advantages.flatten(), nothing, nothing.bool(), nothing)
    found = NegativeClip().estimate(batch).advantages.view(3, 8)
    assert (found[:, -1] == -1.2).all() and torch.equal(found[:, 0], advantages[:, 0])


def completion(
    text: str, answer: str, cluster: int, advantage: float, entropies: dict[int, float]
) -> dict[str, Any]:
    return {
        **{
            "prompt": "<|user|>2*3+4=?<|assistant|>",
            "completion": text,
            "tokens": list(text),
            "answer": answer,
        },
        **{"cluster": cluster, "advantage": [advantage] * len(text)},
        "entropy": [entropies.get(place, 0.0) for place in range(len(text))],
    }


def test_how_a_fall_begins_by_hand() -> None:
    """Two groups of three: one agrees on 2·3+4 = 0, in one the majority writes 9 at the second place."""
    assert (solved("2*3+4"), solved("3-5*2")) == ("0", "6")
    assert [value_token(list("6;0;#0"), place) for place in range(3)] == [0, 2, None]
    assert value_token(["6+4", "=0;", "#0"], 0) == 1 and value_token(list("2*3=6;6+4=0;#0"), 1) == 10
    right = [completion("6;0;#0", "0", 0, 0.0, {2: 0.1}) for _ in range(3)]
    wrong = [completion("6;9;#9", "9", 0, 0.5, {2: e}) for e in (0.4, 0.8)] + [
        completion("6;0;#0", "0", 1, -1.0, {})
    ]
    row = row_of_rollout(5, [right, wrong])
    assert (row["accuracy"], row["agree"], row["wrong"], row["weight"]) == (4 / 6, 1, 1, 1.0)
    assert (row["place"], row["at place"]) == (1, 1)
    assert (row["entropy"], row["entropy of others"]) == (pytest.approx(0.6), pytest.approx(0.1))
    none = row_of_rollout(1, [right])
    assert (none["weight"], none["place"], none["entropy"]) == (0.0, None, None)
