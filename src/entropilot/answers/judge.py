"""Define the protocol that every judge of equivalence follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

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
