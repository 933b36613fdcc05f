"""Several trainings in a row: each begins where the last one ended, and what is wrong is said before the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_helpers import recipe, same_weights

from entropilot.errors import UserError
from entropilot.recipes.schema import Recipe, load_recipe
from entropilot.records import read_run
from entropilot.training.stages import finished, plan_stages, train

MINIMISE = {
    "method": "entropy_min",
    "method_args": {"max_new_tokens": 20, "samples": 16},
    "data": {"limit": 1},
    "grpo": {
        "num_generations": 16,
        "gradient_accumulation_steps": 1,
        "steps_per_generation": 1,
        "max_steps": 2,
        "temperature": 0.5,
        "learning_rate": 1e-4,
    },
}
LEARN = {"grpo": {"max_steps": 2}}


def staged(stages: list[str], **fields: Any) -> Recipe:
    return recipe(stages=stages, stage={"em": MINIMISE, "rl": LEARN}, **fields)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    out = tmp_path_factory.mktemp("stages")
    chain = staged(["em", "rl"])
    model = train(chain, out)
    assert model == out / "2-rl" / "model"
    return chain, out


def test_a_stage_begins_with_the_model_of_the_last(both, tmp_path) -> None:
    chain, out = both
    first, second = read_run(out / "1-em"), read_run(out / "2-rl")
    assert second.header["recipe"]["model"] == str(out / "1-em" / "model")
    assert (first.header["recipe"]["method"], second.header["recipe"]["method"]) == ("entropy_min", "none")
    assert first.header["entropy_min"]["updates_are"].startswith("optimizer updates")
    assert [row["entropy_min/tokens"] > 0 for row in first.rows if row["step"] <= 2] == [True, True]
    assert all("entropy_min/loss" not in row for row in second.rows)
    # By hand: the second stage's recipe on the first one's model.
    alone = chain.expanded()[1][1].model_copy(update={"model": str(out / "1-em" / "model")})
    train(alone, tmp_path / "alone")
    assert same_weights(tmp_path / "alone" / "model", out / "2-rl" / "model")


def test_resuming_keeps_what_is_finished(both) -> None:
    chain, out = both
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert finished(out / "1-em") and finished(out / "2-rl")
    assert train(chain, out, resume=True) == out / "2-rl" / "model"
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="already holds a run"):
        train(chain, out)


def test_resuming_goes_on_with_the_stage_that_was_not_begun(tmp_path, both) -> None:
    chain, out = both
    first = chain.expanded()[0][1]
    train(first, tmp_path / "1-em")
    train(chain, tmp_path, resume=True)
    assert same_weights(tmp_path / "2-rl" / "model", out / "2-rl" / "model")


def test_sections_are_merged_and_the_order_is_the_recipe_s() -> None:
    chain = staged(["rl", "em"], method="kl_cov", method_args={"coef": 2.0}, seed=9)
    (one, rl), (two, em) = chain.expanded()
    assert (one, two) == ("rl", "em")
    assert (rl.method, rl.method_args, rl.seed) == ("kl_cov", {"coef": 2.0}, 9)
    assert (em.method, em.method_args, em.seed) == ("entropy_min", MINIMISE["method_args"], 9)
    assert rl.grpo["max_steps"] == 2 and rl.grpo["learning_rate"] == 2e-4 and em.data.limit == 1
    assert rl.name == "small rl" and [str(plan.out) for plan in plan_stages(chain, Path("o"))] == [
        "o/1-rl",
        "o/2-em",
    ]
    assert [(plan.stage, plan.out) for plan in plan_stages(recipe(), Path("o"))] == [(None, Path("o"))]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stages": ["rl", "em2"]}, "stages: 'em2' is not described; the section stage describes: rl"),
        ({"stages": ["rl"], "stage": {"rl": {"model": "x"}}}, "stage.rl.model has no place in a stage"),
        ({"stages": ["rl"], "stage": {"rl": {"grpoo": 1}}}, "The stage rl: the key 'grpoo' does not exist"),
        ({"stages": ["rl"], "stage": {"rl": {"seed": "x"}}}, "The stage rl: seed = 'x' does not fit"),
    ],
)
def test_what_is_wrong_with_a_stage_is_said_on_loading(tmp_path, fields, said) -> None:
    path = tmp_path / "chain.yaml"
    path.write_text(json.dumps({"stage": {"rl": {}}} | fields))  # JSON is YAML
    with pytest.raises(UserError, match=said):
        load_recipe(path)


def test_a_later_stage_that_cannot_work_stops_the_first(tmp_path) -> None:
    chain = recipe(stages=["rl", "bad"], stage={"rl": LEARN, "bad": {"grpo": {"max_steps": 0}}})
    with pytest.raises(UserError, match=r"Stage bad: grpo.max_steps = 0 trains nothing"):
        train(chain, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"reward": "none"}, "only method: entropy_min needs no reward"),
        ({"method": "entropy_min"}, "Entropy minimisation at T = 0.5 would sample at temperature = 1"),
        ({"method": "entropy_min", "method_args": {"samples": 0}}, "samples = 0 can't be spread"),
        ({"method": "entropy_min", "method_args": {"sample": 8}}, "method_args.sample does not exist"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, fields, said) -> None:
    grpo = {"temperature": 1.0} if fields.get("method") and "method_args" not in fields else {}
    with pytest.raises(UserError, match=said):
        train(recipe(grpo=grpo, **fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_entropy_needs_prompts_alone(tmp_path) -> None:
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "1+2-3=?"}\n')
    small = {**MINIMISE["grpo"], "max_steps": 1}
    alone = {"data": {"source": str(data)}, "reward": "none", "validate": None}
    fields = {k: v for k, v in MINIMISE.items() if k != "grpo"} | alone
    train(recipe(grpo=small, **fields), tmp_path / "out")
    row = read_run(tmp_path / "out").rows[0]
    assert row["entropy_min/loss"] > 0 and "reward/mean" not in row


# --- what a review found ----------------------------------------------------------------------------------


def test_a_finished_stage_of_another_recipe_is_refused(both) -> None:
    chain, out = both
    with pytest.raises(UserError, match=r"made with another recipe \(seed was 3, is now 77\)"):
        train(chain.model_copy(update={"seed": 77}), out, resume=True)


@pytest.mark.slow
def test_a_stage_that_was_interrupted_before_its_first_checkpoint_begins_anew(tmp_path, both) -> None:
    chain, out = both
    train(chain.expanded()[0][1], tmp_path / "1-em")
    model = str((tmp_path / "1-em" / "model").resolve())
    second = chain.expanded()[1][1].model_copy(update={"model": model})

    def interrupt(step: int, row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(second, tmp_path / "2-rl", on_row=interrupt)
    assert (tmp_path / "2-rl" / "run.jsonl").exists()
    train(chain, tmp_path, resume=True)
    assert same_weights(tmp_path / "2-rl" / "model", out / "2-rl" / "model")
    assert (tmp_path / "2-rl" / "run.jsonl.interrupted").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"lora": {"r": 2}}, "would train adapters on the adapters that em leaves"),
        (
            {"stage": {"em": MINIMISE, "rl": {"data": "missing.jsonl", "validate": None, "reward": "exact"}}},
            "missing.jsonl",
        ),
    ],
)
def test_what_a_later_stage_needs_is_looked_for_first(tmp_path, monkeypatch, fields, said) -> None:
    monkeypatch.chdir(tmp_path)
    chain = recipe(**({"stages": ["em", "rl"], "stage": {"em": MINIMISE, "rl": LEARN}} | fields))
    with pytest.raises(UserError, match=said):
        train(chain, tmp_path / "out")
    assert not (tmp_path / "out" / "1-em" / "model").exists()


def test_a_left_over_stage_is_noticed_first(tmp_path, both) -> None:
    chain, out = both
    (tmp_path / "2-rl").mkdir()
    (tmp_path / "2-rl" / "run.jsonl").write_text("x")
    with pytest.raises(UserError, match="2-rl already holds a run"):
        train(chain, tmp_path)
    assert not (tmp_path / "1-em").exists()


def test_a_finished_run_is_not_trained_again(both) -> None:
    chain, out = both
    alone = chain.expanded()[0][1]
    with pytest.raises(UserError, match="done all its 2 steps|is finished, and its model is saved"):
        train(alone, out / "1-em", resume=True)


def test_one_setting_has_one_value(tmp_path) -> None:
    fields = MINIMISE | {"method_args": {"updates": 3, "samples": 16}}
    with pytest.raises(
        UserError, match=r"method_args.updates = 3 and grpo.max_steps = 2 are the same setting"
    ):
        train(recipe(MINIMISE["grpo"], **{k: v for k, v in fields.items() if k != "grpo"}), tmp_path / "out")


def test_the_header_says_what_was_trained(both) -> None:
    _, out = both
    said = read_run(out / "1-em").header["entropy_min"]
    assert (said["learning_rate"], said["updates"], said["max_new_tokens"]) == (1e-4, 2, 20)


@pytest.mark.parametrize("name", ["empo", "random", "none", "entropilot.rewards.named.empo_math"])
def test_accuracy_needs_a_reward_that_sees_answers(tmp_path, name) -> None:
    with pytest.raises(UserError, match="validate.reward: .* compares with no answer"):
        train(recipe(validate={"problems": 8, "reward": name}), tmp_path / "out")


def test_a_ranking_is_limited_to_its_first_rows(tmp_path) -> None:
    from entropilot.inputs.problems import load_problems
    from entropilot.recipes.schema import Data

    rows = [{"prompt": f"{i}+1=?", "answer": "1", "selection": {"rank": i}} for i in range(50)]
    ranked, plain = tmp_path / "ranked.jsonl", tmp_path / "plain.jsonl"
    ranked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain.write_text("".join(json.dumps({"prompt": row["prompt"], "answer": "1"}) + "\n" for row in rows))

    def first(path: Path) -> list[str]:
        return [row["prompt"][-1]["content"] for row in load_problems(Data(source=str(path), limit=3))]

    assert first(ranked) == ["0+1=?", "1+1=?", "2+1=?"]
    assert first(plain) != first(ranked)
