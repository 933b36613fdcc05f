"""The exploration study: every arm is a recipe that works, beside a control that differs in one thing only."""

from __future__ import annotations

import importlib
import json
import math
import threading
import time
from pathlib import Path

import pytest
import yaml
from study_helpers import written

from entropilot.analysis import seeds
from entropilot.errors import UserError
from entropilot.recipes.schema import Recipe, load_recipe
from entropilot.records import read_run
from entropilot.training.plan import check
from experiments import runs
from experiments.exploration import arms, report
from experiments.exploration import study as exploration
from experiments.exploration.arms import ARMS, recipe_of, with_controls
from experiments.exploration.study import measure, plateau, smoothed, study
from experiments.exploration.tables import tables

ROOT = Path(__file__).parents[2]


# --- arms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_a_recipe_that_the_check_accepts(arm: str) -> None:
    recipe = Recipe.model_validate(recipe_of(arm, 3))
    check(recipe, processes=1, elsewhere=True)
    assert (recipe.data.seed, recipe.seed) == (3, 3)  # the seed draws the pool, too


@pytest.mark.parametrize("arm", [name for name, arm in ARMS.items() if arm.control])
def test_an_arm_and_its_control_make_the_same_updates_with_the_same_clip(arm: str) -> None:
    control = ARMS[arm].control
    assert control is not None
    mine, theirs = recipe_of(arm, 1), recipe_of(control, 1)
    assert {
        k: v for k, v in mine.items() if k in ("model", "data", "reward", "validate", "probe", "seed")
    } == {k: v for k, v in theirs.items() if k in ("model", "data", "reward", "validate", "probe", "seed")}
    differing = {k for k in mine["grpo"] | theirs["grpo"] if mine["grpo"].get(k) != theirs["grpo"].get(k)}
    if "method" not in mine:
        assert differing and len(differing - {"max_steps", "epsilon_high"}) <= 2
        return
    # The clip of a covariance method is its own; the control's must let the same ratios through.
    assert differing <= {"epsilon", "epsilon_high"} and "method" not in theirs
    clip = {"clip_cov": 1.0, "kl_cov": 1e9}[mine["method"]]
    assert theirs["grpo"]["epsilon"] == clip


def test_controls_come_before_the_arms_that_need_them() -> None:
    assert with_controls(["clip_cov_restrain_1_twice", "kl_cov_paper"]) == [
        "grpo",
        "wide_clip",
        "wide_clip_twice",
        "clip_cov_restrain_1_twice",
        "no_clip",
        "kl_cov_paper",
    ]
    with pytest.raises(UserError, match=r"no arm 'x'; it has: grpo, no_clip, "):
        with_controls(["x"])
    with pytest.raises(UserError, match="no arm 'x'"):
        recipe_of("x", 1)


def test_development_and_report_share_no_seed() -> None:
    assert not set(arms.DEVELOPMENT) & set(arms.REPORT)
    assert set(arms.REPORTED) <= set(ARMS)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("exploration_*.yaml")), ids=lambda p: p.stem)
def test_the_recipes_are_arms_of_the_study(path: Path) -> None:
    recipe = load_recipe(path)
    matching = []
    for arm in ARMS:
        wanted = Recipe.model_validate(recipe_of(arm, recipe.seed))
        if recipe.resolved() | {"name": ""} == wanted.resolved() | {"name": ""}:
            matching.append(arm)
    assert len(matching) == 1, path.name


# --- measures ---------------------------------------------------------------------------------------------------


def test_a_running_mean_and_the_plateau_by_hand() -> None:
    assert smoothed([1.0, 2.0, 6.0, 4.0], 2).tolist() == [1.0, 1.5, 4.0, 5.0]
    # One rollout at 0, then 29 at 1: the mean over ten is 0.9 from the tenth rollout on, and 1 from the eleventh.
    assert plateau([0.0] + [1.0] * 29) == 10
    assert plateau([0.5] * 20) == 0


