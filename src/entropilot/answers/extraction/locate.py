"""Find where in a completion the answer stands that an extraction rule took."""

from __future__ import annotations

import re
from collections.abc import Callable

from entropilot.answers.extraction.extract import extract, own_parts, without_copy

Span = tuple[int, int]
_PIECE = re.compile(r"[^\W_]+")
MOST = 200  # occurrences that are tried, from the last one back


def locate(text: str, rule: str | Callable[[str], str | None] = "auto") -> list[Span] | None:
    r"""Return the character spans [start, end) of the occurrence that the rule used as the answer, in order.

    An occurrence is the one that was used if another value written in its place is what the rule then returns. So the
    rule may be any function, and no other mention of the same value is taken for it. An answer that is put together
    from several places (the sign before a box, two boxes joined by "and") has one span for each of its pieces.
    The box, the marker and the end token are not part of it.

    >>> text = "5 + 0 = 5, so \\boxed{5}."
    >>> locate(text), text[21:22]
    ([(21, 22)], '5')

    Args:
        text: the completion.
        rule: the name of a rule of `entropilot.answers.extraction.extract`, or a function of the text.

    Returns:
        The spans; an empty list where the rule finds no answer; None where there is one that can't be located.
    """
    take = rule if callable(rule) else lambda t: extract(t, rule)
    answer = take(text)
    if answer is None or not answer.strip():
        return []
    answer = answer.strip()
    whole = _used(text, answer, answer, take)
    if whole is not None:
        return [whole]
    spans = []
    for piece in _PIECE.finditer(answer):
        span = _used(text, piece.group(), answer, take, piece.span())
        if span is None:
            return None
        spans.append(span)
    return sorted(set(spans)) or None


def locate_own(
    text: str, question: str, rule: str | Callable[[str], str | None] = "auto"
) -> list[Span] | None:
    """Return the spans as `locate` does, of an answer that the rule finds outside of verbatim copies of the question."""
    places = locate(without_copy(text, question), rule)
    if not places:
        return places
    found, before = (
        [],
        0,
    )  # `before`: where a part begins in the text without copies, one space behind the last
    for start, end in own_parts(text, question):
        parts = ((max(first, before), min(last, before + end - start)) for first, last in places)
        found += [(first - before + start, last - before + start) for first, last in parts if first < last]
        before += end - start + 1
    return found


def _used(
    text: str, piece: str, answer: str, take: Callable[[str], str | None], place: Span | None = None
) -> Span | None:
    """Return the last occurrence of a piece of the answer that the rule's result depends on."""
    begin, end = place or (0, len(answer))
    start = len(text)
    for _ in range(MOST):
        start = text.rfind(piece, 0, start + len(piece) - 1) if start else -1
        if start < 0:
            return None
        for other in _others(piece):
            taken = take(text[:start] + other + text[start + len(piece) :])
            if taken is not None and taken.strip() == answer[:begin] + other + answer[end:]:
                return start, start + len(piece)
    return None


def _others(piece: str) -> list[str]:
    """Return other values of the same form: of the same kind and length, so that a rule reads them alike."""
    up, down = ("".join(_turned(char, by, digits_only=False) for char in piece) for by in (1, -1))
    digits = "".join(_turned(char, 1, digits_only=True) for char in piece)
    found = dict.fromkeys((digits, up, down, piece.swapcase(), "7" * len(piece)))
    return [other for other in found if other != piece]


def _turned(char: str, by: int, *, digits_only: bool) -> str:
    """Return the next digit or letter of the same case; what is neither stays. A 9 becomes a 1, so that no zero leads."""
    if char.isascii() and char.isdigit():
        return str((int(char) - 1 + by) % 9 + 1)
    if digits_only or not (char.isascii() and char.isalpha()):
        return char
    first = ord("a" if char.islower() else "A")
    return chr((ord(char) - first + by) % 26 + first)
