"""Decide whether two answers are equal from what is known of their parts, or say what a worker must be asked first."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from entropilot.answers.math.values import Parts, Value, near, number, parts, quotient, rational
from entropilot.answers.normalise import LONGEST, Normal, normalise

_SAME = 34  # of 40 digits that agree: one value, unless a closer look at the difference says otherwise
_WORD = re.compile(r"[a-z]{4,}(?:[ -][a-z]+)*|[A-J]")
_TEXT = re.compile(r"(?<![\\a-zA-Z{_])[A-Za-z]{4,}")
_LETTERS = re.compile(
    r"[A-Z]{2,12}|(?:no|on|is|or|of|to|if|yes|not|odd|may|any|all|two|one|non|own|now|won|saw|was|god|dog)"
)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?")
COMMA = re.compile(r"-?\d+,\d+")
_POINT = re.compile(r"-?\d+\.\d+")
CONDITION = re.compile(
    r"[<>]|\\(?:le|ge|leq|geq|leqslant|geqslant|lt|gt|neq?|setminus)(?![a-zA-Z])|\\mathbb\{?R|^all reals?(?: numbers?)?$"
)
RELATES = re.compile(
    r"[<>=]|\\(?:le|ge|leq|geq|leqslant|geqslant|lt|gt|neq?|in|cup|cap|setminus|mid)(?![a-zA-Z])|\bor\b"
)

Request = tuple[str, ...]  # ("describe", body), ("decide", a, b) or ("compare", a, b)


class Waiting(NamedTuple):
    """Hold what a comparison needs to know before it can go on."""

    requests: tuple[Request, ...]


@dataclass
class Known:
    """Hold what workers have replied, for good and in this call.

    Attributes:
        replies: by request, shared by all calls of a judge.
        failed: requests that failed in this call for lack of time: not known, and not asked again in this call.
        consulted: whether the comparison at hand met one of them, so that its verdict must not be kept.
    """

    replies: OrderedDict[Request, Any]
    failed: set[Request] = field(default_factory=set)
    consulted: bool = False

    def get(self, *request: str) -> Any:
        """Return the reply to a request; None where it is not known yet, and `{}` or False where it failed."""
        try:
            reply = self.replies[request]
            self.replies.move_to_end(request)
            return reply
        except KeyError:  # also where another thread has just taken it out
            pass
        if request in self.failed:
            self.consulted = True
            return {"kind": "unreadable"} if request[0] in ("describe", "solve") else False
        return None

    def about(self, verb: str, a: str, b: str) -> bool | Waiting:
        """Return the reply to a request about a pair, in either order."""
        first, second = min(a, b), max(a, b)
        reply = self.get(verb, first, second)
        return Waiting(((verb, first, second),)) if reply is None else bool(reply)


def equal(a: str, b: str, in_percent: bool, known: Known) -> bool | Waiting:
    """Compare two answers; never raises on what they hold."""
    if a == b:
        return True
    if len(a) > LONGEST or len(b) > LONGEST:
        return False
    one, other = percent(normalise(a), in_percent), percent(normalise(b), in_percent)
    for side, rival in ((one, other), (other, one)):
        if side.option is not None and (rival.body == side.option or rival.option == side.option):
            return True  # "(B) 12" is B
    if not one.meets(other):
        return False
    if not one.body or not other.body:
        return False
    if one.body == other.body:
        return True
    for side, rival in ((one, other), (other, one)):
        if side.listed and _is_list(rival.body):
            return _trees(*_both(side.listed, rival.body), known)
        if side.listed and rational(rival.body) is not None and side.body.startswith("("):
            return _trees(*_both(side.listed.replace(",", ""), rival.body), known)
        # A decimal comma, where the other side shows that it is one.
        if COMMA.fullmatch(side.body) and _POINT.fullmatch(rival.body):
            return _trees(*_both(side.body.replace(",", "."), rival.body), known)
    solved = [_solved(side, known) for side in (one, other)]
    if any(isinstance(side, Waiting) for side in solved):
        return Waiting(
            tuple(request for side in solved if isinstance(side, Waiting) for request in side.requests)
        )
    one, other = (side for side in solved if isinstance(side, Normal))
    if not one.meets(other):
        return False
    if one.body == other.body:
        return True
    # Beside an equation, "y = 2x + 3" is one too.
    whole = [
        f"{side.name}={side.body}" if side.name and "=" in rival.body else side.body
        for side, rival in ((one, other), (other, one))
    ]
    return _trees(parts(whole[0]), parts(whole[1]), whole[0], whole[1], known)


def _solved(side: Normal, known: Known) -> Normal | Waiting:
    """Write a condition as the set that it describes; any other answer stays as it is."""
    if (
        not CONDITION.search(side.body)
        or len(side.body) > 200
        or "\\begin" in side.body  # a piecewise function holds conditions, and is none
        or side.body.count("{") != side.body.count("}")
    ):
        return side
    reply = known.get("solve", side.body)
    if reply is None:
        return Waiting((("solve", side.body),))
    if reply["kind"] == "unreadable":
        return side
    return Normal(reply["body"], reply["name"] or side.name, side.unit)


def _is_list(body: str) -> bool:
    tree = parts(body)
    return isinstance(tree, Parts) and (len(tree.items) > 1 or tree.kind == "set")


def _both(a: str, b: str) -> tuple[Parts | str, Parts | str, str, str]:
    return parts(a), parts(b), a, b


def _trees(a: Parts | str, b: Parts | str, whole_a: str, whole_b: str, known: Known) -> bool | Waiting:
    if isinstance(a, str) and isinstance(b, str):
        return _leaves(a, b, known)
    if isinstance(a, Parts) and isinstance(b, Parts):
        if not _kinds_meet(a, b) or len(a.items) != len(b.items):
            return False
        return _in_order(a, b, known) if a.ordered or b.ordered else _any_order(a, b, known)
    tree, leaf = (a, b) if isinstance(a, Parts) else (b, a)
    assert isinstance(tree, Parts) and isinstance(leaf, str)
    if len(tree.items) == 1:
        return _trees(tree.items[0], leaf, whole_a, whole_b, known)
    return known.about("compare", whole_a, whole_b) if RELATES.search(leaf) else False


def _in_order(a: Parts, b: Parts, known: Known) -> bool | Waiting:
    waits: list[Request] = []
    for one, other in zip(a.items, b.items, strict=True):
        verdict = _trees(one, other, _text(one), _text(other), known)
        if verdict is False:
            return False
        if isinstance(verdict, Waiting):
            waits += verdict.requests
    return Waiting(tuple(waits)) if waits else True


def _any_order(a: Parts, b: Parts, known: Known) -> bool | Waiting:
    """Match each member with a free member of the other side; equality is close enough to transitive for that."""
    free = list(b.items)
    waits: list[Request] = []
    for one in a.items:
        verdicts = [_trees(one, other, _text(one), _text(other), known) for other in free]
        if True in verdicts:
            del free[verdicts.index(True)]
            continue
        open_ = [verdict for verdict in verdicts if isinstance(verdict, Waiting)]
        if not open_:
            return False
        for verdict in open_:
            waits += verdict.requests
    return Waiting(tuple(waits)) if waits else True


def _leaves(a: str, b: str, known: Known) -> bool | Waiting:
    if a == b:
        return True
    value_a, value_b = rational(a), rational(b)
    if value_a and value_b:
        return value_a.equals(value_b)
    if is_text(a) or is_text(b) or (_WORD.fullmatch(a) and _WORD.fullmatch(b)):
        return False
    sides = []
    waits = []
    for leaf, value in ((a, value_a), (b, value_b)):
        side = value or known.get("describe", leaf)
        if side is None:
            waits.append(leaf)
        sides.append(side)
    if waits:
        # Braces that do not match are no LaTeX; that needs no worker.
        if any(leaf.count("{") != leaf.count("}") for leaf in waits):
            return False
        return Waiting(tuple(("describe", leaf) for leaf in waits))
    kinds = {"number" if isinstance(side, Value) else side["kind"] for side in sides}
    if kinds <= {"number", "function"}:
        verdict = _values(sides[0], sides[1])
        return known.about("decide", a, b) if verdict is None else verdict
    if kinds == {"equation"}:
        return _proportional(sides[0], sides[1])
    return known.about("compare", a, b) if kinds == {"other"} else False


@lru_cache(maxsize=20_000)
def is_text(leaf: str) -> bool:
    """Whether a leaf is words, a name (HHT, IV), or a time of day: these equal only themselves."""
    plain = re.sub(r"\\[a-zA-Z]+", " ", leaf)
    return bool(_TEXT.search(plain) or _LETTERS.fullmatch(leaf) or _CLOCK.fullmatch(leaf))


def _values(a: Value | dict[str, Any], b: Value | dict[str, Any]) -> bool | None:
    """Compare two values; None where they agree as far as they were computed, and nothing exact is known."""
    if isinstance(a, Value):
        a, b = b, a
    assert isinstance(a, dict)
    if isinstance(b, Value):
        if a["kind"] == "number" and b.places is not None:
            if a["exact"] is not None:
                return Value(_fraction(a["exact"])).equals(b)
            if a["points"] and b.stands_for_point(a["points"][0]):
                return True
        b = {"kind": "number", "exact": None, "key": [b.key()], "points": [b.point()]}
    elif a["exact"] is not None and b["exact"] is not None:
        return a["exact"] == b["exact"]
    if a["key"] is not None and b["key"] is not None and None not in b["key"]:
        return all(x == y for x, y in _together(a["key"], b["key"]))
    pairs = _together(a["points"], b["points"])
    shared = [(x, y) for x, y in pairs if x is not None and y is not None]
    if len(shared) < min(2, len(pairs)) or not shared:
        return False
    if any((x is None) != (y is None) for x, y in pairs):
        return False
    if not all(near(x, y, _SAME) for x, y in shared):
        return False
    # Infinite values have no difference to look at.
    return True if any(not number(part).is_finite() for x, _ in shared for part in x) else None


def _fraction(exact: str) -> Fraction:
    top, _, bottom = exact.partition("/")
    return Fraction(int(top, 16), int(bottom, 16))


def _proportional(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether one equation is a constant multiple of the other, by what `algebra.describe` says of both."""
    if a["key"] is not None and b["key"] is not None:
        return a["key"] == b["key"]
    pairs = _together(a["points"], b["points"])
    if not pairs or any(x is None or y is None or x[1] != "0" or y[1] != "0" for x, y in pairs):
        return False
    ratios = []
    for x, y in pairs:
        if (number(x[0]) == 0) != (number(y[0]) == 0):
            return False
        if number(x[0]) != 0:
            ratios.append([str(quotient(x[0], y[0])), "0"])
    return len(ratios) > 1 and all(near(ratios[0], ratio, _SAME - 1) for ratio in ratios[1:])


