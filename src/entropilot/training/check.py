"""What is wrong, or surprising, in a recipe, before anything is loaded or trained."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl import GRPOConfig

from entropilot.engines.trl.checks import (
    refuse_early_update_scope,
    refuse_on_policy,
    settle_clip,
    updates_per_rollout,
)
from entropilot.engines.trl.entropy_min import check_settings, settled
from entropilot.errors import UserError
from entropilot.inputs.models import resolve_model
from entropilot.inputs.problems import FILE_KINDS
from entropilot.methods import Method
from entropilot.recipes.schema import LABEL_FREE, Recipe, build_method
from entropilot.rewards import named as trl_rewards
from entropilot.rewards.controls import FormatReward, RandomReward
from entropilot.rewards.groups import GroupReward
from entropilot.rewards.named import build_reward
from entropilot.training.config import build_config


@dataclass(frozen=True)
class Diagnosis:
    """A recipe that can run: what it comes to, and what a reader should know.

    Attributes:
        facts: (name, value) pairs for a table.
        notes: sentences, each a surprise that is no error.
    """

    facts: list[tuple[str, str]]
    notes: list[str]


def refuse_label_free(name: str) -> None:
    """Refuse a reward that sees no answer as the measure of held-out accuracy: it would be right by agreeing with itself.

    Raises:
        UserError: it is one, by name or by the dotted path of one of ours.
    """
    ours = name.removeprefix("entropilot.rewards.named.")
    kinds = (GroupReward, FormatReward, RandomReward)
    if name in (*LABEL_FREE, "none") or (
        ours != name and isinstance(getattr(trl_rewards, ours, None), kinds)
    ):
        raise UserError(
            f"validate.reward: {name} compares with no answer, so it measures no accuracy; set validate.reward to math, "
            "exact or sandbox, or remove validate."
        )


def token_method(recipe: Recipe) -> Method | None:
    """Return a recipe's covariance method; None where it has none, also where the method has a loss of its own."""
    method = build_method(recipe)
    return None if recipe.method == "entropy_min" else method


def examine(recipe: Recipe, processes: int | None = None) -> Diagnosis:
    """Check a recipe and say what it comes to.

    Args:
        recipe: the recipe.
        processes: how many it is meant for; default: as many as there are here.

    Raises:
        UserError: it cannot work as it stands.
    """
    method: Method | None = token_method(recipe)
    config = build_config(recipe, Path("runs") / recipe.name, anywhere=True)
    held_out = recipe.validation is None or recipe.validation.data is not None
    if not held_out and Path(recipe.data.source).suffix in FILE_KINDS:
        raise UserError(
            "validate: a file has no validation split; name held-out problems with validate.data, or remove validate."
        )
    resolve_model(recipe)
    if not isinstance(recipe.reward, str) and len(set(recipe.reward)) < len(recipe.reward):
        raise UserError(
            f"Two reward functions share a name ({', '.join(recipe.reward)}); name each of them once."
        )
    if recipe.method == "entropy_min":
        check_settings(build_method(recipe), config)
    for name, args in recipe.rewards.items():
        if name == "none" and recipe.method != "entropy_min":
            raise UserError(
                "reward: none gives nothing to learn from; only method: entropy_min needs no reward."
            )
        if name == "none":
            continue
        if "." not in name or args:  # a dotted path may be importable elsewhere
            build_reward(name, recipe.tier, args)
    if recipe.validation is not None:
        refuse_label_free(recipe.validation_reward)
        if "." not in recipe.validation_reward:
            build_reward(recipe.validation_reward, recipe.validation_tier)
    refuse_on_policy(method, config)
    refuse_early_update_scope(method, config)
    method, clip = settle_clip(method, config)
    here = int(os.environ.get("WORLD_SIZE", "1"))
    processes = processes or here
    rows = config.generation_batch_size // here * processes
    updates = updates_per_rollout(config)
    facts = [
        ("model", recipe.model),
        ("data", recipe.data.source),
        ("method", _described(recipe, method, config)),
        ("reward", ", ".join(recipe.rewards)),
        ("advantages", recipe.advantage_estimator),
        ("loss", f"{config.loss_type}, {config.importance_sampling_level} level, beta {config.beta}"),
        ("PPO clip", f"low {clip['low']}, high {clip['high']} (from: {clip['source']})"),
        ("processes", str(processes)),
        (
            "rollout",
            f"{rows} completions = {rows // config.num_generations} prompts x {config.num_generations}",
        ),
        ("updates per rollout", f"{updates:g}"),
        (
            "sampling",
            f"T {config.temperature}, top_p {config.top_p}, up to {config.max_completion_length} tokens",
        ),
    ]
    notes = _notes(recipe, method, config, rows, updates)
    return Diagnosis(facts, notes)


