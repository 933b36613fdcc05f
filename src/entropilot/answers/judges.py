"""Do two answers mean the same? One protocol, and the judges behind their names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature
from typing import Any, cast

from entropilot.answers.judge import Judge, Pairs, Questions
from entropilot.answers.normalise import Normal, normalise
from entropilot.dotted import load_named
from entropilot.errors import UserError

# A judge is one line here: its name, and the class that follows `Judge`. Its options are those of the class.
JUDGES = {
    "exact": "entropilot.answers.judges:Exact",
    "math": "entropilot.answers.math.judge:Math",
    "entailment": "entropilot.answers.model_judges:Entailment",
    "embedding": "entropilot.answers.model_judges:Embedding",
    "verifier": "entropilot.answers.model_judges:Verifier",
}
NAMES = tuple(JUDGES)
GROUP = "entropilot.judges"  # the entry points by which other packages add judges


class Exact:
    """Judge by the same string after normalisation (`normalise.py`); nothing is computed, so that 1/2 differs from 0.5."""

    name = "exact"

    def equivalent(self, pairs: Pairs, questions: Questions | None = None) -> list[bool]:
        """Judge each pair by its text alone; `questions` is not read."""
        return [a == b or self._same(normalise(a), normalise(b)) for a, b in pairs]

    @staticmethod
    def _same(one: Normal, other: Normal) -> bool:
        return one.body == other.body and one.body != "" and one.meets(other)


class Function:
    """Judge by a function of one's own, f(a, b, question) -> bool, asked pair by pair. Its exceptions are not caught."""

    def __init__(self, function: Callable[[str, str, str | None], bool], name: str = "callable") -> None:
        self.function = function
        self.name = name

    def equivalent(self, pairs: Pairs, questions: Questions | None = None) -> list[bool]:
        """Ask the function about each pair in turn."""
        asked = questions if questions is not None else [None] * len(pairs)
        return [bool(self.function(a, b, q)) for (a, b), q in zip(pairs, asked, strict=True)]


def build_judge(name: str, **options: Any) -> Judge:
    """Build a judge by its name, or by the dotted path of its class or of a function f(a, b, question) -> bool.

    Args:
        name: exact, math, entailment, embedding, verifier; an entry point of the group `entropilot.judges`; or a path
            as in package.module.Class or package.module.function.
        options: what the judge's class takes; see the class.

    Raises:
        UserError: no such name, path or option, or an extra that the judge needs is not installed.
    """
    kind = _kind(name)
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
    known = signature(_kind(name)).parameters
    for option in options:
        if option not in known:
            raise UserError(f"The judge {name!r} has no option {option!r}; take it out.")


def _kind(name: str) -> Callable[..., Judge]:
    """Return what builds the judge of that name: a class, or a function's wrapper."""
    if name in JUDGES:
        module, _, attribute = JUDGES[name].partition(":")
        return getattr(import_module(module), attribute)
    for entry in entry_points(group=GROUP, name=name):
        try:
            return _checked(entry.load(), name)
        except ImportError as error:
            raise UserError(
                f"The judge {name!r} cannot be loaded ({error}); reinstall its package."
            ) from error
    if "." not in name.strip("."):
        raise UserError(
            f"There is no judge named {name!r}; choose one of {', '.join(NAMES)}, "
            "or give the dotted path of a judge class or of a function f(a, b, question)."
        )
    module, _, attribute = name.rpartition(".")
    try:
        found = load_named(module, attribute)
    except ImportError as error:
        raise UserError(
            f"The judge {name!r} cannot be loaded ({error}); give package.module.Class or package.module.function, "
            "installed or in the current folder."
        ) from error
    return _checked(found, name)


def _checked(thing: Any, name: str) -> Callable[..., Judge]:
    if isinstance(thing, type):
        if not callable(getattr(thing, "equivalent", None)):
            raise UserError(
                f"The class {name!r} is no judge: it has no method equivalent(pairs, questions); add one."
            )
        return cast(Callable[..., Judge], thing)
    if not callable(thing):
        raise UserError(f"The judge {name!r} is no function; name one that takes (a, b, question).")
    return lambda: Function(cast(Callable[[str, str, str | None], bool], thing), name)
