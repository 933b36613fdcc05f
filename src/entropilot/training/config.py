"""Build TRL's `GRPOConfig` from a recipe, each value checked."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any, get_type_hints

import torch
from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig

from entropilot.engines.trl.checks import updates_per_rollout
from entropilot.errors import UserError
from entropilot.machine import cpu_has_bf16
from entropilot.recipes.schema import Recipe
from entropilot.recipes.values import did_you_mean, fit
from entropilot.recipes.yaml_files import short
from entropilot.sandbox.tasks import tier_of

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


def build_config(
    recipe: Recipe, output_dir: Path, brought: dict[str, Any] | None = None, *, anywhere: bool = False
) -> GRPOConfig:
    """Return the `GRPOConfig` of a recipe, each value checked against its field.

    Args:
        recipe: the recipe.
        output_dir: TRL's output folder.
        brought: settings that the method brings; the recipe's go before them.
        anywhere: check a recipe that is meant for another machine (no device of this one is asked for).

    Raises:
        UserError: an unknown key, a wrong type, or a combination that TRL refuses.
    """
    hints = get_type_hints(GRPOConfig)
    names = [name for name, field in GRPOConfig.__dataclass_fields__.items() if field.init]
    values: dict[str, Any] = {}
    for name, value in ((brought or {}) | recipe.grpo).items():
        if name in ELSEWHERE:
            raise UserError(f"grpo.{name} {ELSEWHERE[name]}; remove it from the section grpo.")
        if name not in names:
            hint = did_you_mean(name, names, section="grpo")
            raise UserError(
                f"grpo.{name} is no field of TRL's GRPOConfig{hint}; see TRL's documentation for the fields."
            )
        values[name] = fit(value, hints[name], f"grpo.{name}")
        _check_value(name, values[name])
    # Quiet and local unless the recipe says otherwise.
    defaults: dict[str, Any] = {"report_to": "none", "logging_steps": 1, "save_total_limit": 2}
    # The trainer sets transformers' loggers again, on every rank, over what `quiet` asked for.
    defaults |= {"log_level": "error", "log_level_replica": "error"}
    if not values.get("fp16"):
        # The sandbox is small: float32 is as fast, and exact. TRL's own default fails without a GPU that has bf16.
        defaults["bf16"] = tier_of(recipe.model) is None and is_torch_bf16_gpu_available()
        if "bf16" in values and values["bf16"] is None:  # asked for where the machine has it
            on_cpu = values.get("use_cpu") or not torch.accelerator.is_available()
            values["bf16"] = cpu_has_bf16() if on_cpu else is_torch_bf16_gpu_available()
            if on_cpu and values["bf16"]:
                values["use_cpu"] = True  # else transformers takes bf16 for a GPU's and refuses
    if anywhere:
        values |= {"use_cpu": True, "bf16": False, "fp16": False}
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 and not torch.accelerator.is_available():
        # Without it accelerate joins no processes on a CPU: each would train alone, and write into the same folder.
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
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
