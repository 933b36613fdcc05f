"""Read YAML strictly, and apply `key=value` overrides."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from entropilot.errors import UserError
from entropilot.recipes.bundled import locate


class _Loader(yaml.SafeLoader):
    """YAML that reads `1e-6` as a number (1.1 wants a dot in it), and takes neither aliases nor a key given twice.

    A few lines of aliases can stand for gigabytes, and the second of two keys would silently win.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(
                problem=f"the alias *{event.anchor}; a recipe takes none, so write the value out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {short(key.value)} is there twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def read_values(path: Path, overrides: list[str] | None = None, *, example: str) -> dict[str, Any]:
    """Read a recipe file and apply `key=value` overrides; its name is the file's where it has none.

    Args:
        path: of the YAML file, or the name of a recipe of the package.
        overrides: dotted keys reach into sections.
        example: a line that such a file may hold, for the error.

    Raises:
        UserError: the file is missing, no YAML or no mapping, or an override does not fit.
    """
    path = locate(path)
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
        raise UserError(f"The recipe {path} must be a mapping of keys to values, such as `{example}`.")
    for assignment in overrides or []:
        apply_override(values, assignment)
    values.setdefault("name", path.stem)
    return values


def parse_yaml(text: str, where: str) -> Any:
    """Return what a YAML text holds; numbers such as 1e-6 are numbers, aliases and repeated keys are refused.

    Raises:
        UserError: it is no YAML; `where` names it.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # _Loader is a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        said = ": ".join(
            text
            for text in (f"line {mark.line + 1}" if mark else "", short(problem, str) if problem else "")
            if text
        )
        raise UserError(
            f"{where} is not readable as YAML{f' ({said})' if said else ''}; check indentation, colons and quotes."
        ) from error


def short(value: Any, as_text: Callable[[Any], str] = repr) -> str:
    """Return a value for a sentence, on one line and not too long."""
    text = " ".join(as_text(value).split())
    return text if len(text) <= 120 else f"{text[:119]}…"


def apply_override(values: dict[str, Any], assignment: str) -> None:
    """Put a `key=value` with dotted keys into the values of a recipe.

    Raises:
        UserError: it is of another form, or goes into what is no section.
    """
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
    here[last] = parse_yaml(text, f"The value of the override {assignment!r}")
