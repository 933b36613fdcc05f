"""Recipes of `entropilot control`: YAML, checked as a whole before anything is collected."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from entropilot.errors import UserError
from entropilot.recipes.values import sentence
from entropilot.recipes.yaml_files import read_values

Model = TypeVar("Model", bound=BaseModel)


class TrainRecipe(BaseModel):
    """Hold what `control train` takes: a task, the files of collect and label, and the training settings.

    Attributes:
        name: name of the run.
        task: MetaWorld task that the policy is measured on, such as drawer-open.
        data: file of `control collect`.
        pairs: file of `control label`; null for sft, which needs none.
        train: see below.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = "control"
    task: str
    data: str
    pairs: str | None = None
    train: dict[str, Any] = Field(default_factory=dict)


def load(path: Path, kind: type[Model], overrides: list[str] | None = None) -> Model:
    """Read a recipe and apply `key=value` overrides; dotted keys reach into sections.

    Raises:
        UserError: the file is missing or no YAML, or a key or a value does not fit.
    """
    values = read_values(path, overrides, example="task: drawer-open")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        keys = {"": list(kind.model_fields)}
        raise UserError(sentence(error, f"The recipe {path}", keys)) from error
