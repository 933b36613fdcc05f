"""Define the protocol that every judge of equivalence follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from entropilot.errors import UserError

Pairs = Sequence[tuple[str, str]]


Questions = Sequence[str | None]


@runtime_checkable
class Judge(Protocol):
    """Says of many pairs at once whether the two answers are equivalent.

    The verdicts come in the order of the pairs. A judge is symmetric unless its own text says otherwise; none promises
    to be transitive. `questions`, one per pair where given, is the question that both answers belong to.
    """

    name: str

    def equivalent(self, pairs: Pairs, questions: Questions | None = None) -> list[bool]: ...


def name_of(judge: Judge) -> str:
    """Return a judge's name; of a class of the user's own that gives it none, the path of the class."""
    return getattr(judge, "name", f"{type(judge).__module__}.{type(judge).__qualname__}")


def verdicts(judge: Judge, pairs: Pairs, questions: Questions | None = None) -> list[bool]:
    """Ask a judge about pairs; where there are none it is not asked.

    Raises:
        UserError: it gives more or fewer verdicts than there are pairs.
    """
    found = list(judge.equivalent(pairs, questions)) if pairs else []
    if len(found) != len(pairs):
        raise UserError(
            f"The judge {name_of(judge)!r} gave {len(found)} verdicts for {len(pairs)} pairs; let its "
            "equivalent(pairs, questions) return one bool per pair, in order."
        )
    return found


@runtime_checkable
class Orders(Protocol):
    """Say which of several answers lead a cluster first, so that clusters do not depend on the order in a group.

    A judge need not have it: then the first in the group leads, as in EMPO's code. Small comes first; of answers in the
    same place the most frequent leads, then the first.
    """

    def precedence(self, answers: Sequence[str]) -> list[Any]: ...
