"""The study of the cures: every run is a recipe that works, under equal conditions; tracking by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from entropilot.recipes.schema import Recipe
from entropilot.records import RunWriter, read_run
from entropilot.training.plan import check
from experiments import cures
from experiments.cures import (
    ARMS,
    DRIVERS,
    RATES,
    STEP,
    TARGETS,
    best_of,
    earlier,
    followed,
    recipe_of,
    second,
    table,
    track,
    tracking,
    tracking_table,
)
from experiments.runs import keep

RUNS = [(f"{arm} {i}", changes) for arm, settings in ARMS.items() for i, changes in enumerate(settings)]
RUNS += [(f"{name} {goal}", make(TARGETS[goal])) for name, make in DRIVERS.items() for goal in followed(name)]


def test_every_arm_has_three_settings_and_each_differs() -> None:
    for arm, settings in ARMS.items():
        assert len(settings) == 3, arm
        assert settings[0] != settings[1] != settings[2] != settings[0], arm
    assert len(RATES) == 2


@pytest.mark.parametrize(("name", "changes"), RUNS, ids=[name for name, _ in RUNS])
def test_every_run_is_a_recipe_of_equal_completions_and_equal_updates(name: str, changes: dict) -> None:
    recipe = Recipe.model_validate(recipe_of(name, changes, 3))
    plan = check(recipe, processes=1, elsewhere=True)
    config = plan.config
    assert (recipe.data.seed, recipe.seed) == (3, 3)
    assert config.max_steps == 512 and config.gradient_accumulation_steps == 1
    assert config.per_device_train_batch_size == 64, "each update is over 64 completions: 32,768 in all"
    assert config.num_iterations == 1


def run_of(folder: Path, entropies: list[float]):
    writer = RunWriter(folder, {"name": "run"})
    for step, entropy in enumerate(entropies, 1):
        writer.row(step, {"entropy/policy_T1": entropy})
    writer.close()
    return read_run(folder)


def test_tracking_by_hand(tmp_path: Path) -> None:
    """From above: arrives in the third rollout (5 % off), undershoots by ln 2, comes back."""
    found = tracking(run_of(tmp_path / "a", [4.0, 2.0, 1.05, 0.5, 1.0]), lambda step: 1.0)
    assert found["steps"] == 3.0
    assert found["overshoot"] == pytest.approx(math.log(2))
    assert found["error"] == pytest.approx((math.log(1.05) + math.log(2)) / 3)


def test_a_run_that_crosses_has_arrived_and_one_that_never_comes_near_has_not(tmp_path: Path) -> None:
    crossed = tracking(run_of(tmp_path / "a", [0.5, 2.0, 1.0]), lambda step: 1.0)
    assert crossed["steps"] == 2.0 and crossed["overshoot"] == pytest.approx(math.log(2))
    never = tracking(run_of(tmp_path / "b", [0.5, 0.25]), lambda step: 1.0)
    assert never["steps"] is None and never["overshoot"] is None
    assert never["error"] == pytest.approx(1.5 * math.log(2))


def test_of_a_step_only_what_follows_it_is_measured(tmp_path: Path) -> None:
    """The target falls from 4 to 1 behind step 2; entropy is there two steps later, and goes 10 % too far."""
    entropies, target = [9.0, 4.0, 2.0, 1.0, 0.9], {True: 4.0, False: 1.0}
    found = tracking(run_of(tmp_path / "a", entropies), lambda step: target[step <= 2], since=2)
    assert found["steps"] == 2.0 and found["overshoot"] == pytest.approx(-math.log(0.9))
    assert found["error"] == pytest.approx(-math.log(0.9) / 2)
    assert found["entropy"] == pytest.approx(0.9)


def test_every_driver_is_measured_on_its_targets_against_one_free_run(tmp_path: Path, monkeypatch) -> None:
    """A run at exactly 0.4 nats: on the target above, ln(0.4/0.03) off the one below, ln 2 off behind the step."""
    made: list[str] = []
    steps = list(range(1, 2 * STEP, 4))

    def make(folder: Path, recipe: dict) -> None:
        made.append(folder.name)
        writer = RunWriter(folder, {"name": folder.name})
        for step in steps:
            writer.row(step, {"entropy/policy_T1": 0.4})
        writer.close()

    monkeypatch.setattr(cures, "make", make)
    rows = track(tmp_path, [1, 2], 8, 1)
    assert len(made) == len(set(made)) == 2 * 2 * (3 * 3 + 2 + 1)
    assert "adaptive_bonus step 0.0001" not in rows and "none step 0.0001" in rows
    for name, found in rows.items():
        wrong = {"above": 0.0, "below": math.log(0.4 / 0.03), "step": math.log(2)}[name.split()[1]]
        assert [row["error"] for row in found] == pytest.approx([wrong] * 2), name
        assert {row["steps"] for row in found} == {1.0 if wrong == 0 else None}, name
    lines = tracking_table(rows).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 2 + len(rows)
    assert (
        lines[2]
        == "| stare | above | 0.0001 | 0.000 ± 0.000 | 0.000 ± 0.000 | 1 ± 0 | 0.400 ± 0.000 | 2 of 2 |"
    )
    assert lines[4].endswith("| – | – | 0.400 ± 0.000 | 0 of 2 |")


def test_an_earlier_part_is_taken_from_the_folder_and_what_it_lacks_from_the_stored_rows(
    tmp_path: Path,
) -> None:
    files = [tmp_path / "stored.json", tmp_path / "rows.json"]
    assert earlier([None, *files], "report") == {}
    keep(files[0], "report", {"grpo": [{"pass@1": 0.5}], "qae": [{"pass@1": 0.25}]})
    keep(files[1], "report", {"grpo": [{"pass@1": 0.75}]})
    assert earlier([None, *files], "report") == {"grpo": [{"pass@1": 0.75}], "qae": [{"pass@1": 0.25}]}
    assert earlier(files, "settings") == {}


def test_the_table_pairs_with_grpo_seed_by_seed() -> None:
    def row(value: float) -> dict[str, float]:
        rest = {"lost": 0.1, "entropy": 0.2, "seconds": 60.0}
        return {"pass@1": value, "pass@16": 0.9, "pass@256": 1.0} | rest

    text = table({"grpo": [row(0.5), row(0.7)], "stare": [row(0.6), row(0.8)]})
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert "+0.100 ± 0.000" in text.splitlines()[-1]


def test_the_picture_orders_arms_by_what_they_gained(tmp_path: Path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    rows = {
        arm: [{"pass@1": base + gain, "entropy": 0.1} for base in (0.5, 0.7)]
        for arm, gain in {"grpo": 0.0, "stare": 0.3, "qae": -0.1, "repo": 0.1}.items()
    }
    with plt.rc_context({"svg.fonttype": "none"}):
        cures.draw(rows, tmp_path / "cures.svg")
    drawn = (tmp_path / "cures.svg").read_text()
    places = [drawn.index(f">{arm}<") for arm in ("qae", "grpo", "repo", "stare")]
    assert places == sorted(places)


def test_the_second_tier_takes_the_best_with_their_settings(tmp_path: Path, monkeypatch) -> None:
    rows = {
        arm: [{"pass@1": value}]
        for arm, value in {"qae": 0.4, "grpo": 0.9, "stare": 0.6, "repo": 0.5}.items()
    }
    assert best_of(rows, 2) == ["grpo", "stare", "repo"]
    made: dict[str, Recipe] = {}
    monkeypatch.setattr(
        cures, "make", lambda out, recipe: made.update({out.name: Recipe.model_validate(recipe)})
    )
    monkeypatch.setattr(cures, "generalised", lambda out, name: {"pass@1": made[name].seed})
    found = second(tmp_path, {"grpo": 2, "clip_cov": 0}, [1, 2], 1)
    assert found == {arm: [{"pass@1": 1}, {"pass@1": 2}] for arm in ("grpo", "clip_cov")}
    for name, recipe in made.items():
        assert (recipe.model, recipe.data.source, recipe.data.limit) == (
            "sandbox:long",
            "sandbox:long",
            4096,
        ), name
        assert (recipe.grpo["max_steps"], recipe.grpo["max_completion_length"]) == (240, 60)
    assert made["second-grpo-1"].grpo["learning_rate"] == 4e-4
    assert (
        made["second-clip_cov-2"].method_args == {"restrain": 0.5}
        and made["second-clip_cov-2"].data.seed == 2
    )
