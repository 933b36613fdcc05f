"""Define a recipe: one YAML file that says what is trained on what, checked before anything is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from entropilot.errors import UserError
from entropilot.methods import registry
from entropilot.recipes.values import fit_fields, sentence
from entropilot.recipes.yaml_files import read_values, short
from entropilot.sandbox.tasks import get_tier, tier_of

# Rewards that need no answer.
LABEL_FREE = ("empo", "majority", "scrl", "format", "random")
# Rewards that need an answer for some rows only, and measure no accuracy.
FEW_LABELS = ("trapo",)
# Fields of TRL's GRPOConfig that people look for at the top of a recipe; for the hint only, any field is accepted.
GRPO_KEYS = (
    *("max_steps", "num_train_epochs", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation", "num_iterations"),
    *(
        "generation_batch_size",
        "num_generations",
        "max_completion_length",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
    ),
    *("beta", "epsilon", "epsilon_high", "delta", "loss_type", "importance_sampling_level", "scale_rewards"),
    *("entropy_coef", "save_steps", "save_total_limit", "logging_steps", "report_to", "bf16", "use_vllm"),
    *("gradient_checkpointing", "max_grad_norm", "optim", "repetition_penalty", "top_entropy_quantile"),
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class Data(_Strict):
    """Hold where problems come from.

    `source` is `sandbox` or `sandbox:TIER`, a JSONL, Parquet or CSV file, a Hub id, or `reasoning_gym:TASK`.
    """

    # sandbox, sandbox:TIER, reasoning_gym:TASK, a JSONL, Parquet or CSV file, or a Hub id
    source: str = "sandbox"
    split: str = "train"  # train, validation or test; of a Hub dataset any that it has
    config: str | None = None  # configuration of a Hub dataset
    options: dict[str, Any] = {}  # of a reasoning_gym task, such as {max_digits: 1}
    prompt_column: str | None = None  # default: prompt, problem or question
    answer_column: str | None = None  # default: answer, solution, or verl's reward_model.ground_truth
    limit: int | None = Field(default=None, ge=1)  # take the first so many rows only
    # Keep the answers of this share of the rows, drawn with `seed`, and forget the others: for experiments on few labels.
    labelled_share: float | None = Field(default=None, ge=0, le=1)
    seed: int = 0  # of what is drawn: sandbox and reasoning_gym problems, and the rows that keep their answer
    system: str | None = None  # system turn before every prompt
    suffix: str = ""  # added to the user's turn
    # chat: prompts are a user's turn, through the tokenizer's chat template. none: raw text, as base models continue it.
    template: Literal["chat", "none"] = "chat"
    prefix: str = ""  # put before the prompt: a few examples, for instance
    # A completion ends where one of these characters appears, such as "\n" for one line; the end token ends it too.
    stop_strings: list[str] = []
    max_prompt_length: int | None = Field(
        default=None, ge=1
    )  # tokens; default: what the model's context leaves
    over_length: Literal["refuse", "drop"] = "refuse"  # what to do where a prompt is longer

    @model_validator(mode="after")
    def _text_fits(self) -> Data:
        if self.template == "none" and self.system is not None:
            raise ValueError(
                "template: none sends no turns, so a system turn has no place; put its text into prefix"
            )
        for text in self.stop_strings:
            # A longer string can be spelt with several tokens, and no list of tokens would say where it ends.
            if len(text) != 1 or not text.isascii():
                raise ValueError(f'stop_strings holds {text!r}; give single ASCII characters, such as "\\n"')
        return self

    @property
    def tier(self) -> str | None:
        """Return the sandbox tier, None where problems come from elsewhere."""
        return tier_of(self.source)

    @property
    def kind(self) -> Literal["sandbox", "reasoning_gym", "rows"]:
        """Return where problems come from: drawn from a seed (sandbox, reasoning_gym), or rows of a file or of the Hub."""
        kind = self.source.partition(":")[0]
        return kind if kind in ("sandbox", "reasoning_gym") else "rows"  # type: ignore[return-value]


class Validate(_Strict):
    """Held-out accuracy during training; `every` counts rollouts."""

    every: int = Field(default=1, ge=1)  # rollouts between two validations
    problems: int = Field(default=128, ge=1)  # the first so many of the held-out problems
    temperature: float = Field(default=1.0, ge=0)  # of sampling; 0 is greedy
    samples: int = Field(default=1, ge=1)  # completions per problem
    top_p: float = Field(
        default=1.0, gt=0, le=1
    )  # sample from the likeliest tokens of this total probability
    batch_size: int = Field(default=256, ge=1)  # completions that are sampled together
    seed: int = 0  # of the sampling
    # Default: the first reward that compares with an answer; sandbox or math where none does.
    reward: str | None = None
    data: Data | None = None  # default: the training source's validation split

    @field_validator("data", mode="before")
    @classmethod
    def _short_data(cls, value: Any) -> Any:
        value = {"source": value} if isinstance(value, str) else value
        # Held-out problems: the split of training is never what is meant by leaving it out.
        return {"split": "validation"} | value if isinstance(value, dict) else value


class ProbeSettings(_Strict):
    """Hold what is recorded beside the scalars."""

    # Optimiser steps between token samples; 0 takes none. Default: so many that a run has about 20.
    tokens_every: int | None = Field(default=None, ge=0)
    # Completions of the rollout in each token sample, beside 16 of four fixed prompts.
    tokens_rows: int = Field(default=16, ge=1)
    entropy_every: int = Field(
        default=1, ge=1
    )  # rollouts between two entropies at T = 1, where training is at another
    # Problems on whose fixed completions entropy is measured around every update (`entropilot dynamics`); 0: none.
    prefixes: int = Field(default=0, ge=0)
    # Where a reward needs no label: say, or end training, when its answers no longer change (`analysis.stopping`).
    stop: Literal["off", "warn", "stop"] = "warn"
    # Where the checks of `entropilot diagnose` find something wrong: say it; `stop` also ends training at an error.
    on_finding: Literal["off", "warn", "stop"] = "warn"


class Recipe(_Strict):
    """Hold what `entropilot train` takes. `grpo` holds any field of TRL's `GRPOConfig`."""

    name: str = "run"  # default: the recipe file's name; the run's folder is runs/NAME unless --out is given
    model: str = "sandbox"  # sandbox, a model folder, a GGUF file, or a Hub id
    data: Data = Data()  # what is trained on; `data: X` is short for `data: {source: X}`
    # sandbox (of its problems in a file sandbox:TIER), exact, math, reasoning_gym, empo, majority, scrl, trapo, format,
    # random, a dotted path, or a list of them
    reward: str | list[str] = "sandbox"
    # Arguments of the reward; by its name where there are several: {empo: {judge: math}}.
    reward_args: dict[str, Any] = {}
    # none, the name of a method, an entry point or package.module:Class; or a list of methods that act together
    method: str | list[str] = "none"
    # Arguments of the method; by its name where there are several: {qae: {quantile: 0.6}}.
    method_args: dict[str, Any] = {}
    # how rewards of a group become advantages
    advantage_estimator: Literal["grpo", "rloo", "reinforce++", "reinforce++_baseline"] = "grpo"
    lora: dict[str, Any] | None = None  # fields of peft's LoraConfig; left out, all weights are trained
    grpo: dict[str, Any] = {}  # any field of TRL's GRPOConfig
    # held-out accuracy while training
    validation: Validate | None = Field(default=None, alias="validate")
    probe: ProbeSettings = ProbeSettings()  # what is recorded beside the scalars
    seed: int = 0  # of training and sampling
    # Several trainings in a row, each from the last one's model, by name: [em, grpo].
    stages: list[str] = []
    stage: dict[str, dict[str, Any]] = {}  # what each stage changes in this recipe, by its name

    @field_validator("data", mode="before")
    @classmethod
    def _short_data(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @field_validator("method", mode="before")
    @classmethod
    def _known_method(cls, value: Any) -> Any:
        names = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) for name in names):
            raise ValueError("give the name of a method, or a list of names")
        if not names:
            raise ValueError("name at least one method, or write none")
        if len(set(names)) < len(names):
            raise ValueError("name each method once")
        for name in names:
            if name != "none":
                registry.refuse_unknown(name)
            elif len(names) > 1:
                raise ValueError("none does not go with other methods")
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        # The name is a folder under runs/ unless --out is given: it must not lead out of there.
        if not re.fullmatch(r"[^/\\\x00-\x1f]{1,100}", value) or value.strip(". ") == "":
            raise ValueError("a name has 1 to 100 characters, is no path and has no line breaks")
        return value

    @model_validator(mode="after")
    def _args_belong(self) -> Recipe:
        if not isinstance(self.reward, str):
            for name, args in self.reward_args.items():
                if name not in self.reward or not isinstance(args, dict):
                    raise ValueError(
                        f"with several rewards, reward_args holds a section per reward, such as {self.reward[0]}: {{...}}"
                    )
        if not isinstance(self.method, str):
            for name, args in self.method_args.items():
                if name not in self.method or not isinstance(args, dict):
                    raise ValueError(
                        f"with a list of methods, method_args holds a section per method, such as {self.method[0]}: {{...}}"
                    )
        return self

    @field_validator("reward")
    @classmethod
    def _some_reward(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("name at least one reward")
        return value

    def expanded(self) -> list[tuple[str, Recipe]]:
        """Return (name, recipe) of every stage in order; the recipe itself under its own name where there are none.

        A stage's sections are merged into this recipe's, key by key; a stage that names a method has its own method_args.
        The model is this recipe's for all of them: whoever trains puts the last stage's in its place.

        Raises:
            UserError: a stage that is not described, or whose values do not fit.
        """
        if not self.stages:
            return [(self.name, self)]
        own = self.model_dump(by_alias=True, exclude_unset=True)
        base = {key: value for key, value in own.items() if key not in ("stages", "stage")}
        found = []
        for name in self.stages:
            if name not in self.stage:
                known = ", ".join(self.stage) or "none"
                raise UserError(
                    f"stages: {short(name)} is not described; the section stage describes: {known}."
                )
            changes = self.stage[name]
            merged = dict(base)
            if "method" in changes:
                merged.pop("method_args", None)
            if "reward" in changes:
                merged.pop("reward_args", None)
            for key, value in changes.items():
                if key == "data" and isinstance(value, str):
                    value = {"source": value}
                here = merged.get(key)
                merged[key] = here | value if isinstance(here, dict) and isinstance(value, dict) else value
            merged["name"] = f"{self.name} {name}"
            for key in ("stages", "stage", "model"):
                if key in changes:
                    raise UserError(
                        f"stage.{name}.{key} has no place in a stage; put it at the top of the recipe."
                    )
            try:
                found.append((name, Recipe.model_validate(merged)))
            except ValidationError as error:
                raise UserError(sentence(error, f"The stage {name}", _known_keys(), _SECTIONS)) from error
        return found

    @property
    def rewards(self) -> dict[str, dict[str, Any]]:
        """Return the rewards by name, each with its arguments."""
        if isinstance(self.reward, str):
            return {self.reward: self.reward_args}
        return {name: self.reward_args.get(name, {}) for name in self.reward}

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """Return the methods by name, each with its arguments; empty where there is none."""
        if isinstance(self.method, str):
            return {} if self.method == "none" else {self.method: self.method_args}
        return {name: self.method_args.get(name, {}) for name in self.method if name != "none"}

    @property
    def tier(self) -> str | None:
        """Return the sandbox tier of the data, None where they come from elsewhere."""
        return self.data.tier

    @property
    def validation_reward(self) -> str:
        """Return the reward that held-out accuracy is measured by: one that compares with an answer."""
        if self.validation is not None and self.validation.reward is not None:
            return self.validation.reward
        verifiable = [name for name in self.rewards if name not in (*LABEL_FREE, *FEW_LABELS, "none")]
        return verifiable[0] if verifiable else "math" if self.validation_tier is None else "sandbox"

    @property
    def validation_tier(self) -> str | None:
        """Return the sandbox tier that scores held-out completions; a file's problems count as training's."""
        held_out = (
            None if self.validation is None or self.validation.data is None else self.validation.data.tier
        )
        return held_out or self.tier

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as plain data, every default filled in."""
        return self.model_dump(by_alias=True)


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file and apply `key=value` overrides; dotted keys reach into sections.

    Raises:
        UserError: the file is missing or no YAML, or a key or a value does not fit.
    """
    values = read_values(Path(path), overrides, example="model: sandbox")
    if "tasks" in values:
        raise UserError(
            f"{path} compares methods on control tasks and is no recipe of a training; run it with: "
            f"entropilot control bench {path}"
        )
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(sentence(error, f"The recipe {path}", _known_keys(), _SECTIONS)) from error
    # What is wrong with a stage is said now, not after the stages before it; an unknown tier before anything is imported.
    for _, stage in recipe.expanded():
        held_out = None if stage.validation is None else stage.validation.data
        for tier in (stage.tier, held_out and held_out.tier):
            if tier is not None:
                get_tier(tier)
    return recipe


def _known_keys() -> dict[str, list[str]]:
    return {
        "": [*(f.alias or name for name, f in Recipe.model_fields.items())],
        "data": list(Data.model_fields),
        "validate": list(Validate.model_fields),
        "validate.data": list(Data.model_fields),
        "probe": list(ProbeSettings.model_fields),
        "grpo": list(GRPO_KEYS),
    }


# Where a key that stands in the wrong section may belong, the likeliest first.
_SECTIONS = ("grpo", "data", "validate", "probe")


def build_method(recipe: Recipe) -> Any:
    """Build the method of a recipe: None where it has none, a tuple where it has several.

    Raises:
        UserError: an argument that the method does not have, or a value that it refuses.
    """
    if not recipe.methods:
        if recipe.method_args:
            raise UserError(
                f"method_args = {short(recipe.method_args)} has no effect with method: none; name a method."
            )
        return None
    several = not isinstance(recipe.method, str)
    built = []
    for name, args in recipe.methods.items():
        section = f"method_args.{name}" if several else "method_args"
        built.append(registry.build(name, **fit_fields(registry.find(name).load(), args, section, name)))
    return built[0] if len(built) == 1 else tuple(built)