def _described(recipe: Recipe, method: Method | None, config: GRPOConfig) -> str:
    if recipe.method == "entropy_min":
        return repr(settled(build_method(recipe), config))
    return recipe.method if method is None else repr(method)


def _notes(recipe: Recipe, method: Any, config: GRPOConfig, rows: int, updates: float) -> list[str]:
    notes = []
    if method is not None and method.fraction is not None:
        most = rows * config.max_completion_length
        chosen = method.fraction * most
        notes.append(
            f"A fraction of {method.fraction:g} means at most {chosen:,.0f} of {most:,} tokens per rollout, fewer where "
            "completions are shorter; at least one is always chosen. Read chosen/tokens in the record."
        )
        if chosen < 10:
            notes.append(
                "So few tokens are hardly a choice: raise fraction, or use restrain, which does not depend on size."
            )
    if method is not None and updates <= 1:
        notes.append("One update per rollout: Clip-Cov acts on the gradient of that update only.")
    if (config.per_device_train_batch_size * config.steps_per_generation) % config.num_generations:
        notes.append(
            "Groups are torn over processes. Rewards of one completion are not affected, and empo and majority gather "
            "groups first, so that two processes judge the same answers; a group reward of your own would see a part. "
            "To keep groups whole, make per_device_train_batch_size x steps_per_generation a multiple of num_generations = "
            f"{config.num_generations}."
        )
    processes = rows * int(os.environ.get("WORLD_SIZE", "1")) // config.generation_batch_size
    if recipe.method == "entropy_min" and processes > 1:
        notes.append(
            f"The settings of entropy minimisation are for one process: {processes} of them take {processes} times the "
            "samples an update; lower per_device_train_batch_size or gradient_accumulation_steps for the batch of one."
        )
    if config.temperature != 1.0:
        notes.append(
            f"Training samples at T = {config.temperature}: entropy/policy_T1 needs one extra pass every "
            f"{recipe.probe.entropy_every} rollouts, and is another number than TRL's own `entropy`."
        )
    if config.use_vllm and config.vllm_importance_sampling_correction and updates <= 1:
        notes.append("Under vLLM correction with one update per rollout the log-ratio is rounding noise.")
    if (
        config.save_strategy == "steps"
        and config.save_steps >= 1
        and updates > 1
        and config.save_steps % updates
    ):
        notes.append(
            f"A checkpoint every {config.save_steps:g} steps falls inside a rollout of {updates:g} updates: --resume then "
            "begins a new rollout there, and differs from an uninterrupted run. A multiple is exact."
        )
    for source in (
        recipe.data.source,
        recipe.validation and recipe.validation.data and recipe.validation.data.source,
    ):
        if source and Path(source).suffix in FILE_KINDS and not Path(source).expanduser().is_file():
            notes.append(f"The file {source} is not here; training needs it.")
    if all(name in LABEL_FREE for name in recipe.rewards) and recipe.validation is not None:
        notes.append(
            f"No label is trained on; held-out accuracy is measured by the reward {recipe.validation_reward}, for you "
            "alone."
        )
    if recipe.validation is None:
        notes.append(
            "No `validate` section: the law will be fitted to the training reward, which it is not about."
        )
    return notes
