"""What is wrong, or surprising, in a recipe, before anything is loaded or trained."""

from __future__ import annotations

import difflib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from trl import GRPOConfig

from entropilot.engines.checks import (
    refuse_early_update_scope,
    refuse_on_policy,
    settle_clip,
    updates_per_rollout,
)
from entropilot.errors import UserError
from entropilot.methods import Method
from entropilot.recipes import Recipe, build_method
from entropilot.sandbox import weights_of


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
    for name, value in recipe.grpo.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "see TRL's GRPOConfig for the fields."
            raise UserError(f"grpo.{name} is no field of TRL's GRPOConfig; {hint}")
        if name in ("output_dir", "seed"):
            where = "--out" if name == "output_dir" else "the recipe's own seed"
            raise UserError(f"grpo.{name} is set through {where}; remove it from the section grpo.")
        try:
            values[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise UserError(f"grpo.{name} = {value!r} does not fit ({reason}); change this value.") from error
    # Quiet and local unless the recipe says otherwise.
    defaults: dict[str, Any] = {"report_to": "none", "logging_steps": 1, "save_total_limit": 2}
    if recipe.model.partition(":")[0] == "sandbox":
        # The sandbox is small: float32 is as fast on a CPU, and exact.
        defaults |= {"bf16": False, "model_init_kwargs": {"dtype": "float32"}}
    if anywhere:
        values["use_cpu"] = True
        values["bf16"] = values.get("bf16", False) and False
    try:
        with warnings.catch_warnings():
            # Deprecation of transformers' own field names; nothing that a recipe could change.
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            return GRPOConfig(output_dir=str(output_dir), seed=recipe.seed, **(defaults | values))
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(
            f"The section grpo can't work as it stands: {str(error).strip().splitlines()[0]}"
        ) from error


def resolve_model(recipe: Recipe) -> str:
    """Return the path or the Hub id of a recipe's model.

    Raises:
        UserError: something that looks like a path does not exist, or holds no model.
    """
    kind, _, tier = recipe.model.partition(":")
    if kind == "sandbox":
        return str(weights_of(tier or recipe.tier or "chains"))
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


def examine(recipe: Recipe) -> Diagnosis:
    """Check a recipe and say what it comes to.

    Raises:
        UserError: it cannot work as it stands.
    """
    method: Method | None = build_method(recipe)
    config = build_config(recipe, Path("runs") / recipe.name, anywhere=True)
    if recipe.validation is not None and recipe.validation.data is None and ":" not in recipe.data.source:
        local = Path(recipe.data.source).suffix in (".jsonl", ".json", ".parquet", ".csv")
        if local:
            raise UserError(
                "validate: a file has no validation split; name held-out problems with validate.data, or remove validate."
            )
    resolve_model(recipe)
    refuse_on_policy(method, config)
    refuse_early_update_scope(method, config)
    method, clip = settle_clip(method, config)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    rows = config.generation_batch_size
    updates = updates_per_rollout(config)
    facts = [
        ("model", recipe.model),
        ("data", recipe.data.source),
        ("method", recipe.method if method is None else repr(method)),
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
            "Groups are torn over processes: a reward that looks at its group would see part of it. Per-completion "
            "rewards are not affected; to keep groups whole, make per_device_train_batch_size x steps_per_generation "
            f"a multiple of num_generations = {config.num_generations}."
        )
    if config.temperature != 1.0:
        notes.append(
            f"Training samples at T = {config.temperature}: entropy/policy_T1 needs one extra pass every "
            f"{recipe.probe.entropy_every} rollouts, and is another number than TRL's own `entropy`."
        )
    if config.use_vllm and config.vllm_importance_sampling_correction and updates <= 1:
        notes.append("Under vLLM correction with one update per rollout the log-ratio is rounding noise.")
    if recipe.validation is None:
        notes.append(
            "No `validate` section: the law will be fitted to the training reward, which it is not about."
        )
    return notes
