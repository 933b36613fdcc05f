"""Check and settle a recipe once: what will be trained on what, before anything is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trl import GRPOConfig

from entropilot.dotted import is_here
from entropilot.engines.trl.adapter import Adapter, adapter_of
from entropilot.engines.trl.checks import describe_clip, refuse_rule, updates_per_rollout
from entropilot.errors import UserError
from entropilot.inputs.models import resolve_model
from entropilot.inputs.problems import FILE_KINDS
from entropilot.maths.advantages import Estimator
from entropilot.methods import registry
from entropilot.methods.stack import Stack
from entropilot.recipes.schema import Data, ProbeSettings, Recipe, Validate, build_method
from entropilot.rewards.named import RewardFunction, build_reward
from entropilot.training.check import refuse_label_free, surprises
from entropilot.training.config import build_config


@dataclass(frozen=True)
class HeldOut:
    """Hold how accuracy on held-out problems is measured.

    Attributes:
        data: where the problems come from, `limit` of them.
        reward: its name.
        score: the reward function; None in a plan for another machine, where it may not be importable.
        settings: when, and how completions are sampled.
    """

    data: Data
    reward: str
    score: RewardFunction | None
    settings: Validate


@dataclass(frozen=True)
class Plan:
    """Hold what one training run is made of. `check` makes it; only the header of the run reads the recipe after that.

    Attributes:
        recipe: what it was made from, for the header.
        name: of the run.
        stage: its name where it is one of several trainings in a row.
        out: folder of the run.
        config: TRL's settings.
        adapter: how TRL runs the method.
        method: as it will be trained; None for plain GRPO.
        estimator: of the advantages.
        rewards: name → reward function; those of a plan for another machine may lack.
        clip: the PPO clip in force: {"low", "high", "source"}.
        model: sandbox, a folder or a Hub id.
        lora: fields of peft's LoraConfig; None trains all weights.
        data: where the problems come from.
        held_out: how held-out accuracy is measured; None measures none.
        probe: what is recorded beside the scalars.
        settings: of the run as the alarm reads them, so that it advises nothing that is set already.
        seed: of the run.
        facts: (name, value) pairs for a table.
        notes: sentences, each a surprise that is no error.
    """

    recipe: Recipe
    name: str
    stage: str | None
    out: Path
    config: GRPOConfig
    adapter: Adapter
    method: Any
    estimator: Estimator
    rewards: dict[str, RewardFunction]
    clip: dict[str, Any]
    model: str
    lora: dict[str, Any] | None
    data: Data
    held_out: HeldOut | None
    probe: ProbeSettings
    settings: dict[str, Any]
    seed: int
    facts: list[tuple[str, str]]
    notes: list[str]

    @property
    def tier(self) -> str | None:
        """Return the sandbox tier of the data; None where problems come from elsewhere."""
        return self.data.tier

    def described(self) -> dict[str, Any]:
        """Return what the header of the run says of the recipe: its name, and every key with its value."""
        return {"name": self.recipe.name, "recipe": self.recipe.resolved()}


def check(
    recipe: Recipe,
    out: Path | None = None,
    *,
    processes: int | None = None,
    elsewhere: bool = False,
    stage: str | None = None,
    awaited: bool = False,
) -> Plan:
    """Check a recipe and settle everything that it leaves open; loads no model and no data.

    Args:
        recipe: one training; a recipe with stages goes through `training.stages.plan_stages`.
        out: folder of the run; default: runs/NAME.
        processes: how many the recipe is meant for; default: as many as there are here.
        elsewhere: the recipe is meant for another machine: no device of this one is asked for, and a reward given by a
            dotted path is not imported. Such a plan is for reading.
        stage: its name where it is one of several trainings in a row.
        awaited: the model does not exist yet, because an earlier stage will train it.

    Raises:
        UserError: the recipe cannot work as it stands.
    """
    out = Path("runs") / recipe.name if out is None else out
    entries = [registry.find(name) for name in recipe.methods]
    for entry in entries:
        use = registry.KINDS[entry.kind].use
        if use is not None:  # another package's class
            raise UserError(f"method: {entry.name} {use.format(name=entry.name)}.")
        if entry.kind == "loss" and len(entries) > 1:
            raise UserError(
                f"method: {entry.name} has a loss of its own and goes with no other; name it alone."
            )
    method, adapter = build_method(recipe), adapter_of(entries[0] if entries else None)
    brought = adapter.grpo_settings(method, recipe.method_args, recipe.grpo)
    config = build_config(recipe, out / "checkpoints", brought, anywhere=elsewhere)
    source = Path(recipe.data.source).expanduser()
    if source.suffix in FILE_KINDS and not elsewhere and not source.is_file():
        raise UserError(f"data.source: the file {recipe.data.source} does not exist; check the path.")
    borrowed = recipe.validation is not None and recipe.validation.data is None
    if borrowed and Path(recipe.data.source).suffix in FILE_KINDS:
        raise UserError(
            "validate: a file has no validation split; name held-out problems with validate.data, or remove validate."
        )
    if not awaited:
        resolve_model(recipe)
    rewards = _rewards(recipe, adapter, elsewhere)
    if recipe.lora is not None and any(getattr(reward, "teacher", None) for reward in rewards.values()):
        raise UserError(
            "reward_args.teacher: ema follows all weights of the policy, but with lora only adapters are trained; remove "
            "lora, or remove teacher."
        )
    held_out = _held_out(recipe, elsewhere)
    method, clip = adapter.settle(method, config)
    refuse_rule(Stack.of(method).advantage if adapter.stacks else None, recipe.advantage_estimator, config)
    here = int(os.environ.get("WORLD_SIZE", "1"))
    processes = processes or here
    rows = config.generation_batch_size // here * processes
    plan = Plan(
        recipe=recipe,
        name=recipe.name,
        stage=stage,
        out=out,
        config=config,
        adapter=adapter,
        method=method,
        estimator=recipe.advantage_estimator,
        rewards=rewards,
        clip=clip,
        model=recipe.model,
        lora=recipe.lora,
        data=recipe.data,
        held_out=held_out,
        probe=recipe.probe,
        settings=_settings(recipe, entries, config),
        seed=recipe.seed,
        facts=[],
        notes=[],
    )
    notes = adapter.notes(method, config, rows, processes) + surprises(recipe, config, awaited)
    notes += _not_here(recipe) if elsewhere else []
    return replace(plan, facts=_facts(plan, list(recipe.rewards), rows, processes), notes=notes)


def _settings(recipe: Recipe, entries: list[registry.Entry], config: GRPOConfig) -> dict[str, Any]:
    """Return what the alarm reads: the method that chooses tokens, or the only one, and its share of the covariance."""
    names = [entry.name for entry in entries if entry.kind == "token"] or list(recipe.methods)
    name = names[0] if names else "none"
    own = {"method": name, "restrain": recipe.methods.get(name, {}).get("restrain")}
    return own | {"updates_per_rollout": updates_per_rollout(config)} | recipe.grpo


def _rewards(recipe: Recipe, adapter: Adapter, elsewhere: bool) -> dict[str, RewardFunction]:
    if not isinstance(recipe.reward, str) and len(set(recipe.reward)) < len(recipe.reward):
        raise UserError(
            f"Two reward functions share a name ({', '.join(recipe.reward)}); name each of them once."
        )
    rewards = {}
    for name, args in recipe.rewards.items():
        if name == "none":
            if adapter.needs_reward:
                alone = ", ".join(registry.of_kind("loss"))
                raise UserError(
                    f"reward: none gives nothing to learn from; only method: {alone} needs no reward."
                )
        elif not elsewhere or "." not in name or args:  # a dotted path may be importable there
            rewards[name] = build_reward(name, recipe.tier, args, recipe.seed)
    return rewards


def _not_here(recipe: Recipe) -> list[str]:
    """Say of which rewards the module is not on this machine; the one that trains may have it."""
    return [
        f"reward: {name} names a module that is not here; training needs it, installed or in the folder where it starts."
        for name in dict.fromkeys((*recipe.rewards, recipe.validation_reward))
        if "." in name and not is_here(name)
    ]


def _held_out(recipe: Recipe, elsewhere: bool) -> HeldOut | None:
    settings, name = recipe.validation, recipe.validation_reward
    if settings is None:
        return None
    refuse_label_free(name)
    score = None if elsewhere and "." in name else build_reward(name, recipe.validation_tier)
    data = settings.data
    if data is None:
        data = recipe.data.model_copy(update={"split": "validation"})
    changes = {
        "limit": settings.problems,
        "labelled_share": None,
    }  # held-out problems are measured with their answers
    return HeldOut(data.model_copy(update=changes), name, score, settings)


def _facts(plan: Plan, rewards: list[str], rows: int, processes: int) -> list[tuple[str, str]]:
    config = plan.config
    groups = rows // config.num_generations
    return [
        ("model", plan.model),
        ("data", plan.data.source),
        ("method", "none" if plan.method is None else repr(plan.method)),
        ("reward", ", ".join(rewards)),
        ("advantages", plan.estimator),
        ("loss", f"{config.loss_type}, {config.importance_sampling_level} level, beta {config.beta}"),
        ("PPO clip", describe_clip(plan.method, plan.clip)),
        ("processes", str(processes)),
        (
            "rollout",
            f"{rows} completions = {groups} prompt{'s' if groups != 1 else ''} x {config.num_generations}",
        ),
        ("updates per rollout", f"{updates_per_rollout(config):g}"),
        (
            "sampling",
            f"T {config.temperature}, top_p {config.top_p}, up to {config.max_completion_length} tokens",
        ),
        ("steps", steps_of(config)),
        ("result", f"{plan.out / 'model'}, recorded in {plan.out / 'run.jsonl'}"),
    ]


def steps_of(config: Any) -> str:
    """Say how many optimiser steps a run takes, as far as it is known before the data is loaded."""
    if config.max_steps > 0:
        return f"{config.max_steps}"
    return f"{config.num_train_epochs:g} epochs; the number of steps is known once the data is loaded"