def rollout(index: int) -> dict[str, float]:
    """Accuracy 0.9 − 0.5·exp(H), entropy falling from 0.5; two of four quadrants hold the covariance."""
    h = 0.5 - 0.02 * index
    return {
        "entropy/policy_T1": h,
        "reward/mean": 0.9 - 0.5 * math.exp(h),
        "completion/length": 3.0,
        "covariance/mean": 0.2 if index % 2 else -0.1,
        "covariance/top_0.02": 1.0,
        "covariance/quadrant_likely_good": 0.3,
        "covariance/quadrant_likely_bad": -0.1,
        "covariance/quadrant_rare_good": -0.2,
        "covariance/quadrant_rare_bad": 0.05,
        "chosen/tokens": 40.0,
        "chosen/eligible": 400.0,
        "chosen/net_share": 0.5 if index % 2 else -3.0,
        "log_ratio/median": 0.0,
        "log_ratio/p99": 0.0,
    }


def test_what_is_measured_of_a_run_by_hand(tmp_path: Path) -> None:
    rows = []
    for index in range(20):
        rows.append(rollout(index))
        rows.append({"log_ratio/median": 0.01, "log_ratio/p99": 0.3})  # the rollout's second update
    row = measure(read_run(written(tmp_path / "r", rows)), at=11)
    entropies = [0.5 - 0.02 * i for i in range(20)]
    assert row["entropy"] == pytest.approx(sum(entropies[10:]) / 10, rel=1e-9)
    assert row["entropy at plateau"] == pytest.approx(sum(entropies[2:12]) / 10, rel=1e-9)
    assert (row["a"], row["ceiling"], row["r2"]) == pytest.approx((0.5, 0.4, 1.0), rel=1e-9)
    assert row["covariance positive"] == 0.5
    # ten rollouts at 0.2 and ten at -0.1: net 1.0; the top 2 % hold 20·0.02·1 of it
    assert row["top 2 %"] == pytest.approx(0.4, rel=1e-9)
    assert row["quadrant likely_good"] == pytest.approx(20 * 0.3 / 1.0, rel=1e-9)
    # chosen: ten times half of 0.2, ten times −3 of −0.1, of a net 1.0; the mean of the shares would be −1.25
    assert row["restrained"] == pytest.approx(10 * 0.1 + 10 * 0.3, rel=1e-9)
    assert row["chosen"] == 40
    assert (row["log ratio median"], row["log ratio p99"]) == pytest.approx((0.01, 0.3), rel=1e-9)


def test_a_run_without_rollouts_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no rollout"):
        measure(read_run(written(tmp_path / "r", [{"loss": 1.0}])))


def test_intervals_by_hand() -> None:
    # t(0.975, 2) = 4.3026527; sd of 1, 2, 3 is 1
    assert seeds.interval([1.0, 2.0, None, 3.0]) == pytest.approx(
        (2.0, 4.302652729749464 / math.sqrt(3)), rel=1e-9
    )
    assert seeds.cell([1.0, 2.0, 3.0], ".2f", sign=True) == "+2.00 ± 2.48"
    assert seeds.cell([None]) == "–" and seeds.cell([0.5]) == "0.500"
    assert seeds.differences([1.0, None], [0.25, 1.0]) == [0.75, None]
    assert seeds.ratio_cell([2.0, 8.0], [1.0, 2.0]).startswith("2.8 (")  # the geometric mean of 2 and 4


# --- runs -------------------------------------------------------------------------------------------------------


def test_a_run_of_another_recipe_is_not_taken_for_this_one(tmp_path: Path) -> None:
    folder = written(tmp_path / "grpo-1", [rollout(0)])
    (tmp_path / "grpo-1.yaml").write_text(yaml.safe_dump({"name": "other"}))
    with pytest.raises(UserError, match="holds a run of another recipe; choose another --out"):
        runs.make(folder, {"name": "grpo"})
    assert runs.make(folder, {"name": "other"}) == folder / "model"


