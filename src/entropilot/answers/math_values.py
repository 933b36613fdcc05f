"""Answers that need no algebra: exact rationals, and the lists, tuples, sets and intervals that are made of parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

_DIGITS = 400  # a longer number is text: its arithmetic is what a hostile answer would ask for
_EXPONENT = 400
_SIGNIFICANT = 6
_UNSIGNED = rf"(?:\d{{1,{_DIGITS}}}(?:\.\d{{0,{_DIGITS}}})?)"
_DECIMAL = re.compile(
    rf"([+-]?)({_UNSIGNED})(?:[eE]([+-]?\d{{1,4}})|(?:\\times|\\cdot|\*)10\^(?:\{{([+-]?\d{{1,4}})\}}|([+-]?\d)))?"
)
_QUOTIENT = re.compile(
    rf"([+-]?)(?:({_UNSIGNED})/({_UNSIGNED})|(\d{{0,{_DIGITS}}})\\frac\{{([+-]?)({_UNSIGNED})\}}\{{([+-]?)({_UNSIGNED})\}})"
)
_POWER = re.compile(r"([+-]?)(\d{1,6})\^(?:\{([+-]?\d{1,4})\}|(\d))")
_DEEPEST = 8


@dataclass(frozen=True)
class Value:
    """An exact rational. `places`: the decimals that it was written with; None for integers and fractions."""

    exact: Fraction
    places: int | None = None

    def equals(self, other: Value) -> bool:
        """Equal as numbers, or one is the other rounded: a decimal of six or more significant digits, to its last place.

        0.333333 equals 1/3, and 0.33 does not.
        """
        return self.exact == other.exact or self._rounds(other.exact) or other._rounds(self.exact)

    def rounds_to(self, point: list[str] | None) -> bool:
        """Whether this decimal is the rounded form of a value [real, imaginary], by the same rule."""
        if point is None or point[1] != "0" or not point[0].lstrip("-")[:1].isdigit():
            return False
        if abs(Decimal(point[0]).adjusted()) > _EXPONENT:
            return False
        return self._rounds(Fraction(point[0]))

    def _rounds(self, exact: Fraction) -> bool:
        if self.places is None or abs(self.exact) * 10 ** max(self.places, 0) < 10 ** (_SIGNIFICANT - 1):
            return False
        return abs(self.exact - exact) * 2 * Fraction(10) ** self.places <= 1


def rational(body: str) -> Value | None:
    r"""The value of an integer, a decimal, 4.5e33, 4.5 \times 10^{33}, a/b, \frac{a}{b}, 1\frac{4}{5} or 2^{10}."""
    decimal = _DECIMAL.fullmatch(body)
    if decimal:
        sign, digits, *exponents = decimal.groups()
        exponent = int(next((e for e in exponents if e is not None), "0"))
        if abs(exponent) > _EXPONENT:
            return None
        exact = Fraction(digits.rstrip(".")) * Fraction(10) ** exponent
        places = len(digits.partition(".")[2]) - exponent if "." in digits else None
        return Value(-exact if sign == "-" else exact, places)
    quotient = _QUOTIENT.fullmatch(body)
    if quotient:
        sign, top, bottom, whole, top_sign, over, bottom_sign, under = quotient.groups()
        above, below = Fraction((top or over).rstrip(".")), Fraction((bottom or under).rstrip("."))
        if below == 0 or (whole and (top_sign or bottom_sign)):
            return None
        exact = above / below * (-1 if (top_sign == "-") != (bottom_sign == "-") else 1) + int(whole or 0)
        return Value(-exact if sign == "-" else exact)
    power = _POWER.fullmatch(body)
    if power:
        sign, base, long, short = power.groups()
        exponent = int(long or short)
        if abs(exponent) > 1000 or (base.strip("0") == "" and exponent <= 0):
            return None
        exact = Fraction(int(base)) ** exponent
        return Value(-exact if sign == "-" else exact)
    return None


@dataclass(frozen=True)
class Parts:
    """An answer that is made of answers.

    Attributes:
        kind: "list" (a, b), "set" {a, b}, "union" (a ∪ b), or its brackets: "()", "[]", "(]", "[)", or "matrix r c".
        items: its members, each a `Parts` or the text of a leaf.
    """

    kind: str
    items: tuple[Parts | str, ...]

    @property
    def ordered(self) -> bool:
        return self.kind not in ("list", "set", "union")


_OPENING = {"(": "(", "[": "[", "\\{": "{", "{": "{"}
_MATRIX = re.compile(r"\\begin\{([bpvBV]?matrix|array)\}(?:\{[lcr|]{1,20}\})?(.*)\\end\{\1\}", re.DOTALL)
_PM = re.compile(r"\\pm(?![a-zA-Z])|\\mp(?![a-zA-Z])")


def parts(body: str, depth: int = 0) -> Parts | str:
    r"""Take lists, tuples, sets, intervals, unions, matrices and a \pm b apart; anything else is a leaf."""
    if depth >= _DEEPEST:
        return body
    for separators, kind in (((",", ";"), "list"), (("\\cup",), "union")):
        pieces = _split(body, separators)
        if pieces is None:
            return body  # brackets that do not match
        if len(pieces) > 1 and all(pieces):
            members = [parts(piece, depth + 1) for piece in pieces]
            return Parts(kind, tuple(_flat(members, kind)))
    matrix = _MATRIX.fullmatch(body)
    if matrix:
        rows = [row.split("&") for row in re.split(r"\\\\", matrix.group(2).strip().removesuffix("\\\\"))]
        return Parts(
            f"matrix {len(rows)} {len(rows[0])}",
            tuple(parts(cell.strip(), depth + 1) for row in rows for cell in row),
        )
    opening, closing = _brackets(body)
    if opening:
        inside = body[len(opening) : -len(closing)]
        pieces = _split(inside, (",", ";"))
        if pieces and (len(pieces) > 1 or opening == "\\{") and all(pieces):
            kind = "set" if opening == "\\{" else opening + closing
            members = [parts(piece, depth + 1) for piece in pieces]
            return Parts(kind, tuple(_flat(members, kind)))
        if pieces and len(pieces) == 1 and opening == "(" and closing == ")":
            return parts(inside, depth + 1)
    signs = _PM.findall(body)
    if len(signs) == 1 and signs[0] == "\\pm":
        before, _, after = body.partition("\\pm")
        plus = f"{before}+{after}" if before else after
        return Parts("list", (plus, f"{before}-{after}"))
    return body


def _flat(members: list[Parts | str], kind: str) -> list[Parts | str]:
    # A list inside a list or set is a \pm: {1 ± √5, −2} has three members.
    if kind not in ("list", "set"):
        return members
    return [
        inner
        for member in members
        for inner in (member.items if isinstance(member, Parts) and member.kind == "list" else (member,))
    ]


def _brackets(body: str) -> tuple[str, str]:
    """The outermost brackets, where one pair encloses all of the body; else two empty strings."""
    opening = next((mark for mark in ("\\{", "(", "[") if body.startswith(mark)), "")
    closing = next((mark for mark in ("\\}", ")", "]") if body.endswith(mark)), "")
    if not opening or not closing or len(body) <= len(opening) + len(closing):
        return "", ""
    if (opening == "\\{") != (closing == "\\}"):
        return "", ""
    depth = 0
    at = 0
    while at < len(body):
        depth += _step(body, at)
        at += 2 if body[at] == "\\" else 1
        if depth == 0 and at < len(body):
            return "", ""
    return (opening, closing) if depth == 0 else ("", "")


def _step(body: str, at: int) -> int:
    mark = body[at : at + 2] if body[at] == "\\" else body[at]
    return 1 if mark in ("(", "[", "{", "\\{") else -1 if mark in (")", "]", "}", "\\}") else 0


def _split(body: str, separators: tuple[str, ...]) -> list[str] | None:
    """Split outside of brackets; None where brackets do not match (half-open intervals may)."""
    pieces, begin, depth, at, inside = [], 0, 0, 0, 0
    while at < len(body):
        if body.startswith("\\begin{", at):
            inside += 1
        elif body.startswith("\\end{", at):
            inside -= 1
        depth += _step(body, at)
        if depth < 0:
            return None
        found = (
            depth == 0
            and inside == 0
            and next((mark for mark in separators if body.startswith(mark, at)), "")
        )
        if found:
            pieces.append(body[begin:at])
            at = begin = at + len(found)
            continue
        at += 2 if body[at] == "\\" else 1
    return None if depth else [*pieces, body[begin:]]
