"""What is wrong, or surprising, in a recipe, before anything is loaded or trained."""

from __future__ import annotations

import difflib
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig

from entropilot.engines import trl_rewards
from entropilot.engines.checks import (
    refuse_early_update_scope,
    refuse_on_policy,
    settle_clip,
    updates_per_rollout,
)
from entropilot.engines.data import FILE_KINDS
from entropilot.engines.group_rewards import FormatReward, GroupReward, RandomReward
from entropilot.engines.trl_entropy_min import check_settings, refuse_contradictions, settled
from entropilot.engines.trl_rewards import build_reward
from entropilot.errors import UserError
from entropilot.methods import Method
from entropilot.recipes import LABEL_FREE, Recipe, build_method, short
from entropilot.sandbox import weights_of
from entropilot.sandbox.tasks import TIERS

# What TRL, transformers and torch find out only after the start, or not at all: the interval of a number ...
RANGES = {
    **dict.fromkeys(
        ("per_device_train_batch_size", "gradient_accumulation_steps", "num_iterations"), "[1, inf)"
    ),
    **dict.fromkeys(("steps_per_generation", "generation_batch_size", "max_completion_length"), "[1, inf)"),
    **dict.fromkeys(("learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm"), "[0, inf)"),
    **dict.fromkeys(("beta", "epsilon", "epsilon_high", "top_k"), "[0, inf]"),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), "[0, 1)"),
    **dict.fromkeys(("top_p", "top_entropy_quantile"), "(0, 1]"),
    **dict.fromkeys(("temperature", "repetition_penalty", "num_train_epochs", "save_steps"), "(0, inf)"),
    "num_generations": "[2, inf)",
    "min_p": "[0, 1]",
}
# ... the names that a setting knows ...
CHOICES: dict[str, tuple[Any, ...]] = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none", True, False),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}
# ... and the fields that are settled elsewhere.
ELSEWHERE = {
    "output_dir": "is set through --out",
    "seed": "is set through the recipe's own seed",
    "resume_from_checkpoint": "is set through --resume",
    "eval_strategy": "is set through the section validate",
    "push_to_hub": "is not done here: nothing leaves this machine; upload the model folder afterwards",
    "remove_unused_columns": "would take the answers from the reward",
    "trust_remote_code": "stays off: code that comes with a model is never run",
}


@dataclass(frozen=True)
class Diagnosis:
    """A recipe that can run: what it comes to, and what a reader should know.

    Attributes:
        facts: (name, value) pairs for a table.
        notes: sentences, each a surprise that is no error.
    """

    facts: list[tuple[str, str]]
    notes: list[str]


