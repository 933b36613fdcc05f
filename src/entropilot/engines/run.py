"""From a checked recipe to a trained model: `entropilot train`."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer, PrinterCallback, ProgressCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint
from trl.trainer.utils import create_model_from_path

from entropilot.engines.data import fit_prompts, load_problems
from entropilot.engines.doctor import build_config, examine, resolve_model
from entropilot.engines.metrics import definitions
from entropilot.engines.probe import Probe, Validation
from entropilot.engines.trl import EntropyGRPOTrainer, NonFiniteLossError
from entropilot.engines.trl_rewards import build_reward
from entropilot.errors import UserError
from entropilot.recipes import Recipe, Validate, build_method
from entropilot.records import FILE_NAME, RunWriter, read_run

# Harmless warnings of the libraries below us, each by name, with the reason why nobody needs to act on it.
KNOWN_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    # transformers 5.23 renamed gradient_checkpointing; TRL 1.16 still reads the old names.
    (r".*gradient_checkpointing\w*` is deprecated.*", FutureWarning),
    # torch's DataLoader pins memory only with an accelerator; on a CPU it says so every time.
    (r".*'pin_memory' argument is set as true but no accelerator.*", UserWarning),
)


def quiet() -> None:
    """Filter the known harmless warnings, and the libraries' progress bars beside our own."""
    for message, category in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    import datasets

    datasets.disable_progress_bars()


def _validation(
    recipe: Recipe, settings: Validate, tokenizer: Any, reward: Any, config: Any, room: int | None
) -> Validation:
    data = settings.data
    if data is None:
        data = recipe.data.model_copy(update={"split": "validation"})
    data = data.model_copy(update={"limit": settings.problems})
    rows = fit_prompts(load_problems(data), tokenizer, data, room).to_list()
    return Validation(
        rows=rows,
        reward=reward,
        every=settings.every,
        temperature=settings.temperature,
        samples=settings.samples,
        max_new_tokens=config.max_completion_length,
        top_p=settings.top_p,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )


def load_model(
    recipe: Recipe, init: dict[str, Any] | None = None, *, trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """Return (model, tokenizer) of a recipe, in float32 where `init` names no dtype.

    Raises:
        UserError: it can't be loaded, or the tokenizer has no chat template.
    """
    source = resolve_model(recipe)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        model = create_model_from_path(source, **({"dtype": "float32"} | (init or {})))
    except Exception as error:  # the Hub, safetensors and configs raise a dozen kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model: {recipe.model} can't be loaded ({reason}); check the path or the Hub id."
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        raise UserError(
            f"model: the tokenizer of {recipe.model} has no chat template; set one and save it again."
        )
    return model, tokenizer


def context_room(model: Any, max_completion_length: int) -> int | None:
    """Return the tokens that the model's context leaves for a prompt; None where it has no limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None else max(0, limit - max_completion_length)


# What may differ when a run is continued: how long it goes on and what is kept, not what is learned.
_MAY_CHANGE = (
    "grpo.max_steps",
    "grpo.num_train_epochs",
    "grpo.save_steps",
    "grpo.save_total_limit",
    "grpo.logging_steps",
)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _resume_point(recipe: Recipe, out: Path) -> tuple[str, int]:
    """Return the last checkpoint of a run and its step.

    Raises:
        UserError: there is none, or the run is of another recipe.
    """
    folder = out / "checkpoints"
    checkpoint = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if not (out / FILE_NAME).is_file() or checkpoint is None:
        raise UserError(
            f"--resume: {out} holds no checkpoint to continue from; start without --resume in a new folder."
        )
    before = _flat(read_run(out).header.get("recipe", {}))
    now = _flat(json.loads(json.dumps(recipe.resolved())))
    different = [
        key for key in sorted({*before, *now}) if before.get(key) != now.get(key) and key not in _MAY_CHANGE
    ]
    if different:
        key = different[0]
        raise UserError(
            f"--resume: the run in {out} was made with another recipe ({key} was {before.get(key)!r}, is now "
            f"{now.get(key)!r}); use the same recipe, or another --out."
        )
    return checkpoint, json.loads((Path(checkpoint) / "trainer_state.json").read_text())["global_step"]


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_row: Callable[[int, dict[str, Any]], None] | None = None,
) -> Path:
    """Train what a recipe says; returns the folder of the trained model, which `transformers` loads.

    `out` receives `run.jsonl`, `tokens/`, `checkpoints/` and `model/`.

    Args:
        recipe: from `load_recipe`.
        out: folder of the run.
        resume: continue from the last checkpoint in `out`.
        on_start: is called with the number of optimiser steps.
        on_row: is called with every row.

    Raises:
        UserError: the recipe cannot work, the folder is taken, the loss is not finite.
    """
    began = time.perf_counter()
    quiet()
    examine(recipe)
    checkpoint, step = _resume_point(recipe, out) if resume else (None, None)
    if not resume and (out / FILE_NAME).exists():
        raise UserError(
            f"{out} already holds a run; choose another --out, remove it, or continue it with --resume."
        )
    config = build_config(recipe, out / "checkpoints")
    config.disable_tqdm = True
    set_seed(recipe.seed)
    names = [recipe.reward] if isinstance(recipe.reward, str) else recipe.reward
    rewards = [build_reward(name, recipe.tier) for name in names]
    model, tokenizer = load_model(
        recipe, config.model_init_kwargs, trust_remote_code=config.trust_remote_code
    )
    config.model_init_kwargs = None  # used up here; TRL would warn that it ignores them
    room = context_room(model, config.max_completion_length)
    problems = fit_prompts(load_problems(recipe.data), tokenizer, recipe.data, room)
    _need_answers(problems, names)
    validation = None
    if recipe.validation is not None:
        validation = _validation(recipe, recipe.validation, tokenizer, rewards[0], config, room)
    peft_config = None
    if recipe.lora is not None:
        from peft import LoraConfig

        try:
            peft_config = LoraConfig(**({"task_type": "CAUSAL_LM"} | recipe.lora))
        except TypeError as error:
            raise UserError(f"lora: {error}; see peft's LoraConfig for the fields.") from error
    writer = None
    probe = Probe(
        folder=out,
        validation=validation,
        tokens_every=recipe.probe.tokens_every,
        tokens_rows=recipe.probe.tokens_rows,
        entropy_every=recipe.probe.entropy_every,
        on_row=on_row,
    )
    try:
        trainer = EntropyGRPOTrainer(
            model=model,
            args=config,
            reward_funcs=rewards,
            train_dataset=problems,
            processing_class=tokenizer,
            peft_config=peft_config,
            method=build_method(recipe),
            advantage_estimator=recipe.advantage_estimator,
            observer=probe,
            callbacks=[probe],
        )
    except (ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"TRL refuses this recipe: {str(error).strip().splitlines()[0]}") from error
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if trainer.accelerator.is_main_process:
        header = {
            "name": recipe.name,
            "recipe": recipe.resolved(),
            "clip": trainer.clip,
            "updates_per_rollout": config.steps_per_generation
            * config.num_iterations
            / config.gradient_accumulation_steps,
            "processes": trainer.accelerator.num_processes,
            "device": str(trainer.accelerator.device),
            "metrics": definitions(),
        }
        writer = probe.writer = RunWriter(out, header, resume_step=step)
    if on_start is not None:
        on_start(trainer.args.max_steps)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
        # A crash while saving must not leave half a model under the final name.
        partial, final = out / "model.partial", out / "model"
        trainer.save_model(str(partial))
        if trainer.accelerator.is_main_process:
            tokenizer.save_pretrained(partial)
            (partial / "training_args.bin").unlink(missing_ok=True)
            shutil.rmtree(final, ignore_errors=True)
            partial.replace(final)
        _end(writer, "finished", began)
    except KeyboardInterrupt:
        _end(writer, "interrupted", began, step=trainer.state.global_step)
        raise
    except NonFiniteLossError as error:
        _end(writer, str(error), began, step=trainer.state.global_step)
        raise UserError(str(error)) from error
    except BaseException as error:
        _end(writer, f"{type(error).__name__}: {error}", began, step=trainer.state.global_step)
        raise
    finally:
        if writer is not None:
            writer.close()
    return out / "model"


def _end(writer: RunWriter | None, reason: str, began: float, **values: Any) -> None:
    if writer is not None:
        writer.end(reason, seconds=time.perf_counter() - began, **values)


def _need_answers(problems: Any, rewards: list[str]) -> None:
    if not {"sandbox", "exact", "math"} & set(rewards):
        return
    if "answer" not in problems.column_names or all(answer is None for answer in problems["answer"]):
        raise UserError(
            f"reward: {', '.join(rewards)} compares with an answer, but the data has none; name the column with "
            "data.answer_column, or choose a reward that needs no label."
        )