def test_a_run_that_was_cut_off_is_kept_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "grpo-1"
    folder.mkdir()
    (folder / "run.jsonl").write_text('{"kind": "header", "schema": 1, "metrics": {}}\n')
    called = []
    monkeypatch.setattr(runs, "python", lambda *arguments, what, threads: called.append(arguments))
    runs.make(folder, {"name": "grpo"})
    assert len(called) == 1 and (tmp_path / "grpo-1.cut1" / "run.jsonl").exists()


def test_what_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Training bad failed \(code 2\): error: .*no sandbox tier 'none'"):
        runs.make(tmp_path / "bad", {"name": "bad", "data": "sandbox:none"})


def test_a_measurement_of_other_settings_is_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    assert runs.once(file, lambda: {"a": 1}, {"seed": 1}) == {"a": 1}
    assert runs.once(file, lambda: pytest.fail("made again"), {"seed": 1}) == {"a": 1}
    with pytest.raises(UserError, match="x.json was made with seed 1, not 2; choose another --out"):
        runs.once(file, dict, {"seed": 2})
    assert runs.once(tmp_path / "y.json", lambda: [3]) == [3] and runs.once(tmp_path / "y.json", list) == [3]


def test_a_recipe_of_the_repository_is_changed_before_it_is_kept() -> None:
    values = runs.recipe("grpo", "seed=7", "grpo.max_steps=3")
    assert (values["seed"], values["grpo"]["max_steps"], values["name"]) == (7, 3, "grpo")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("experiments.exploration.report", ["--small"]),
        ("experiments.exploration.what_decides", []),
        ("experiments.easy_tier", []),
        ("experiments.estimators", []),
        ("experiments.dynamics", []),
        ("experiments.label_free.rewards", []),
        ("experiments.label_free.setting", []),
        ("experiments.label_free.compare", ["screen", "--limit", "256"]),
        ("experiments.one_shot", []),
        ("experiments.preference", []),
        ("experiments.finite_worlds.tables", ["study"]),
        ("experiments.drawer", []),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_sentence(
    module: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = importlib.import_module(module)
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    if module in ("experiments.finite_worlds.tables", "experiments.drawer"):  # these write rows into a file
        out /= "rows.jsonl"
    monkeypatch.setattr("sys.argv", ["study", *arguments, "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        runs.command(study.main)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    assert "file/out can't be written" in said


def test_after_a_failure_nothing_more_is_begun() -> None:
    begun: list[int] = []

    def work(job: int) -> int:
        begun.append(job)
        time.sleep(0.01)
        if job == 3:
            raise UserError("the third")
        return job

    assert runs.side_by_side(work, [0, 1, 2], 2) == [0, 1, 2]
    with pytest.raises(UserError, match="the third"):
        runs.side_by_side(work, range(3, 200), 1)
    assert len(begun) < 50


@pytest.mark.slow(seconds=45)
def test_a_small_study_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    measured = exploration.probabilities

    def alone(*arguments: object) -> dict:
        # Two models that are loaded at once in one process do not get their weights.
        assert threading.current_thread() is threading.main_thread()
        return measured(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(exploration, "probabilities", alone)
    found = study(tmp_path, ["wide_clip"], [1], rollouts=4, jobs=2, report=heard.append)
    assert list(found) == ["grpo", "wide_clip"] and len(heard) == 2
    text = tables(found)
    assert "wide_clip" in text and "base ahead from k" in text
    assert found["grpo"][0]["pool pass"]["256"] > 0.4 and found["grpo"][0]["pool pass@1"] > 0.02
    monkeypatch.setattr(runs, "python", lambda *_, **__: pytest.fail("a finished run was made again"))
    again = study(tmp_path, ["wide_clip"], [1], rollouts=4, jobs=1)
    assert json.dumps(again) == json.dumps(found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arms", "x"], "error: The study has no arm 'x'; it has: grpo, "),
        (["--seeds", "1,a"], "error: --seeds 1,a is no list of numbers"),
    ],
)
def test_a_wrong_arm_or_seed_is_one_sentence(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["report", *arguments])
    with pytest.raises(SystemExit) as stopped:
        runs.command(report.main)
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.out == ""
    assert captured.err.startswith(words) and captured.err.count("\n") == 1
