"""From a checked recipe to a trained model: `entropilot train`."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed

from entropilot.engines.checks import updates_per_rollout
from entropilot.engines.data import fit_prompts, load_problems
from entropilot.engines.doctor import build_config, examine, token_method
from entropilot.engines.loading import context_room, first_line, load_model, quiet
from entropilot.engines.metrics import definitions
from entropilot.engines.prefixes import Prefixes
from entropilot.engines.probe import Probe, Validation
from entropilot.engines.resume import Point, nothing_more, refuse_foreign, replay_epochs, resume_point
from entropilot.engines.trl import EntropyGRPOTrainer, NonFiniteLossError
from entropilot.engines.trl_entropy_min import DEFINITIONS as ENTROPY_MIN
from entropilot.engines.trl_entropy_min import EntropyMinProbe, EntropyMinTrainer, settled
from entropilot.engines.trl_rewards import build_reward
from entropilot.errors import UserError
from entropilot.recipes import Recipe, Validate, build_method, short
from entropilot.records import FILE_NAME, RunWriter, read_run


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


def claim(out: Path) -> bool:
    """Make the run's folder before anything is loaded; returns whether it is new.

    Raises:
        UserError: it can't be written.
    """
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UserError(
            f"{out} can't be written ({error.strerror}); choose another folder with --out."
        ) from error
    return new


def unclaim(out: Path, new: bool) -> None:
    """Leave nothing behind of a recipe that was refused: empty folders only, and none that was there before."""
    for folder in (out / "checkpoints", *((out,) if new else ())):
        with contextlib.suppress(OSError):
            folder.rmdir()


class _Start(TrainerCallback):
    """Says how many steps there will be, which transformers knows once training begins."""

    def __init__(self, on_start: Callable[[int], None]) -> None:
        self.on_start = on_start

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on_start(state.max_steps)


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_row: Callable[[int, dict[str, Any]], None] | None = None,
    on_alarm: Callable[[str], None] | None = None,
) -> Path:
    """Train what a recipe says; returns the folder of the trained model, which `transformers` loads.

    `out` receives `run.jsonl`, `tokens/`, `checkpoints/` and `model/`.

    Args:
        recipe: from `load_recipe`.
        out: folder of the run.
        resume: continue from the last checkpoint in `out`.
        on_start: is called with the number of optimiser steps.
        on_row: is called with every row.
        on_alarm: is called once, with a sentence, when entropy is nearly spent.

    Raises:
        UserError: the recipe cannot work, the folder is taken, the loss is not finite.
    """
    began = time.perf_counter()
    quiet()
    examine(recipe)
    point = resume_point(recipe, out) if resume else None
    step = None if point is None else point.step
    if not resume and (out / FILE_NAME).exists():
        raise UserError(
            f"{out} already holds a run; choose another --out, remove it, or continue it with --resume."
        )
    if step is not None and 0 < recipe.grpo.get("max_steps", -1) <= step and (out / "model").exists():
        raise UserError(
            f"--resume: the run in {out} has done all its {step} steps, and its model is saved; to go on, raise "
            "grpo.max_steps."
        )
    if resume and (out / "model").exists() and nothing_more(recipe, out):
        raise UserError(
            f"--resume: the run in {out} is finished, and its model is saved; to go on, raise grpo.max_steps (or what else "
            "says how long it goes), or set probe.stop=off where the stop rule ended it."
        )
    new = claim(out)
    try:
        trainer, probe = _prepare(recipe, out, point, on_row, on_alarm)
        writer = None
        if trainer.accelerator.is_main_process:
            writer = probe.writer = RunWriter(out, _header(recipe, trainer), resume_step=step)
    except BaseException:
        unclaim(out, new)
        raise
    if on_start is not None:
        trainer.add_callback(_Start(on_start))
    try:
        if point is not None and _ended(trainer, probe, point):
            _only_load(trainer, probe, point)
        else:
            trainer.train(resume_from_checkpoint=None if point is None else str(point.checkpoint))
        _save(trainer, out)
        _end(writer, "finished", began)
    except KeyboardInterrupt:
        _end(writer, "interrupted", began, step=trainer.state.global_step)
        raise
    except NonFiniteLossError as error:
        _end(writer, str(error), began, step=trainer.state.global_step)
        raise UserError(str(error)) from error
    except BaseException as error:
        _end(writer, f"{type(error).__name__}: {error}", began, step=trainer.state.global_step)
        if isinstance(error, ImportError):
            raise UserError(
                f"This recipe needs a package that is not installed: {first_line(error)}"
            ) from error
        raise
    finally:
        if writer is not None:
            writer.close()
    return out / "model"


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


def _header(recipe: Recipe, trainer: EntropyGRPOTrainer) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "recipe": recipe.resolved(),
        "clip": trainer.clip,
        "updates_per_rollout": updates_per_rollout(trainer.args),
        "processes": trainer.accelerator.num_processes,
        "device": str(trainer.accelerator.device),
        "metrics": definitions(),
        **_about_minimising(trainer),
    }


def _about_minimising(trainer: EntropyGRPOTrainer) -> dict[str, Any]:
    """Return what a header says beyond the usual where entropy is minimised."""
    if not isinstance(trainer, EntropyMinTrainer):
        return {}
    own = {name: {"unit": unit, "definition": text} for name, (unit, text) in ENTROPY_MIN.items()}
    return {"entropy_min": trainer.describe(), "metrics": definitions() | own}


def _ended(trainer: EntropyGRPOTrainer, probe: Probe, point: Point) -> bool:
    """Return whether a run had come to its end at its last checkpoint: by number of steps, or because a rule said so."""
    said = probe.stopped and probe.stop == "stop" or getattr(trainer, "stopped", None) is not None
    return said or 0 < trainer.args.max_steps <= point.step


def _only_load(trainer: EntropyGRPOTrainer, probe: Probe, point: Point) -> None:
    """Take the weights of a run that had done its last step, but was killed before its model was saved."""
    trainer._load_from_checkpoint(str(point.checkpoint))
    trainer.state.global_step = point.step
    if probe.validation is not None:
        probe._finish(point.step + 1, probe.measure(trainer))


def _save(trainer: EntropyGRPOTrainer, out: Path) -> None:
    """Save the model; a crash meanwhile must not leave half of one under the final name."""
    partial, final = out / "model.partial", out / "model"
    if trainer.accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(partial))
    if trainer.accelerator.is_main_process:
        trainer.processing_class.save_pretrained(partial)
        (partial / "training_args.bin").unlink(missing_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        partial.replace(final)
    trainer.accelerator.wait_for_everyone()  # the next stage of a chain loads it on every rank


def _end(writer: RunWriter | None, reason: str, began: float, **values: Any) -> None:
    if writer is not None:
        writer.end(reason, seconds=time.perf_counter() - began, **values)


def need_answers(problems: Any, rewards: list[str], key: str = "reward") -> None:
    """Refuse data without any answer where a reward compares with one."""
    if not {"sandbox", "exact", "math"} & set(rewards):
        return
    if "answer" not in problems.column_names or all(answer is None for answer in problems["answer"]):
        raise UserError(
            f"{key}: {', '.join(rewards)} compares with an answer, but the data has none; name the column with "
            f"data.answer_column, or {'remove validate' if key != 'reward' else 'choose a reward that needs no label'}."
        )
