"""Load everything that a recipe names, and build its trainer."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, set_seed

from entropilot.engines.trl.entropy_min import EntropyMinProbe, EntropyMinTrainer, settled
from entropilot.engines.trl.trainer import EntropyGRPOTrainer
from entropilot.errors import UserError
from entropilot.inputs.models import context_room, first_line, load_model
from entropilot.inputs.problems import fit_prompts, load_problems
from entropilot.recipes.schema import Recipe, Validate, build_method
from entropilot.recipes.yaml_files import short
from entropilot.recording.prefixes import Prefixes
from entropilot.recording.probe import Probe, Validation
from entropilot.records import read_run
from entropilot.rewards.named import build_reward
from entropilot.training.check import token_method
from entropilot.training.config import build_config
from entropilot.training.resume import Point, refuse_foreign, replay_epochs


def _validation(
    recipe: Recipe, settings: Validate, tokenizer: Any, config: Any, room: int | None
) -> Validation:
    data = settings.data
    if data is None:
        data = recipe.data.model_copy(update={"split": "validation"})
    data = data.model_copy(update={"limit": settings.problems})
    problems = fit_prompts(load_problems(data), tokenizer, data, room)
    need_answers(problems, [recipe.validation_reward], "validate.reward")
    return Validation(
        rows=problems.to_list(),
        reward=build_reward(recipe.validation_reward, recipe.validation_tier),
        every=settings.every,
        temperature=settings.temperature,
        samples=settings.samples,
        max_new_tokens=config.max_completion_length,
        top_p=settings.top_p,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )


def _take_up(probe: Probe, out: Path, step: int) -> None:
    """Give a resumed run's probe the rollouts before the checkpoint: the law goes on from them."""
    name = "reward/mean" if probe.validation is None else "validation/accuracy"
    for row in read_run(out).rows:
        if row["step"] <= step and row.get("entropy/policy_T1") is not None:
            measured = row.get(name)
            probe.history.append(
                (row["step"], row["entropy/policy_T1"], math.nan if measured is None else measured)
            )
            probe.alarmed = probe.alarmed or "law/alarm" in row
            if row.get("semantic/entropy") is not None:
                seen = (row["semantic/entropy"], row["entropy/policy_T1"], row["semantic/majority_share"])
                probe.meanings.append((row["step"], *seen))
            probe.stopped = probe.stopped or "stop/reason" in row


def _prepare(
    recipe: Recipe,
    out: Path,
    point: Point | None,
    on_row: Callable[[int, dict[str, Any]], None] | None,
    on_alarm: Callable[[str], None] | None,
) -> tuple[EntropyGRPOTrainer, Probe]:
    """Load everything that a recipe names, and return a trainer that is ready to go."""
    config = build_config(recipe, out / "checkpoints")
    config.disable_tqdm = True
    set_seed(recipe.seed)
    names = list(recipe.rewards)
    rewards = [
        build_reward(name, recipe.tier, args, recipe.seed)
        for name, args in recipe.rewards.items()
        if name != "none"
    ]
    minimise = settled(build_method(recipe), config) if recipe.method == "entropy_min" else None
    model, tokenizer = load_model(recipe, config.model_init_kwargs)
    config.model_init_kwargs = None  # used up here; TRL would warn that it ignores them
    if point is not None:
        refuse_foreign(point.checkpoint, model)
    room = context_room(model, config.max_completion_length)
    problems = fit_prompts(load_problems(recipe.data), tokenizer, recipe.data, room)
    need_answers(problems, names)
    prompts = config.generation_batch_size // config.num_generations
    if len(problems) < prompts:
        raise UserError(
            f"data: a rollout takes {prompts} different prompts, but there are {len(problems)} problems; give more data, "
            "raise grpo.num_generations, or lower per_device_train_batch_size or steps_per_generation."
        )
    validation = None
    if recipe.validation is not None:
        validation = _validation(recipe, recipe.validation, tokenizer, config, room)
    probe = (Probe if minimise is None else EntropyMinProbe)(
        folder=out,
        validation=validation,
        tokens_every=recipe.probe.tokens_every,
        tokens_rows=recipe.probe.tokens_rows,
        entropy_every=recipe.probe.entropy_every,
        stop=recipe.probe.stop,
        on_row=on_row,
        on_alarm=on_alarm,
        settings={"method": recipe.method, "restrain": recipe.method_args.get("restrain"), **recipe.grpo},
    )
    if recipe.probe.prefixes:
        held_out = problems.select(range(min(len(problems), recipe.probe.prefixes))).to_list()
        held_out = held_out if validation is None else validation.rows[: recipe.probe.prefixes]
        probe.prefixes = Prefixes(held_out, config.max_completion_length, recipe.seed, out)
    if point is not None:
        _take_up(probe, out, point.step)
    settings: dict[str, Any] = {
        "model": model,
        "args": config,
        "reward_funcs": rewards or None,
        "train_dataset": problems,
        "processing_class": tokenizer,
        "peft_config": None if recipe.lora is None else _lora(recipe.lora),
        "observer": probe,
        "callbacks": [probe],
    }
    try:
        if minimise is not None:
            trainer: EntropyGRPOTrainer = EntropyMinTrainer(minimise=minimise, **settings)
        else:
            how = {"method": token_method(recipe), "advantage_estimator": recipe.advantage_estimator}
            trainer = EntropyGRPOTrainer(**settings, **how)
    except (ValueError, TypeError, ImportError, RuntimeError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"TRL refuses this recipe: {first_line(error)}") from error
    if point is not None and isinstance(trainer, EntropyMinTrainer):  # its early stop looks back
        past = read_run(out).column("entropy_min/loss")
        trainer.entropies = [loss for step, loss in past if step <= point.step]
        trainer.stopped = trainer.minimise.stop_reason(trainer.entropies)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if point is not None:
        replay_epochs(trainer, point.epochs)
    return trainer, probe


def _lora(settings: dict[str, Any]) -> Any:
    from peft import LoraConfig

    try:
        config = LoraConfig(**({"task_type": "CAUSAL_LM"} | settings))
    except (TypeError, ValueError) as error:
        raise UserError(f"lora: {first_line(error)}; see peft's LoraConfig for the fields.") from error
    if not isinstance(config.r, int) or config.r < 1:
        raise UserError(f"lora.r = {short(config.r)} does not fit; give the rank, 1 or more.")
    return config


def need_answers(problems: Any, rewards: list[str], key: str = "reward") -> None:
    """Refuse data without any answer where a reward compares with one."""
    if not {"sandbox", "exact", "math"} & set(rewards):
        return
    if "answer" not in problems.column_names or all(answer is None for answer in problems["answer"]):
        raise UserError(
            f"{key}: {', '.join(rewards)} compares with an answer, but the data has none; name the column with "
            f"data.answer_column, or {'remove validate' if key != 'reward' else 'choose a reward that needs no label'}."
        )
