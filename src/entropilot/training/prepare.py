"""Load everything that a plan names, and build its trainer."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from transformers import PrinterCallback, ProgressCallback, set_seed

from entropilot.engines.trl.trainer import EntropyGRPOTrainer
from entropilot.errors import UserError
from entropilot.inputs.models import context_room, first_line, load_model
from entropilot.inputs.problems import fit_prompts, load_problems
from entropilot.recipes.schema import FEW_LABELS
from entropilot.recipes.yaml_files import short
from entropilot.recording.fixed_prompts import PROMPTS, FixedPrompts
from entropilot.recording.prefixes import Prefixes
from entropilot.recording.probe import Probe, Validation
from entropilot.records import read_run
from entropilot.training.plan import HeldOut, Plan
from entropilot.training.resume import LOADING_ERRORS, Point, not_loadable, refuse_foreign, replay_epochs


def _validation(plan: HeldOut, tokenizer: Any, max_new_tokens: int, room: int | None) -> Validation:
    problems = fit_prompts(load_problems(plan.data), tokenizer, plan.data, room)
    need_answers(problems, [plan.reward], "validate.reward")
    assert plan.score is not None  # left out in a plan for another machine only
    return Validation(
        rows=problems.to_list(),
        reward=plan.score,
        every=plan.settings.every,
        temperature=plan.settings.temperature,
        samples=plan.settings.samples,
        max_new_tokens=max_new_tokens,
        top_p=plan.settings.top_p,
        batch_size=plan.settings.batch_size,
        seed=plan.settings.seed,
    )


def prepare(
    plan: Plan,
    point: Point | None,
    on_row: Callable[[int, dict[str, Any]], None] | None,
    on_alarm: Callable[[str], None] | None,
) -> tuple[EntropyGRPOTrainer, Probe]:
    """Load everything that a plan names, and return a trainer that is ready to go, with its probe."""
    config = copy(plan.config)
    config.disable_tqdm = True
    set_seed(plan.seed)
    model, tokenizer = load_model(plan, config.model_init_kwargs)
    config.model_init_kwargs = None  # used up here; TRL would warn that it ignores them
    if point is not None:
        refuse_foreign(point.checkpoint, model)
    room = context_room(model, config.max_completion_length)
    problems = fit_prompts(load_problems(plan.data), tokenizer, plan.data, room)
    need_answers(problems, list(plan.rewards))
    prompts = config.generation_batch_size // config.num_generations
    if len(problems) < prompts:
        raise UserError(
            f"data: a rollout takes {prompts} different prompts, but there are {len(problems)} problems; give more data, "
            "raise grpo.num_generations, or lower per_device_train_batch_size or steps_per_generation."
        )
    validation = None
    if plan.held_out is not None:
        validation = _validation(plan.held_out, tokenizer, config.max_completion_length, room)
    probe = _probe(plan, problems, validation, on_row, on_alarm)
    if point is not None:
        probe.take_up(read_run(plan.out).rows, point.step)
    try:
        trainer = plan.adapter.trainer(
            plan.method,
            plan.estimator,
            model=model,
            args=config,
            reward_funcs=list(plan.rewards.values()) or None,
            train_dataset=problems,
            processing_class=tokenizer,
            peft_config=None if plan.lora is None else _lora(plan.lora),
            observer=probe,
        )
    except (ValueError, TypeError, ImportError, RuntimeError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"TRL refuses this recipe: {first_line(error)}") from error
    trainer.crash_safe = True
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if point is not None:
        plan.adapter.take_up(trainer, plan.out, point.step)
        try:
            trainer.take_up(point.checkpoint)
        except LOADING_ERRORS as error:
            raise not_loadable(point.checkpoint, error) from error
        replay_epochs(trainer, point.epochs)
    return trainer, probe


def _probe(
    plan: Plan,
    problems: Any,
    validation: Validation | None,
    on_row: Callable[[int, dict[str, Any]], None] | None,
    on_alarm: Callable[[str], None] | None,
) -> Probe:
    probe = plan.adapter.probe(
        folder=plan.out,
        validation=validation,
        tokens_every=plan.probe.tokens_every,
        tokens_rows=plan.probe.tokens_rows,
        entropy_every=plan.probe.entropy_every,
        stop=plan.probe.stop,
        on_finding=plan.probe.on_finding,
        on_row=on_row,
        on_alarm=on_alarm,
        settings=plan.settings,
    )
    if validation is None:  # then there is no held-out problem; training prompts can be followed just as well
        few = problems.select(range(min(len(problems), PROMPTS))).to_list()
        probe.fixed_prompts = FixedPrompts(
            few, role="training", max_new_tokens=plan.config.max_completion_length, seed=plan.seed
        )
    if plan.probe.prefixes:
        held_out = problems.select(range(min(len(problems), plan.probe.prefixes))).to_list()
        held_out = held_out if validation is None else validation.rows[: plan.probe.prefixes]
        probe.prefixes = Prefixes(held_out, plan.config.max_completion_length, plan.seed, plan.out)
    return probe


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
    """Refuse data without any answer where a reward compares with one, and data that leave TraPO nothing to do."""
    if set(FEW_LABELS) & set(rewards):
        answers = problems["answer"] if "answer" in problems.column_names else [None] * len(problems)
        known = sum(answer is not None for answer in answers)
        if known in (0, len(problems)):
            how = "none" if known == 0 else "all"
            instead = "a reward that needs no label" if known == 0 else "math, exact or sandbox as the reward"
            raise UserError(
                f"{key}: trapo learns from a few labelled rows and many without an answer, but {how} of the "
                f"{len(problems)} rows have one; leave answers out (null) or in for some rows, set data.labelled_share "
                f"between 0 and 1, or choose {instead}."
            )
    if not {"sandbox", "exact", "math"} & {name.partition(":")[0] for name in rewards}:
        return
    if "answer" not in problems.column_names or all(answer is None for answer in problems["answer"]):
        raise UserError(
            f"{key}: {', '.join(rewards)} compares with an answer, but the data has none; name the column with "
            f"data.answer_column, or {'remove validate' if key != 'reward' else 'choose a reward that needs no label'}."
        )
