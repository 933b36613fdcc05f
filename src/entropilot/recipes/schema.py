"""A recipe: one YAML file that says what is trained on what, checked before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from entropilot.errors import UserError
from entropilot.recipes.yaml_files import _Loader, apply_override, parse_yaml, short

# Rewards that need no answer.
LABEL_FREE = ("empo", "majority", "format", "random")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class Data(_Strict):
    """Where problems come from.

    `source` is `sandbox` or `sandbox:TIER`, a JSONL, Parquet or CSV file, a Hub id, or `reasoning_gym:TASK`.
    """

    source: str = "sandbox"
    split: str = "train"
    config: str | None = None  # of a Hub dataset
    prompt_column: str | None = None  # default: prompt, problem or question
    answer_column: str | None = None  # default: answer, solution, or verl's reward_model.ground_truth
    limit: int | None = Field(default=None, ge=1)
    seed: int = 0
    system: str | None = None
    suffix: str = ""  # added to the user's turn
    max_prompt_length: int | None = Field(
        default=None, ge=1
    )  # tokens; default: what the model's context leaves
    over_length: Literal["refuse", "drop"] = "refuse"

    @property
    def tier(self) -> str | None:
        """The sandbox tier, None where problems come from elsewhere."""
        kind, _, tier = self.source.partition(":")
        return (tier or "chains") if kind == "sandbox" else None


class Validate(_Strict):
    """Held-out accuracy during training; `every` counts rollouts."""

    every: int = Field(default=1, ge=1)
    problems: int = Field(default=128, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    samples: int = Field(default=1, ge=1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    batch_size: int = Field(default=256, ge=1)
    seed: int = 0
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
    """What is recorded beside the scalars."""

    tokens_every: int = Field(default=50, ge=0)  # optimiser steps between token samples; 0 takes none
    tokens_rows: int = Field(default=16, ge=1)
    entropy_every: int = Field(default=1, ge=1)  # rollouts, where training is not at T = 1
    # Problems on whose fixed completions entropy is measured around every update (`entropilot dynamics`); 0: none.
    prefixes: int = Field(default=0, ge=0)
    # Where a reward needs no label: say, or end training, when its answers no longer change (`analysis.stopping`).
    stop: Literal["off", "warn", "stop"] = "warn"


class Recipe(_Strict):
    """What `entropilot train` takes. `grpo` holds any field of TRL's `GRPOConfig`."""

    name: str = "run"
    model: str = "sandbox"
    data: Data = Data()
    reward: str | list[str] = "sandbox"
    # Arguments of the reward; by its name where there are several: {empo: {judge: math}}.
    reward_args: dict[str, Any] = {}
    method: Literal["none", "clip_cov", "kl_cov", "entropy_min"] = "none"
    method_args: dict[str, Any] = {}
    advantage_estimator: Literal["grpo", "rloo", "reinforce++", "reinforce++_baseline"] = "grpo"
    lora: dict[str, Any] | None = None  # fields of peft's LoraConfig
    grpo: dict[str, Any] = {}
    # Not `validate`: that name is taken by pydantic; the YAML key is `validate`.
    validation: Validate | None = Field(default=None, alias="validate")
    probe: ProbeSettings = ProbeSettings()
    seed: int = 0
    # Several trainings in a row, each from the last one's model: names in order, and what each changes in this recipe.
    stages: list[str] = []
    stage: dict[str, dict[str, Any]] = {}

    @field_validator("data", mode="before")
    @classmethod
    def _short_data(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

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
                raise UserError(_sentence(error, _known_keys(), f"The stage {name}")) from error
        return found

    @property
    def rewards(self) -> dict[str, dict[str, Any]]:
        """The rewards by name, each with its arguments."""
        if isinstance(self.reward, str):
            return {self.reward: self.reward_args}
        return {name: self.reward_args.get(name, {}) for name in self.reward}

    @property
    def tier(self) -> str | None:
        """The sandbox tier of the data, None where they come from elsewhere."""
        return self.data.tier

    @property
    def validation_reward(self) -> str:
        """The reward that held-out accuracy is measured by: one that compares with an answer."""
        if self.validation is not None and self.validation.reward is not None:
            return self.validation.reward
        verifiable = [name for name in self.rewards if name not in (*LABEL_FREE, "none")]
        return verifiable[0] if verifiable else "math" if self.validation_tier is None else "sandbox"

    @property
    def validation_tier(self) -> str | None:
        """The sandbox tier by whose rule held-out completions are scored; a file's problems are taken for training's."""
        held_out = (
            None if self.validation is None or self.validation.data is None else self.validation.data.tier
        )
        return held_out or self.tier

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as plain data, every default filled in."""
        return self.model_dump(by_alias=True)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def _sentence(error: ValidationError, known: dict[str, list[str]], where: str) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        section = ".".join(str(part) for part in first["loc"][:-1])
        names = known.get(section) or []
        return f"{where}: the key {place!r} does not exist; the keys here are: {', '.join(names)}."
    reason = first["msg"].removeprefix("Value error, ")
    reason = re.sub(r"a valid dictionary( or instance of \w+)?", "a section of keys and values", reason)
    reason = reason[:1].lower() + reason[1:]
    return f"{where}: {place} = {short(first.get('input'))} does not fit ({reason}); change this value."


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file and apply `key=value` overrides; dotted keys reach into sections.

    Raises:
        UserError: the file is missing or no YAML, or a key or a value does not fit.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"The recipe {path} can't be read ({error.strerror}); give the path of a YAML file."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"The recipe {path} is not a text file; give the path of a YAML file.") from error
    values = parse_yaml(text, f"The recipe {path}")
    if not isinstance(values, dict):
        raise UserError(f"The recipe {path} must be a mapping of keys to values, such as `model: sandbox`.")
    for assignment in overrides or []:
        apply_override(values, assignment)
    values.setdefault("name", path.stem)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(error, _known_keys(), f"The recipe {path}")) from error
    recipe.expanded()  # what is wrong with a stage is said now, not after the stages before it
    return recipe


def _known_keys() -> dict[str, list[str]]:
    return {
        "": [*(f.alias or name for name, f in Recipe.model_fields.items())],
        "data": list(Data.model_fields),
        "validate": list(Validate.model_fields),
        "validate.data": list(Data.model_fields),
        "probe": list(ProbeSettings.model_fields),
    }


def build_method(recipe: Recipe) -> Any:
    """Return the method of a recipe, or None.

    Raises:
        UserError: an argument that the method does not have, or a value that it refuses.
    """
    if recipe.method == "none":
        if recipe.method_args:
            raise UserError(
                f"method_args = {short(recipe.method_args)} has no effect with method: none; name a method."
            )
        return None
    from entropilot.methods import METHODS
    from entropilot.methods.entropy_min import EntropyMin

    kind: Any = EntropyMin if recipe.method == "entropy_min" else METHODS[recipe.method]
    names, hints = [field.name for field in fields(kind)], get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in recipe.method_args.items():
        if name not in names:
            raise UserError(
                f"method_args.{name} does not exist for {recipe.method}; it has: {', '.join(names)}."
            )
        try:
            values[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise UserError(
                f"method_args.{name} = {short(value)} does not fit ({reason}); change this value."
            ) from error
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