def _together(one: list[Any], other: list[Any]) -> list[tuple[Any, Any]]:
    """Pair the values of both at the points that both have; a number is the same at every point."""
    if not one or not other:
        return []
    count = max(len(one), len(other)) if 1 in (len(one), len(other)) else min(len(one), len(other))
    return list(zip((one * count)[:count], (other * count)[:count], strict=True))


@lru_cache(maxsize=20_000)
def percent(normal: Normal, in_percent: bool) -> Normal:
    """Write a percentage as a hundredth, unless the question is about percent."""
    if normal.unit != "percent" or in_percent:
        return normal
    value = rational(normal.body)
    if value is None:
        return Normal(f"\\frac{{{normal.body}}}{{100}}", normal.name)
    hundredth = value.exact / 100
    return Normal(f"{hundredth.numerator}/{hundredth.denominator}", normal.name)


def _kinds_meet(a: Parts, b: Parts) -> bool:
    if a.kind == b.kind or {a.kind, b.kind} in ({"list", "set"}, {"list", "()"}):
        return True
    # A column or row of numbers is the tuple of them.
    vectors = [part.kind.startswith("matrix") and " 1" in part.kind for part in (a, b)]
    return any(vectors) and all(
        vector or part.kind == "()" for vector, part in zip(vectors, (a, b), strict=True)
    )


def _text(part: Parts | str) -> str:
    if isinstance(part, str):
        return part
    inside = (" \\cup " if part.kind == "union" else ",").join(_text(item) for item in part.items)
    if part.kind in ("list", "union"):
        return inside
    return f"\\{{{inside}\\}}" if part.kind == "set" else f"{part.kind[0]}{inside}{part.kind[-1]}"
