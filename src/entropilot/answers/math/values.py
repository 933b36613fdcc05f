"""Answers that need no algebra: exact rationals, and the lists, tuples, sets and intervals that are made of parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import cast

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
_NAMED = re.compile(r"([A-Za-z](?:_\{?\w{1,4}\}?)?(?:\([a-z]\))?)=([^=]+)")
# Remainders of exact values: drawn once at random, so that no expression that people write is 0 modulo it by design.
PRIME = 0x83AA3897FCF4C6B6186C39E8C7BB69F6E2A214E8BBE9C6751D52490575FFC53D
_WORKING = Context(prec=60, Emax=10**17, Emin=-(10**17), traps=[])


def modular(numerator: int, denominator: int) -> int | None:
    """Return a rational modulo the prime; None where the prime divides its denominator."""
    bottom = denominator % PRIME
    return numerator % PRIME * pow(bottom, -1, PRIME) % PRIME if bottom else None


def number(text: str) -> Decimal:
    """Return a decimal of any size; what none can hold is NaN. Never raises."""
    return _WORKING.create_decimal(text)


def quotient(top: str, bottom: str) -> Decimal:
    """Return the quotient of two decimals to 60 digits. Never raises."""
    return _WORKING.divide(number(top), number(bottom))


def near(one: list[str], other: list[str], digits: int) -> bool:
    """Return whether two values [real, imaginary] agree to that many digits of the larger one. Never raises."""
    a, b = ([number(part) for part in point] for point in (one, other))
    parts_ = (*a, *b)
    if any(part.is_nan() for part in parts_):
        return False
    if any(part.is_infinite() for part in parts_):
        return a == b
    largest = parts_[0].copy_abs()
    for part in parts_[1:]:
        largest = _WORKING.max_mag(largest, part).copy_abs()
    bound = _WORKING.scaleb(largest, -digits)
    return all(
        _WORKING.compare(_WORKING.subtract(x, y).copy_abs(), bound) <= 0 for x, y in zip(a, b, strict=True)
    )


@dataclass(frozen=True)
class Value:
    """Hold an exact rational.

    Attributes:
        exact: its value.
        places: the decimals that it was written with (negative for 1.5e9); None where it was not written as a decimal.
        literal: whether it was written in digits (12, 0.5, 1.5e3) and not as a fraction or a power.
    """

    exact: Fraction
    places: int | None = None
    literal: bool = False

    def equals(self, other: Value) -> bool:
        """Return whether both are one number, or one is a decimal and the other a fraction that it stands for.

        Two numbers in digits are compared exactly: 7.0 is 7, and 7.00000 is not 7.000001. For 0.333333 and 1/3 see
        `stands_for`.
        """
        if self.exact == other.exact:
            return True
        if self.literal and other.literal:
            return False
        return self.stands_for(other.exact) or other.stands_for(self.exact)

    def stands_for_point(self, point: list[str] | None) -> bool:
        """Return whether this decimal stands for a value [real, imaginary], by the rule of `stands_for`."""
        if self.places is None or point is None or point[1] != "0":
            return False
        value = number(point[0])
        if not value.is_finite() or abs(value.adjusted()) > _EXPONENT:
            return False
        return self.stands_for(Fraction(value))

    def stands_for(self, exact: Fraction) -> bool:
        """Return whether this is a decimal of six or more significant digits and the value rounded to its last place.

        Or cut off there, if that is within 1e-6 of it: 0.666667 and 0.666666 stand for 2/3, and 0.67 does not.
        """
        if self.places is None or abs(self.exact) * Fraction(10) ** self.places < 10 ** (_SIGNIFICANT - 1):
            return False
        ulps = abs(self.exact - exact) * Fraction(10) ** self.places
        if 2 * ulps <= 1:
            return True
        return ulps < 1 and abs(self.exact) < abs(exact) and abs(self.exact - exact) * 10**6 <= abs(exact)

    def key(self) -> str | None:
        """Return the remainder that `algebra.describe` gives for this number."""
        remainder = modular(self.exact.numerator, self.exact.denominator)
        return None if remainder is None else f"{remainder:x}"

    def point(self) -> list[str]:
        """Return the value [real, imaginary] to 60 digits."""
        top, bottom = Decimal(self.exact.numerator), Decimal(self.exact.denominator)
        return [str(_WORKING.divide(top, bottom)), "0"]


@lru_cache(maxsize=20_000)
def rational(body: str) -> Value | None:
    r"""Return the value of an integer, a decimal, 4.5e33, 4.5 \times 10^{33}, a/b, \frac{a}{b}, 1\frac{4}{5} or 2^{10}."""
    decimal = _DECIMAL.fullmatch(body)
    if decimal:
        sign, digits, *exponents = decimal.groups()
        exponent = int(next((e for e in exponents if e is not None), "0"))
        if abs(exponent) > _EXPONENT:
            return None
        exact = Fraction(digits.rstrip(".")) * Fraction(10) ** exponent
        places = len(digits.partition(".")[2]) - exponent if "." in digits else None
        return Value(-exact if sign == "-" else exact, places, literal=True)
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
    """Hold an answer that is made of answers.

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
_MATRIX = re.compile(r"\\begin\{([bpB]?matrix|array)\}(?:\{[lcr|]{1,20}\})?(.*)\\end\{\1\}", re.DOTALL)
_PIECES = re.compile(r"\\begin\{cases\}(.*)\\end\{cases\}", re.DOTALL)
_PM = re.compile(r"\\pm(?![a-zA-Z])|\\mp(?![a-zA-Z])")


