"""Labels that tell most unequal answers apart at once, so that a group of many distinct answers costs linear time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from entropilot.answers.math.compare import COMMA, CONDITION, RELATES, is_text, percent
from entropilot.answers.math.values import Parts, number, parts, quotient, rational
from entropilot.answers.normalise import LONGEST, normalise

# Twice the logarithm of 1.001: values that a rounded decimal can stand for lie within 1e-5 of it, far inside one cell.
_CELL = 2e-3
_TINY = Fraction(1, 10**25)  # below it a value may have been computed as 0


class Form(NamedTuple):
    """Hold what a quick look compares.

    Attributes:
        labels: several sets; two answers of which one of them has nothing in common are not equal, but for what `wary`
            says.
        kind: "plain", "named", "parts" or "equation".
        wary: kinds of the other side with which only the full comparison decides.
    """

    labels: tuple[frozenset[Any], ...]
    kind: str
    wary: frozenset[str]

    def apart(self, other: Form) -> bool:
        """Return whether the two are certainly not equal; False where that is not known."""
        if self.kind in other.wary or other.kind in self.wary:
            return False
        return any(map(frozenset.isdisjoint, self.labels, other.labels))


Reply = Callable[[str, str], Any]  # (verb, body) → what a worker said, None where it was not asked
_CLOSED = (0, 0, 0)
_NOBODY: frozenset[str] = frozenset()
_OTHERS = frozenset({"named", "parts"})


class Unknown(NamedTuple):
    """Hold the bodies that a worker must describe before an answer has a form."""

    bodies: frozenset[str]


def form(answer: str, in_percent: bool, reply: Reply) -> Form | Unknown | None:
    """Return the form of an answer from what workers have said so far; None where it never has one.

    A missing form only costs time: the full comparison decides then. A wrong one would split a cluster, so that
    everything that can be read in two ways has none.
    """
    if len(answer) > LONGEST:
        return Form((frozenset({("text", answer)}),), "plain", _NOBODY)
    normal = percent(normalise(answer), in_percent)
    body = normal.body
    two_readings = normal.option is not None or normal.listed or COMMA.fullmatch(body)
    if two_readings:
        return None
    name = normal.name
    if CONDITION.search(body):  # compared as the set that it describes
        solved = reply("solve", body)
        if solved is None or solved["kind"] == "unreadable":
            return None
        body, name = solved["body"], solved["name"] or name
    tree = parts(body)
    leaves = {*_leaves(tree)}
    if any(RELATES.search(leaf.replace("=", "")) for leaf in leaves):
        return None
    undescribed = frozenset(
        leaf for leaf in leaves if _needs_a_worker(leaf) and reply("describe", leaf) is None
    )
    if any(leaf.count("{") != leaf.count("}") for leaf in undescribed):
        return None  # no LaTeX; the comparison does not ask about it either
    if undescribed:
        return Unknown(undescribed)
    if isinstance(tree, Parts):
        sizes = _sizes(tree, reply)
        return None if sizes is None else Form(_labels(tree, sizes), "parts", _NOBODY)
    kind = "equation" if "=" in tree else "named" if name else "plain"
    wary = _OTHERS if kind == "equation" else _NOBODY
    described: Any = {"kind": "unreadable"} if is_text(tree) else reply("describe", tree)
    if described is not None and described["kind"] in ("unreadable", "false"):
        return Form((frozenset({("text", tree)}),), kind, wary)  # it equals only itself
    if described is not None and described["kind"] == "equation":
        label = _ratio(described["points"])
        return None if label is None else Form((label,), kind, wary)
    sizes = _sizes(tree, reply)
    return None if sizes is None else Form(_labels(tree, sizes), kind, wary)


def _leaves(tree: Parts | str) -> Iterator[str]:
    for item in tree.items if isinstance(tree, Parts) else (tree,):
        yield from _leaves(item) if isinstance(item, Parts) else (item,)


def _needs_a_worker(leaf: str) -> bool:
    return leaf.lstrip("+-") != "\\infty" and rational(leaf) is None and not is_text(leaf)


class _Sizes(NamedTuple):
    """Hold sums over the finite numbers of an answer. Each adds up what is not negative, so that none cancels.

    Two answers that are equal member by member, in any order, agree in the first three; and in the last, where the order
    of their members counts.
    """

    above: Fraction  # of the numbers above 0
    below: Fraction  # of those below 0, without their sign
    squares: Fraction
    places: Fraction  # of the absolute values, each multiplied by its place among its siblings


def _sizes(tree: Parts | str, reply: Reply) -> _Sizes | None:
    """Return the sums of an answer; None where a member is no number."""
    if isinstance(tree, str):
        values = _numbers(tree, reply)
        if values is None:
            return None
        above, below = sum(v for v in values if v > 0), -sum(v for v in values if v < 0)
        return _Sizes(
            Fraction(above), Fraction(below), Fraction(sum(v * v for v in values)), Fraction(above + below)
        )
    sizes = [_sizes(item, reply) for item in tree.items]
    members = [size for size in sizes if size is not None]
    if len(members) < len(sizes):
        return None
    none = Fraction(0)
    return _Sizes(
        above=sum((size.above for size in members), none),
        below=sum((size.below for size in members), none),
        squares=sum((size.squares for size in members), none),
        places=sum((place * size.places for place, size in enumerate(members, start=1)), none),
    )


def _numbers(leaf: str, reply: Reply) -> list[Fraction] | None:
    """Return the finite real and imaginary parts of a leaf, at the first point of its variables if it has any."""
    if leaf.lstrip("+-") == "\\infty":
        return []
    value = rational(leaf)
    if value is not None:
        return [value.exact]
    described = None if is_text(leaf) else reply("describe", leaf)
    if described is None or described["kind"] not in ("number", "function") or not described["points"]:
        return None
    point = described["points"][0]
    if point is None:
        return None
    values = [part for part in map(number, point) if not part.is_infinite()]
    if any(part.is_nan() or abs(part.adjusted()) > 400 for part in values):
        return None
    return [Fraction(part) for part in values]


def _labels(tree: Parts | str, sizes: _Sizes) -> tuple[frozenset[Any], ...]:
    if isinstance(tree, str):
        return _cells(sizes.above), _cells(sizes.below)
    ordered = _is_ordered(tree)
    return tuple(_cells(size) for size in (sizes if ordered else sizes[:3]))


def _is_ordered(tree: Parts) -> bool:
    return tree.ordered and all(_is_ordered(item) for item in tree.items if isinstance(item, Parts))


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
