"""Refuse what cannot work in a recipe, and list what may surprise, where it is no matter of one method."""

from __future__ import annotations

import json
from pathlib import Path

from trl import GRPOConfig

from entropilot.engines.trl.checks import updates_per_rollout
from entropilot.errors import UserError
from entropilot.inputs.problems import FILE_KINDS
from entropilot.recipes.schema import FEW_LABELS, LABEL_FREE, Recipe
from entropilot.rewards import named as trl_rewards
from entropilot.rewards.controls import FormatReward, RandomReward
from entropilot.rewards.groups import GroupReward
from entropilot.sandbox.tasks import tier_of

# Above the highest rate of any recipe here that trains all weights of a pretrained model, 2e-5.
MOST_RATE = 5e-5
TINY = 256  # hidden size; the sandbox's is 128


def refuse_label_free(name: str) -> None:
    """Refuse a reward that sees no answer as the measure of held-out accuracy: it would be right by agreeing with itself.

    Raises:
        UserError: it is one, by name or by the dotted path of one of ours.
    """
    ours = name.removeprefix("entropilot.rewards.named.")
    kinds = (GroupReward, FormatReward, RandomReward)
    if name in (*LABEL_FREE, *FEW_LABELS, "none") or (
        ours != name and isinstance(getattr(trl_rewards, ours, None), kinds)
    ):
        raise UserError(
            f"validate.reward: {name} compares with no answer, so it measures no accuracy; set validate.reward to math, "
            "exact or sandbox, or remove validate."
        )


def _is_tiny(model: str) -> bool:
    """Tell whether a model is as small as the sandbox's: by name, or by the configuration in its folder."""
    if tier_of(model) is not None:
        return True
    try:
        size = json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf-8")).get(
            "hidden_size"
        )
    except (OSError, ValueError, AttributeError):
        return False
    return isinstance(size, int) and size <= TINY


def surprises(recipe: Recipe, config: GRPOConfig, awaited: bool = False) -> list[str]:
    """Return sentences on what works, but may not be what a reader of the recipe expects."""
    updates = updates_per_rollout(config)
    notes = []
    if (config.per_device_train_batch_size * config.steps_per_generation) % config.num_generations:
        notes.append(
            "Groups are torn over processes. Rewards of one completion are not affected, and empo and majority gather "
            "groups first, so that two processes judge the same answers; a group reward of your own would see a part. "
            "To keep groups whole, make per_device_train_batch_size x steps_per_generation a multiple of num_generations = "
            f"{config.num_generations}."
        )
    if recipe.lora is None and config.learning_rate > MOST_RATE and not (awaited or _is_tiny(recipe.model)):
        notes.append(
            f"grpo.learning_rate = {config.learning_rate:g} is for models as small as the sandbox's (0.6 M parameters); "
            "all weights of a pretrained model are usually trained at 1e-6 to 1e-5 (recipes/paper and recipes/smollm2)."
        )
    if config.temperature != 1.0:
        every = recipe.probe.entropy_every
        notes.append(
            f"Training samples at T = {config.temperature}: entropy/policy_T1 needs one extra pass every "
            f"{'rollout' if every == 1 else f'{every} rollouts'}, and is another number than TRL's own `entropy`."
        )
    if config.use_vllm and config.vllm_importance_sampling_correction and updates <= 1:
        notes.append("Under vLLM correction with one update per rollout the log-ratio is rounding noise.")
    if config.save_only_model and config.save_strategy != "no":
        notes.append(
            "grpo.save_only_model: checkpoints hold no optimizer, so --resume begins the run anew; remove it to resume."
        )
    if config.sync_ref_model and config.beta:
        notes.append(
            "grpo.sync_ref_model: a checkpoint does not hold the reference model, so --resume goes on with the initial one "
            "and differs from an uninterrupted run."
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
            "No `validate` section: the law will be fitted to the training reward, but it is a law of held-out accuracy."
        )
    return notes