@lru_cache(maxsize=20_000)
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
            return _named(Parts(kind, tuple(_flat(members, kind))))
    matrix = _MATRIX.fullmatch(body)
    if matrix:
        rows = [row.split("&") for row in re.split(r"\\\\", matrix.group(2).strip().removesuffix("\\\\"))]
        return Parts(
            f"matrix {len(rows)} {len(rows[0])}",
            tuple(parts(cell.strip(), depth + 1) for row in rows for cell in row),
        )
    pieces = _PIECES.fullmatch(body)
    if pieces and "&" in body:  # its rows in any order
        cells = [row.split("&") for row in pieces.group(1).split("\\\\")]
        rows = [Parts("()", tuple(parts(cell.strip(), depth + 1) for cell in row)) for row in cells]
        return Parts("set", tuple(rows))
    opening, closing = _brackets(body)
    if opening:
        inside = body[len(opening) : -len(closing)]
        pieces = _split(inside, (",", ";"))
        if pieces and (len(pieces) > 1 or opening == "\\{") and all(pieces):
            kind = "set" if opening == "\\{" else opening + closing
            members = [parts(piece, depth + 1) for piece in pieces]
            items = tuple(_flat(members, kind))
            if kind == "[]" and all(isinstance(item, Parts) and item.kind == "[]" for item in items):
                rows = [item.items for item in items if isinstance(item, Parts)]  # [[1,2],[3,4]]
                if len({len(row) for row in rows}) == 1:
                    return Parts(
                        f"matrix {len(rows)} {len(rows[0])}", tuple(cell for row in rows for cell in row)
                    )
            choice = [at for at, item in enumerate(items) if isinstance(item, Parts) and item.kind == "list"]
            if kind == "()" and len(choice) == 1:  # (0, ±3) is two points
                at = choice[0]
                both = cast(Parts, items[at]).items
                return Parts("list", tuple(Parts(kind, (*items[:at], one, *items[at + 1 :])) for one in both))
            return Parts(kind, tuple(dict.fromkeys(items)) if kind == "set" else items)
        if pieces and len(pieces) == 1 and opening == "(" and closing == ")":
            return parts(inside, depth + 1)
    signs = _PM.findall(body)
    if len(signs) == 1 and signs[0] == "\\pm":
        before, _, after = body.partition("\\pm")
        plus = f"{before}+{after}" if before else after
        return Parts("list", (plus, f"{before}-{after}"))
    return body


def _named(listed: Parts) -> Parts:
    """Read "y=4, x=3" as the tuple (3, 4), by name; "x=1, x=2" and "x_1=1, x_2=2" as the list of both values."""
    matches = [_NAMED.fullmatch(item) if isinstance(item, str) else None for item in listed.items]
    if listed.kind != "list" or not all(matches):
        return listed
    named = [(match.group(1), match.group(2)) for match in matches if match]
    bases = {name.partition("_")[0] for name, _ in named}
    if len(bases) == 1:
        return Parts("list", tuple(value for _, value in named))
    if len(bases) < len(named):
        return listed
    return Parts("()", tuple(value for _, value in sorted(named)))


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
