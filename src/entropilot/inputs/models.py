"""Models and tokenizers for training and for measuring, and the libraries below us kept quiet."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Protocol

import transformers
from transformers import AutoTokenizer
from trl.trainer.utils import create_model_from_path

from entropilot.errors import UserError
from entropilot.inputs.gguf import converted, gguf_file, load_gguf
from entropilot.inputs.hub import check_model, looks_like_a_folder
from entropilot.inputs.messages import end_ids, stop_ids
from entropilot.recipes.schema import Data
from entropilot.sandbox import weights_of
from entropilot.sandbox.tasks import DEFAULT_TIER, get_tier, tier_of

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
    # TRL repeats the whole prompt whenever no reward can score it; the share of such completions shows in the rewards.
    logging.getLogger("trl").setLevel(logging.ERROR)
    import datasets

    datasets.disable_progress_bars()


class NamesModel(Protocol):
    """Hold what names a model: a recipe, or the plan made from one."""

    @property
    def model(self) -> str: ...
    @property
    def tier(self) -> str | None: ...
    @property
    def lora(self) -> dict[str, Any] | None: ...
    @property
    def data(self) -> Data: ...


def load_model(recipe: NamesModel, init: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """Load a recipe's (model, tokenizer), in float32 where `init` names no dtype.

    Raises:
        UserError: it can't be loaded, or the tokenizer has no chat template.
    """
    source = resolve_model(recipe)
    check_model(recipe.model)
    settings = {"dtype": "float32"} | (init or {})
    adapters = (Path(source) / "adapter_config.json").is_file() and not (
        Path(source) / "config.json"
    ).is_file()
    if adapters and recipe.lora is not None:
        raise UserError(
            f"model: {recipe.model} holds adapters, and lora would be saved without them; merge them into a model first, "
            "or remove lora."
        )
    try:
        if source.lower().endswith(".gguf"):
            model, tokenizer = load_gguf(Path(source), settings)
            return _ready(recipe, model, tokenizer)
        tokenizer = AutoTokenizer.from_pretrained(source)
        if adapters:
            from peft import (
                AutoPeftModelForCausalLM,  # what a LoRA recipe left: adapters and the name of their base
            )

            model = AutoPeftModelForCausalLM.from_pretrained(source, **settings).merge_and_unload()
        else:
            model = create_model_from_path(source, **settings)
    except UserError:
        raise
    except Exception as error:  # the Hub, safetensors and configs raise a dozen kinds
        if (
            Path(source).is_dir()
            and not any(Path(source).glob("*token*"))
            and not any(Path(source).glob("vocab*"))
        ):
            raise UserError(
                f"model: the folder {recipe.model} holds no tokenizer; put it there with tokenizer.save_pretrained."
            ) from error
        raise UserError(
            f"model: {recipe.model} can't be loaded ({first_line(error)}); check the path or the Hub id."
        ) from error
    return _ready(recipe, model, tokenizer)


def _ready(recipe: NamesModel, model: Any, tokenizer: Any) -> tuple[Any, Any]:
    """Settle padding, and where a completion ends.

    Raises:
        UserError: prompts are turns, and the tokenizer has no chat template.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None and recipe.data.template == "chat":
        raise UserError(
            f"model: the tokenizer of {recipe.model} has no chat template; set data.template to none for raw text, or "
            "set a template and save it again."
        )
    stops = stop_ids(tokenizer, recipe.data.stop_strings)
    if stops:
        # Where TRL, transformers and our own sampler look for the end of a completion. A model that is saved keeps it.
        model.generation_config.eos_token_id = sorted(end_ids(model, tokenizer) | stops)
    return model, tokenizer


def context_room(model: Any, max_completion_length: int) -> int | None:
    """Return the tokens that the model's context leaves for a prompt; None where it has no limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None else max(0, limit - max_completion_length)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def resolve_model(recipe: NamesModel) -> str:
    """Find the folder or the Hub id of a recipe's model; loads nothing.

    Raises:
        UserError: something that looks like a path does not exist, or holds no model.
    """
    tier = tier_of(recipe.model, default=recipe.tier or DEFAULT_TIER)
    if tier is not None:
        return str(weights_of(get_tier(tier).name))
    if (folder := converted(recipe.model)) is not None:
        return str(folder)
    if (file := gguf_file(recipe.model)) is not None:
        return str(file)
    path = Path(recipe.model).expanduser()
    if path.exists():
        if not (path / "config.json").is_file() and not (path / "adapter_config.json").is_file():
            raise UserError(
                f"model: {recipe.model} holds no config.json; give a folder made by save_pretrained."
            )
        return str(path)
    if looks_like_a_folder(recipe.model):
        raise UserError(
            f"model: the folder {recipe.model} does not exist; give a path, a Hub id, or sandbox."
        )
    return recipe.model
