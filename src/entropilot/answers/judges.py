"""Do two answers mean the same? One protocol, and the judges behind their names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any, cast

from entropilot.answers.judge import Judge, Pairs, Questions
from entropilot.answers.normalise import Normal, normalise
from entropilot.errors import UserError

_MODEL_JUDGES = {"entailment": "Entailment", "embedding": "Embedding", "verifier": "Verifier"}
NAMES = ("exact", "math", *_MODEL_JUDGES)


class Exact:
    """The same string after normalisation (`normalise.py`); nothing is computed, so that 1/2 differs from 0.5."""

    name = "exact"

    def equivalent(self, pairs: Pairs, questions: Questions | None = None) -> list[bool]:
        """Judge each pair by its text alone; `questions` is not read."""
        return [a == b or self._same(normalise(a), normalise(b)) for a, b in pairs]

    @staticmethod
    def _same(one: Normal, other: Normal) -> bool:
        return one.body == other.body and one.body != "" and one.meets(other)


class Function:
    """A function of one's own, f(a, b, question) -> bool, asked pair by pair. Exceptions are its own affair."""

    def __init__(self, function: Callable[[str, str, str | None], bool], name: str = "callable") -> None:
        self.function = function
        self.name = name

    def equivalent(self, pairs: Pairs, questions: Questions | None = None) -> list[bool]:
        """Ask the function about each pair in turn."""
        asked = questions if questions is not None else [None] * len(pairs)
        return [bool(self.function(a, b, q)) for (a, b), q in zip(pairs, asked, strict=True)]


def build_judge(name: str, **options: Any) -> Judge:
    """A judge by its name, or by the dotted path of a function f(a, b, question) -> bool.

    Args:
        name: exact, math, entailment, embedding, verifier, or a path as in package.module.function.
        options: what the judge's class takes; see the class.

    Raises:
        UserError: no such name, path or option, or an extra that the judge needs is not installed.
    """
    if name == "exact":
        kind: Callable[..., Judge] = Exact
    elif name == "math":
        kind = import_module("entropilot.answers.math_judge").Math
    elif name in _MODEL_JUDGES:
        kind = getattr(import_module("entropilot.answers.model_judges"), _MODEL_JUDGES[name])
    elif "." in name.strip("."):
        kind = _dotted
        options = {"path": name, **options}
    else:
        raise UserError(
            f"There is no judge named {name!r}; choose one of {', '.join(NAMES)}, "
            "or give the dotted path of a function f(a, b, question)."
        )
    try:
        signature(kind).bind(**options)
    except TypeError as error:
        raise UserError(f"The judge {name!r} does not take these options: {error}.") from error
    return kind(**options)


def refuse_options(name: str, options: dict[str, Any]) -> None:
    """Refuse options that a judge does not take, without building it: no model is loaded, no worker started.

    Raises:
        UserError: as `build_judge`.
    """
    if "." in name:
        _dotted(name)  # imported: cheap, and a wrong path is said now
        known: list[str] = []
    elif name in _MODEL_JUDGES:
        kind = getattr(import_module("entropilot.answers.model_judges"), _MODEL_JUDGES[name])
        known = list(signature(kind).parameters)
    else:
        known = ["pool"] if name == "math" else []
    for option in options:
        if option not in known:
            raise UserError(f"The judge {name!r} has no option {option!r}; take it out.")


def _dotted(path: str) -> Judge:
    module, _, attribute = path.rpartition(".")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The judge {path!r} cannot be loaded ({error}); give package.module.function."
        ) from error
    if not callable(function):
        raise UserError(f"The judge {path!r} is no function; name one that takes (a, b, question).")
    return Function(cast(Callable[[str, str, str | None], bool], function), path)