def build_config(recipe: Recipe, output_dir: Path, *, anywhere: bool = False) -> GRPOConfig:
    """Return the `GRPOConfig` of a recipe, each value checked against its field.

    Args:
        recipe: the recipe.
        output_dir: TRL's output folder.
        anywhere: check a recipe that is meant for another machine (no device of this one is asked for).

    Raises:
        UserError: an unknown key, a wrong type, or a combination that TRL refuses.
    """
    hints = get_type_hints(GRPOConfig)
    names = [name for name, field in GRPOConfig.__dataclass_fields__.items() if field.init]
    values: dict[str, Any] = {}
    minimise = build_method(recipe) if recipe.method == "entropy_min" else None
    if minimise is not None:
        refuse_contradictions(recipe.method_args, recipe.grpo)
    given = recipe.grpo if minimise is None else minimise.grpo_settings() | recipe.grpo
    for name, value in given.items():
        if name in ELSEWHERE:
            raise UserError(f"grpo.{name} {ELSEWHERE[name]}; remove it from the section grpo.")
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "see TRL's GRPOConfig for the fields."
            raise UserError(f"grpo.{name} is no field of TRL's GRPOConfig; {hint}")
        try:
            values[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise UserError(
                f"grpo.{name} = {short(value)} does not fit ({reason}); change this value."
            ) from error
        _check_value(name, values[name])
    # Quiet and local unless the recipe says otherwise.
    defaults: dict[str, Any] = {"report_to": "none", "logging_steps": 1, "save_total_limit": 2}
    # The trainer sets transformers' loggers again, on every rank, over what `quiet` asked for.
    defaults |= {"log_level": "error", "log_level_replica": "error"}
    if not values.get("fp16"):
        # The sandbox is small: float32 is as fast, and exact. TRL's own default fails without a GPU that has bf16.
        sandbox = recipe.model.partition(":")[0] == "sandbox"
        defaults["bf16"] = not sandbox and is_torch_bf16_gpu_available()
    if anywhere:
        values |= {"use_cpu": True, "bf16": False, "fp16": False}
    try:
        with warnings.catch_warnings():
            # Deprecation of transformers' own field names; nothing that a recipe could change.
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            config = GRPOConfig(output_dir=str(output_dir), seed=recipe.seed, **(defaults | values))
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(
            f"The section grpo can't work as it stands: {str(error).strip().splitlines()[0]}"
        ) from error
    if "save_steps" not in values:
        # TRL's 500 steps are hours of sampling. Whole rollouts, so that a resumed run equals an uninterrupted one.
        per_rollout = max(1, math.ceil(updates_per_rollout(config)))
        config.save_steps = math.ceil(50 / per_rollout) * per_rollout
    return config


def _check_value(name: str, value: Any) -> None:
    if name in CHOICES and value not in CHOICES[name]:
        known = ", ".join(str(choice) for choice in CHOICES[name])
        raise UserError(f"grpo.{name} = {short(value)} does not exist; choose one of: {known}.")
    if name == "max_steps" and value < 1 and value != -1:
        raise UserError(
            f"grpo.max_steps = {value} trains nothing; give 1 or more, or -1 to go by num_train_epochs."
        )
    if name == "model_init_kwargs" and isinstance(value, dict) and value.get("trust_remote_code"):
        raise UserError(
            f"grpo.model_init_kwargs: trust_remote_code {ELSEWHERE['trust_remote_code']}; remove it."
        )
    if name not in RANGES or isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, high = (float(end) for end in RANGES[name][1:-1].split(","))
    above = value >= low if RANGES[name][0] == "[" else value > low
    below = value <= high if RANGES[name][-1] == "]" else value < high
    if not (above and below):
        raise UserError(f"grpo.{name} = {value} is out of range; it must lie in {RANGES[name]}.")


def resolve_model(recipe: Recipe) -> str:
    """Return the path or the Hub id of a recipe's model.

    Raises:
        UserError: something that looks like a path does not exist, or holds no model.
    """
    kind, _, tier = recipe.model.partition(":")
    if kind == "sandbox":
        name = tier or recipe.tier or "chains"
        if name not in TIERS:
            raise UserError(f"There is no sandbox tier {name!r}; choose one of: {', '.join(TIERS)}.")
        return str(weights_of(name))
    path = Path(recipe.model).expanduser()
    if path.exists():
        if not (path / "config.json").is_file() and not (path / "adapter_config.json").is_file():
            raise UserError(
                f"model: {recipe.model} holds no config.json; give a folder made by save_pretrained."
            )
        return str(path)
    if recipe.model.startswith((".", "/", "~")) or recipe.model.count("/") != 1 or "\\" in recipe.model:
        raise UserError(
            f"model: the folder {recipe.model} does not exist; give a path, a Hub id, or sandbox."
        )
    return recipe.model


def refuse_label_free(name: str) -> None:
    """Refuse a reward that sees no answer as the measure of held-out accuracy: it would be right by agreeing with itself.

    Raises:
        UserError: it is one, by name or by the dotted path of one of ours.
    """
    ours = name.removeprefix("entropilot.engines.trl_rewards.")
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
