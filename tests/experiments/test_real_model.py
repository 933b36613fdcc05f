"""The experiments on SmolLM2: their task, their recipes and their bookkeeping; no model is loaded."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from entropilot.errors import UserError  # noqa: E402
from entropilot.recipes.schema import Recipe, load_recipe  # noqa: E402
from entropilot.records import ACCURACY, ENTROPY, REWARD, RunWriter  # noqa: E402
from entropilot.training.plan import check  # noqa: E402
from experiments.real_model import base, demo, em, rl, tables, task  # noqa: E402
from experiments.real_model.clock import Clock  # noqa: E402

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "smollm2").glob("*.yaml"))


def test_the_files_hold_every_sum_once_and_the_right_answers() -> None:
    rows = {split: task.read(split) for split in task.SIZES}
    assert rows == task.problems()  # what `data` would write now
    prompts = [row["prompt"] for split in rows.values() for row in split]
    assert len(prompts) == 28 * 28 - 1 == len(set(prompts)) and "5 + 8 =" not in prompts
    for row in (row for split in rows.values() for row in split):
        first, plus, second, equals = row["prompt"].split(" ")
        assert (plus, equals) == ("+", "=") and 2 <= int(first) <= 29 and 2 <= int(second) <= 29
        assert int(row["answer"]) == int(first) + int(second)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_are_accepted_and_send_the_same_text(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(path, ["model=sandbox:chains"])  # the model is in no environment of the fast suite
    plan = check(recipe)
    held_out = recipe.validation.data  # type: ignore[union-attr]
    for data, split in ((plan.data, "train"), (held_out, "validation")):
        assert (data.prefix, data.template, data.stop_strings) == (task.EXAMPLE, "none", ["\n"])
        assert (ROOT / data.source).resolve() == task.file_of(split).resolve()
    assert plan.config.max_completion_length == task.MAX_TOKENS == 8
    assert plan.held_out is not None and plan.held_out.reward == "exact"
    assert f"entropilot train smollm2/{path.stem}" in path.read_text()


@pytest.mark.parametrize("arm", [*rl.ARMS, *rl.LABEL_FREE])
def test_every_arm_draws_as_much_and_updates_as_often(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = check(Recipe.model_validate(rl.recipe_of(arm, 2) | {"model": "sandbox:chains"}))
    config = plan.config
    assert config.per_device_train_batch_size * config.max_steps == rl.ROLLOUTS * 128
    assert config.max_steps == 160 and config.gradient_accumulation_steps == 1
    assert config.learning_rate == 1e-5 and plan.seed == plan.data.seed == 2
    assert config.generation_batch_size == (32 if arm == "on_policy" else 128)
    # Validations come after the same numbers of completions in all arms.
    assert config.generation_batch_size * plan.held_out.settings.every == 8 * 128  # type: ignore[union-attr]


def test_the_prompt_of_largest_variance_and_a_random_one(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{task.EXAMPLE}{i} + 2 =", "answer": str(i + 2), "selection": {"rank": i + 1}}
        for i in range(32)
    ]
    (tmp_path / "ranked32.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = json.loads(base.prompt_file(tmp_path, "none", "variance", 1).read_text())
    assert chosen == {"prompt": "0 + 2 =", "answer": "2"}
    drawn = [json.loads(base.prompt_file(tmp_path, "none", "random", seed).read_text()) for seed in (1, 2, 3)]
    assert len({row["prompt"] for row in drawn}) == 3 and chosen not in drawn
    values = em.recipe_of(tmp_path / "prompt-variance.jsonl", 1.0, 3, 20)
    plan = check(Recipe.model_validate(values | {"model": "sandbox:chains"}))
    assert plan.config.max_steps == 20 and plan.config.temperature == 1.0 and plan.config.seed == 3
    assert plan.data.prefix == task.EXAMPLE and plan.config.save_only_model
    # The recipe keeps no checkpoints; the study measures those after 5, 10 and 20 updates.
    assert plan.config.save_strategy == "steps" and plan.config.save_steps == 5


def test_tables_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, accuracy in ((1, 0.25), (2, 0.75)):
        row = {"greedy": accuracy, "avg@16": accuracy, "pass@16": 1.0, "entropy": 0.5, "tokens": 4.0}
        (tmp_path / f"grpo-{seed}.json").write_text(json.dumps(row))
        (tmp_path / f"clip_cov-{seed}.json").write_text(json.dumps(row | {"greedy": accuracy + 0.125}))
    tables.show(tmp_path, [1, 2, 3])
    shown = capsys.readouterr().out.splitlines()
    grpo = next(line for line in shown if line.startswith("grpo"))
    # Two values 0.25 and 0.75: sd 0.3536, standard error 0.25, t at 1 degree of freedom 12.706: half 3.177.
    assert grpo.split()[1:5] == ["2", "0.500", "±", "3.177"]
    assert next(line for line in shown if line.startswith("clip_cov − grpo")).split()[4:7] == [
        "0.125",
        "±",
        "0.000",
    ]


def test_texts_before_and_after_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, greedy in (("before", " 12"), ("after", " 13")):
        lines = [{"kind": "header"}]
        for index, answer in ((1, "9"), (0, "13")):
            lines.append(
                {"index": index, "temperature": 1.0, "answer": answer, "texts": [" 1\n", f" {answer}\n"]}
            )
            lines.append({"index": index, "temperature": 0.0, "answer": answer, "texts": [greedy + "\n"]})
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / name / "result.json").write_text("{}")  # it is there: nothing is sampled
    before, after = (demo.written("none", tmp_path / name) for name in ("before", "after"))
    assert before[0] == {"answer": "13", "greedy": "12", "sampled": ["1", "13"]}
    demo.show(before, after)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[-2] == ["13", "12", "13", "1", "|", "13", "1", "|", "13"] and shown[-1][0] == "9"


def test_no_run_begins_after_the_time_has_come() -> None:
    now = datetime.now()
    before, after = (now - timedelta(minutes=1)), (now + timedelta(minutes=1))
    assert not Clock().over()
    if before.date() == after.date():  # else it is midnight
        assert Clock(f"{before:%H:%M}").over() and not Clock(f"{after:%H:%M}").over()
    with pytest.raises(UserError, match="--until is '8am'; give a time of the day, such as 08:00"):
        Clock("8am")


def test_what_a_record_says_of_a_run_of_study_2(tmp_path: Path) -> None:
    """Entropy falls by a tenth of the covariance in every update; the reward follows the law with a = 0.2, b = 0.9."""
    writer = RunWriter(tmp_path / "run", {"name": "x"})
    entropy = 1.0
    for step in range(1, 41):
        covariance = 0.2 + 0.1 * (step % 3)
        row = {
            ENTROPY: entropy,
            REWARD: 0.9 - 0.2 * float(np.exp(entropy)),
            "dynamics/entropy_before": entropy,
        }
        entropy -= 0.1 * covariance
        row |= {"dynamics/entropy_after": entropy, "dynamics/covariance_pg": covariance}
        row |= {"dynamics/covariance_npg": covariance} | ({ACCURACY: step / 40} if step % 8 == 0 else {})
        writer.row(step, row)
    writer.close()
    found = rl.course_of(tmp_path / "run")
    assert found["law"]["a"] == pytest.approx(0.2) and found["law"]["r2"] == pytest.approx(1.0)
    assert found["law"]["ceiling"] == pytest.approx(0.7) and found["law"]["n"] == 40
    assert (found["accuracy"]["start"], found["accuracy"]["end"]) == (0.2, 1.0)
    assert found["entropy"]["start"] == pytest.approx(0.938)  # 1, .97, .93, .91, .88
    assert found["dynamics npg"]["detrended"] == pytest.approx(1.0) and found["dynamics pg"]["updates"] == 40
    # The reward rises from 0.36 at 1 nat to 0.68 at −0.17; the forecast from the first 30 % is "no change".
    assert found["forecast"]["value"] < 0.6 < found["forecast"]["measured"] < 0.75
    outside = found | {
        "forecast": {"inside": False},
        "law": found["law"] | {"trusted": False, "ceiling": 9.0},
    }
    heads, line = tables.of_runs(
        {"grpo": [{"seed": 1, "run": found}, {"seed": 2, "run": outside}], "empo": [{"seed": 1}]}
    )
    told = dict(zip(heads, line, strict=True))
    assert told["trusted"] == "1 of 2" and told["ceiling"] == "0.700", (
        "one that is not trusted does not count"
    )
    assert (
        told["ends inside"] == f"{int(found['forecast']['inside'])} of 2" and told["updates compared"] == "40"
    )


def test_what_a_record_does_not_hold_is_left_out(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {"name": "x"})
    for step in (1, 2):
        writer.row(step, {ENTROPY: 0.5, REWARD: 0.5, ACCURACY: 0.5})
    writer.close()
    found = rl.course_of(tmp_path / "run")
    assert not {"law", "dynamics npg", "dynamics pg"} & set(found) and found["reward"]["end"] == 0.5
    assert tables.of_runs({"grpo": [{"seed": 1, "run": found}]})[1][4:] == [
        "–",
        "–",
        "0 of 0",
        "1 of 1",
        "",
        "–",
        "–",
    ]
