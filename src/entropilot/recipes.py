"""A recipe: one YAML file that says what is trained on what, checked before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from entropilot.errors import UserError


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


class Validate(_Strict):
    """Held-out accuracy during training; `every` counts rollouts."""

    every: int = Field(default=1, ge=1)
    problems: int = Field(default=128, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    samples: int = Field(default=1, ge=1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    batch_size: int = Field(default=256, ge=1)
    seed: int = 0
    data: Data | None = None  # default: the training source's validation split

    @field_validator("data", mode="before")
    @classmethod
    def _short_data(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


class ProbeSettings(_Strict):
    """What is recorded beside the scalars."""

    tokens_every: int = Field(default=50, ge=0)  # optimiser steps between token samples; 0 takes none
    tokens_rows: int = Field(default=16, ge=1)
    entropy_every: int = Field(default=1, ge=1)  # rollouts, where training is not at T = 1


class Recipe(_Strict):
    """What `entropilot train` takes. `grpo` holds any field of TRL's `GRPOConfig`."""

    name: str = "run"
    model: str = "sandbox"
    data: Data = Data()
    reward: str | list[str] = "sandbox"
    method: Literal["none", "clip_cov", "kl_cov"] = "none"
    method_args: dict[str, Any] = {}
    advantage_estimator: Literal["grpo", "rloo", "reinforce++", "reinforce++_baseline"] = "grpo"
    lora: dict[str, Any] | None = None  # fields of peft's LoraConfig
    grpo: dict[str, Any] = {}
    # Not `validate`: that name is taken by pydantic; the YAML key is `validate`.
    validation: Validate | None = Field(default=None, alias="validate")
    probe: ProbeSettings = ProbeSettings()
    seed: int = 0

    @field_validator("data", mode="before")
    @classmethod
    def _short_data(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @property
    def tier(self) -> str | None:
        """The sandbox tier of the data, None where they come from elsewhere."""
        kind, _, tier = self.data.source.partition(":")
        return (tier or "chains") if kind == "sandbox" else None

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as plain data, every default filled in."""
        return self.model_dump(by_alias=True)


class _Loader(yaml.SafeLoader):
    """YAML that reads `1e-6` as a number; PyYAML's 1.1 rules want a dot in it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # _Loader is a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        raise UserError(
            f"{where} is not readable as YAML{place}; check indentation, colons and quotes."
        ) from error


def _override(values: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise UserError(
            f"The override {assignment!r} is not of the form key=value; write for example grpo.max_steps=20."
        )
    *path, last = key.split(".")
    here = values
    for part in path:
        nested = here.get(part)
        if nested is None or isinstance(nested, str) and part == "data":
            nested = here[part] = {} if nested is None else {"source": nested}
        if not isinstance(nested, dict):
            raise UserError(
                f"The override {assignment!r} goes into {part!r}, which holds a value, not a section."
            )
        here = nested
    here[last] = _parse_yaml(text, f"The value of the override {assignment!r}")


def _sentence(error: ValidationError, known: dict[str, list[str]], where: str) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        section = ".".join(str(part) for part in first["loc"][:-1])
        names = known.get(section) or []
        return f"{where}: the key {place!r} does not exist; the keys here are: {', '.join(names)}."
    return (
        f"{where}: {place} = {first.get('input')!r} does not fit ({first['msg'].lower()}); change this value."
    )


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
    values = _parse_yaml(text, f"The recipe {path}") or {}
    if not isinstance(values, dict):
        raise UserError(f"The recipe {path} must be a mapping of keys to values, such as `model: sandbox`.")
    for assignment in overrides or []:
        _override(values, assignment)
    values.setdefault("name", path.stem)
    known = {
        "": [*(f.alias or name for name, f in Recipe.model_fields.items())],
        "data": list(Data.model_fields),
        "validate": list(Validate.model_fields),
        "validate.data": list(Data.model_fields),
        "probe": list(ProbeSettings.model_fields),
    }
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(error, known, f"The recipe {path}")) from error


def build_method(recipe: Recipe) -> Any:
    """Return the method of a recipe, or None.

    Raises:
        UserError: an argument that the method does not have, or a value that it refuses.
    """
    if recipe.method == "none":
        if recipe.method_args:
            raise UserError(
                f"method_args = {recipe.method_args} has no effect with method: none; name a method."
            )
        return None
    from entropilot.methods import METHODS

    kind = METHODS[recipe.method]
    names = [field.name for field in fields(kind)]
    for name, value in recipe.method_args.items():
        if name not in names:
            raise UserError(
                f"method_args.{name} does not exist for {recipe.method}; it has: {', '.join(names)}."
            )
        texts = name == "scope"
        if isinstance(value, str) != texts and value is not None:
            raise UserError(
                f"method_args.{name} = {value!r} does not fit; give {'a name' if texts else 'a number'}."
            )
    try:
        return kind(**recipe.method_args)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
