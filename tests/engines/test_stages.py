"""Several trainings in a row: each begins where the last one ended, and what is wrong is said before the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_helpers import recipe, same_weights

from entropilot.engines.run import train
from entropilot.engines.stages import finished, folders, train_stages
from entropilot.errors import UserError
from entropilot.recipes import Recipe, load_recipe
from entropilot.records import read_run

MINIMISE = {
    "method": "entropy_min",
    "method_args": {"max_new_tokens": 40, "samples": 16, "updates": 2},
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
    model = train_stages(chain, out)
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
    assert train_stages(chain, out, resume=True) == out / "2-rl" / "model"
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="already holds a run"):
        train_stages(chain, out)


def test_resuming_goes_on_with_the_stage_that_was_not_begun(tmp_path, both) -> None:
    chain, out = both
    first = chain.expanded()[0][1]
    train(first, tmp_path / "1-em")
    train_stages(chain, tmp_path, resume=True)
    assert same_weights(tmp_path / "2-rl" / "model", out / "2-rl" / "model")


def test_sections_are_merged_and_the_order_is_the_recipe_s() -> None:
    chain = staged(["rl", "em"], method="kl_cov", method_args={"coef": 2.0}, seed=9)
    (one, rl), (two, em) = chain.expanded()
    assert (one, two) == ("rl", "em")
    assert (rl.method, rl.method_args, rl.seed) == ("kl_cov", {"coef": 2.0}, 9)
    assert (em.method, em.method_args, em.seed) == ("entropy_min", MINIMISE["method_args"], 9)
    assert rl.grpo["max_steps"] == 2 and rl.grpo["learning_rate"] == 2e-4 and em.data.limit == 1
    assert rl.name == "small rl" and [str(f) for _, f in folders(chain, Path("o"))] == ["o/1-rl", "o/2-em"]
    assert folders(recipe(), Path("o")) == [(recipe(), Path("o"))]


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
    with pytest.raises(UserError, match=r"grpo.max_steps = 0 trains nothing"):
        train_stages(chain, tmp_path / "out")
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
