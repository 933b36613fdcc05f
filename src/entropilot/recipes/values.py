"""Check plain values against types, and say in one sentence what does not fit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from entropilot.errors import UserError
from entropilot.recipes.yaml_files import short


def sentence(
    error: ValidationError, where: str, keys: Mapping[str, Sequence[str]], sections: Sequence[str] = ()
) -> str:
    """Say in one sentence why a file's values don't fit their model.

    Args:
        error: of pydantic.
        where: what the sentence is about: `The recipe x.yaml`.
        keys: the keys that each section has, by its dotted name; "" is the top.
        sections: the sections in whose `keys` a key that is in the wrong place is looked for, the likeliest first.
    """
    errors = error.errors()
    # A key that does not exist is often why another one is missing.
    first = next((item for item in errors if item["type"] == "extra_forbidden"), errors[0])
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        section, _, key = place.rpartition(".")
        here = list(keys.get(section, ()))
        hint = did_you_mean(key, here, {name: keys[name] for name in sections if name != section}, section)
        return f"{where}: the key {place!r} does not exist{hint}; the keys here are: {', '.join(here)}."
    if first["type"] == "missing":
        return f"{where}: the key {place!r} is missing; write it."
    own = (first.get("ctx") or {}).get("error")
    if isinstance(own, UserError):  # a sentence already
        return str(own)
    return (
        f"{where}: {place} = {short(first.get('input'))} does not fit ({reason(first)}); change this value."
    )


def did_you_mean(
    key: str, here: Sequence[str], elsewhere: Mapping[str, Sequence[str]] | None = None, section: str = ""
) -> str:
    """Return ` (did you mean grpo.max_steps?)` for a misspelt or misplaced key; empty where nothing is close."""
    known = [f"{name}.{key}" for name, keys in (elsewhere or {}).items() if key in keys]
    before = f"{section}." if section else ""
    close = known or [before + name for name in difflib.get_close_matches(key, here, n=1)]
    if not close:
        close = [
            f"{name}.{match}"
            for name, keys in (elsewhere or {}).items()
            for match in difflib.get_close_matches(key, keys, n=1, cutoff=0.8)
        ][:2]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def reason(item: Mapping[str, Any]) -> str:
    """Return pydantic's reason for one error, in words that need no Python."""
    text = item["msg"].removeprefix("Value error, ")
    text = re.sub(r"a valid dictionary( or instance of \w+)?", "a section of keys and values", text)
    return text[:1].lower() + text[1:]


def fit(value: Any, hint: Any, name: str) -> Any:
    """Return a value as its type, such as the text "3" as the number 3.

    Raises:
        UserError: it does not fit; `name` is what the user typed: `grpo.max_steps`.
    """
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        own = (first.get("ctx") or {}).get("error")
        if isinstance(own, UserError):
            raise own from error
        raise UserError(
            f"{name} = {short(value)} does not fit ({reason(first)}); change this value."
        ) from error


def fit_fields(kind: Any, values: Mapping[str, Any], section: str, owner: str) -> dict[str, Any]:
    """Return a section's values as the types of a dataclass's fields.

    Args:
        kind: the dataclass.
        values: of the section.
        section: what the user typed before the dot: `method_args`.
        owner: whose section it is: `kl_cov`.

    Raises:
        UserError: a field that does not exist, or a value that does not fit.
    """
    names, hints = [item.name for item in fields(kind) if item.init], get_type_hints(kind)
    for name in values:
        if name not in names:
            has = f"it has: {', '.join(names)}" if names else "it takes none"
            raise UserError(
                f"{section}.{name} does not exist for {owner}{did_you_mean(name, names, section=section)}; {has}."
            )
    return {name: fit(value, hints[name], f"{section}.{name}") for name, value in values.items()}
