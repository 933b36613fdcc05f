"""Labels that tell most unequal answers apart at once, so that a group of many distinct answers costs linear time."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from entropilot.answers.math_compare import COMMA, CONDITION, RELATES, is_text, percent
from entropilot.answers.math_values import Parts, number, parts, quotient, rational
from entropilot.answers.normalise import LONGEST, normalise

# Twice the logarithm of 1.001: values that a rounded decimal can stand for lie within 1e-5 of it, far inside one cell.
_CELL = 2e-3
_TINY = Fraction(1, 10**25)  # below it a value may have been computed as 0


class Form(NamedTuple):
    """Hold what a quick look compares.

    Attributes:
        labels: two answers without a common label are not equal, but for what `wary` says.
        kind: "plain", "named", "parts" or "equation".
        wary: kinds of the other side with which only the full comparison decides.
    """

    labels: frozenset[Any]
    kind: str
    wary: frozenset[str]

    def apart(self, other: Form) -> bool:
        """Return whether the two are certainly not equal; False where that is not known."""
        return (
            self.labels.isdisjoint(other.labels)
            and self.kind not in other.wary
            and other.kind not in self.wary
        )


Reply = Callable[[str, str], Any]  # (verb, body) → what a worker said, None where it was not asked
_CLOSED = (0, 0, 0)
_NOBODY: frozenset[str] = frozenset()
_OTHERS = frozenset({"named", "parts"})


def form(answer: str, in_percent: bool, reply: Reply) -> Form | None:
    """Return the form of an answer from what workers have said so far; None where that does not give one.

    A missing form only costs time: the full comparison decides then. A wrong one would split a cluster, so that
    everything that can be read in two ways has none.
    """
    if len(answer) > LONGEST:
        return Form(frozenset({("text", answer)}), "plain", _NOBODY)
    normal = percent(normalise(answer), in_percent)
    body = normal.body
    two_readings = normal.option is not None or normal.listed or COMMA.fullmatch(body)
    if two_readings or CONDITION.search(body) or RELATES.search(body.replace("=", "")):
        return None
    tree = parts(body)
    if isinstance(tree, Parts):
        size = _size(tree, reply)
        return None if size is None else Form(_cells(size), "parts", _NOBODY)
    kind = "equation" if "=" in tree else "named" if normal.name else "plain"
    wary = _OTHERS if kind == "equation" else _NOBODY
    described: Any = {"kind": "unreadable"} if is_text(tree) else reply("describe", tree)
    if described is not None and described["kind"] in ("unreadable", "false"):
        return Form(frozenset({("text", tree)}), kind, wary)  # it equals only itself
    if described is not None and described["kind"] == "equation":
        label = _ratio(described["points"])
        return None if label is None else Form(label, kind, wary)
    size = _size(tree, reply)
    return None if size is None else Form(_cells(size), kind, wary)


def _size(tree: Parts | str, reply: Reply) -> Fraction | None:
    """Sum the absolute values of all finite numbers in an answer, so that neither order nor brackets matter."""
    if isinstance(tree, Parts):
        sizes = [_size(item, reply) for item in tree.items]
        return None if None in sizes else sum((size for size in sizes if size is not None), Fraction(0))
    if tree.lstrip("+-") == "\\infty":
        return Fraction(0)
    value = rational(tree)
    if value is not None:
        return abs(value.exact)
    described = None if is_text(tree) else reply("describe", tree)
    if described is None or described["kind"] not in ("number", "function") or not described["points"]:
        return None
    point = described["points"][0]
    if point is None:
        return None
    total = Fraction(0)
    for part in map(number, point):
        if part.is_infinite():
            continue
        if part.is_nan() or abs(part.adjusted()) > 400:
            return None
        total += abs(Fraction(part))
    return total


def _cells(size: Fraction) -> frozenset[Any]:
    """Return two cells of a logarithmic scale that overlap by half, so that near values share one of them."""
    if size <= 0:
        return frozenset({"tiny"})
    place = (math.log(size.numerator) - math.log(size.denominator)) / _CELL
    cells: set[Any] = {math.floor(place), math.floor(place + 0.5) + 0.5}
    return frozenset(cells | {"tiny"} if size < _TINY else cells)


def _ratio(points: list[list[str] | None]) -> frozenset[Any] | None:
    """Label an equation by the ratio of left − right at two points, which a constant factor does not change."""
    if len(points) < 2 or points[0] is None or points[1] is None or {points[0][1], points[1][1]} != {"0"}:
        return None
    ratio = quotient(points[1][0], points[0][0])
    if not ratio.is_finite() or abs(ratio.adjusted()) > 20:
        return None
    return frozenset(("equation", ratio > 0, cell) for cell in _cells(abs(Fraction(ratio))))


def looseness(answer: str) -> tuple[int, int, int]:
    """Return how many readings an answer leaves open; the smallest leads a cluster.

    Returns:
        (names and units that it leaves out and others may add, whether the order of its members is open or its comma may
        be a separator, whether it is a decimal that may stand for another number).
    """
    if len(answer) > LONGEST:
        return _CLOSED  # it equals only itself
    normal = normalise(answer)
    tree = parts(normal.body)
    listed = normal.listed is not None or (isinstance(tree, Parts) and tree.kind == "list")
    value = rational(tree) if isinstance(tree, str) else None
    rounded = value is not None and value.places is not None
    left_out = (normal.name is None) + (normal.unit is None) + (normal.option is None)
    return left_out, int(listed), int(rounded)
