"""Recipes of `entropilot control`: YAML, checked as a whole before anything is collected."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from entropilot.errors import UserError
from entropilot.recipes.yaml_files import apply_override, parse_yaml, short

Model = TypeVar("Model", bound=BaseModel)


class TrainRecipe(BaseModel):
    """What `control train` takes: a task, the files of collect and label, and the settings of `train.TrainSettings`."""

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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The recipe {path} can't be read; give the path of a YAML file.") from error
    values = parse_yaml(text, f"The recipe {path}")
    if not isinstance(values, dict):
        raise UserError(
            f"The recipe {path} must be a mapping of keys to values, such as `task: drawer-open`."
        )
    for assignment in overrides or []:
        apply_override(values, assignment)
    values.setdefault("name", path.stem)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found = error.errors()
        # A key that does not exist is why another is missing.
        first = next((item for item in found if item["type"] == "extra_forbidden"), found[0])
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            reason = f"the key {place!r} does not exist; the keys here are: {', '.join(kind.model_fields)}."
        elif first["type"] == "missing":
            reason = f"the key {place!r} is missing; write it."
        else:
            reason = f"{place} = {short(first.get('input'))} does not fit ({first['msg'].lower()}); change this value."
        raise UserError(f"The recipe {path}: {reason}") from error
