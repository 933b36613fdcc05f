"""A plan is made once: what it settles, and that nothing but the header of a run reads the recipe after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import recipe, same_weights

from entropilot.methods import KLCov
from entropilot.recipes.schema import GRPO_KEYS
from entropilot.records import read_run
from entropilot.sandbox import weights_of
from entropilot.training import config
from entropilot.training.plan import check
from entropilot.training.run import run


class Sealed:
    """A recipe that gives only what the header asks for."""

    def __init__(self, recipe: Any) -> None:
        object.__setattr__(self, "_recipe", recipe)

    def __getattribute__(self, name: str) -> Any:
        if name not in ("name", "resolved"):
            raise AssertionError(f"the recipe was read after the plan: {name}")
        return getattr(object.__getattribute__(self, "_recipe"), name)


@pytest.mark.parametrize("method", ["none", "kl_cov", "entropy_min"])
def test_after_the_plan_only_the_header_reads_the_recipe(tmp_path: Path, method: str) -> None:
    fields: dict[str, Any] = {"method": method}
    if method == "entropy_min":
        own = {"samples": 16, "max_new_tokens": 20, "updates": 2}
        grpo = {"per_device_train_batch_size": 16, "steps_per_generation": 1}
        grpo |= {"num_generations": 16, "gradient_accumulation_steps": 1}
        small = recipe(method=method, method_args=own, data={"limit": 4}).model_copy(update={"grpo": grpo})
    else:
        small = recipe({"max_steps": 2}, **fields)
    plan = check(small, tmp_path / "sealed")
    run(replace(plan, recipe=Sealed(small)))  # type: ignore[arg-type]
    assert read_run(tmp_path / "sealed").header["recipe"]["method"] == method
    if method == "kl_cov":  # and the seal changes nothing
        run(check(small, tmp_path / "open"))
        assert same_weights(tmp_path / "sealed" / "model", tmp_path / "open" / "model")


def test_resuming_reads_what_the_header_says(tmp_path: Path) -> None:
    small = recipe({"max_steps": 2})
    run(check(small, tmp_path / "run"))
    longer = recipe({"max_steps": 4})
    run(replace(check(longer, tmp_path / "run"), recipe=Sealed(longer)), resume=True)  # type: ignore[arg-type]
    assert [row["step"] for row in read_run(tmp_path / "run").rows][-2:] == [4, 5]


def test_a_plan_settles_what_the_recipe_leaves_open(tmp_path: Path) -> None:
    plan = check(recipe(method="kl_cov", method_args={"coef": 2.0}), tmp_path / "run")
    assert plan.method == KLCov(coef=2.0) and plan.clip["source"] == "method"
    assert (plan.model, plan.tier, list(plan.rewards)) == ("sandbox", "chains", ["sandbox"])
    assert plan.held_out is not None and (plan.held_out.data.split, plan.held_out.data.limit) == (
        "validation",
        8,
    )
    assert plan.config.output_dir == str(tmp_path / "run" / "checkpoints")
    facts = dict(plan.facts)
    assert facts["steps"] == "4" and facts["result"].startswith(str(tmp_path / "run" / "model"))
    epochs = recipe({"max_steps": -1, "num_train_epochs": 2})
    assert dict(check(epochs).facts)["steps"].startswith("2 epochs; the number of steps is known once")
    assert dict(check(epochs).facts)["result"].startswith("runs/small/model")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("has_it", [True, False])
def test_bf16_null_is_taken_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, has_it: bool) -> None:
    """`grpo.bf16` left out is float32 on a CPU whatever it has; null asks the CPU; false stays false."""
    monkeypatch.setattr(config, "cpu_has_bf16", lambda: has_it)
    cpu = {"use_cpu": True}
    assert check(recipe(cpu)).config.bf16 is False
    assert check(recipe(cpu | {"bf16": None})).config.bf16 is has_it
    if not torch.accelerator.is_available():
        assert check(recipe({"bf16": None})).config.bf16 is has_it, "where there is nothing but a CPU"
    assert check(recipe(cpu | {"bf16": False})).config.bf16 is False


def test_a_plan_for_another_machine_imports_no_reward() -> None:
    dotted = recipe(reward="not.here.f", validate={"problems": 8, "reward": "not.here.g"})
    plan = check(dotted, elsewhere=True)
    assert plan.rewards == {} and plan.held_out is not None and plan.held_out.score is None
    assert dict(plan.facts)["reward"] == "not.here.f"


def test_the_keys_of_the_hint_are_fields_of_trl() -> None:
    from trl import GRPOConfig

    assert set(GRPO_KEYS) <= set(GRPOConfig.__dataclass_fields__) and len(set(GRPO_KEYS)) == len(GRPO_KEYS)


def test_a_learning_rate_of_the_tiny_model_is_told_for_another(tmp_path: Path) -> None:
    """All weights of a pretrained model at 2e-4 is a slip; of the sandbox, of adapters, or at 2e-5 it is none."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"hidden_size": 576}')
    rate, other = {"learning_rate": 2e-4}, {"model": str(tmp_path / "model")}

    def told(grpo: dict[str, Any], **fields: Any) -> bool:
        notes = check(recipe(grpo, **fields), tmp_path / "run", processes=1, elsewhere=True).notes
        return any(
            "grpo.learning_rate = 0.0002 is for models as small as the sandbox's" in note for note in notes
        )

    assert told(rate, **other)
    assert not told(rate) and not told(rate, model=str(weights_of("chains"))), "as small under another name"
    assert not told(rate, **other, lora={"r": 4}) and not told({"learning_rate": 2e-5}, **other)
