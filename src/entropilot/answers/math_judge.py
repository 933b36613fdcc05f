"""Mathematical equivalence of two answers: exact arithmetic at once, algebra in workers that can be killed."""

from __future__ import annotations

import re
from collections import OrderedDict
from decimal import Context, Decimal
from typing import Any, Literal

from entropilot.answers.judge import Pairs, Questions
from entropilot.answers.math_pool import Pool, Report, shared_pool
from entropilot.answers.math_values import Parts, Value, parts, rational
from entropilot.answers.normalise import LONGEST, Normal, normalise

_VERDICTS = 50_000
_ANSWERS = 10_000
_SAME = Decimal("1e-34")  # exact closed forms that agree to 34 of 40 digits are one number
_CLOSE = Decimal("1e-6")  # where a decimal took part in an expression, as in 1.41421\pi
_WORKING = Context(prec=60, Emax=10**17, Emin=-(10**17), traps=[])
_PERCENT = re.compile(r"%|\bper\s?cent|\bpercentage\b", re.IGNORECASE)
_WORD = re.compile(r"[a-z]{4,}(?:[ -][a-z]+)*|[A-J]")
_RELATES = re.compile(
    r"[<>=]|\\(?:le|ge|leq|geq|leqslant|geqslant|lt|gt|neq?|in|cup|cap|setminus|mid)(?![a-zA-Z])|\bor\b"
)

# What a comparison still waits for: leaves to describe, or a pair for math-verify.
_Waiting = tuple[Literal["describe"], tuple[str, ...]] | tuple[Literal["compare"], tuple[str, str]]


class Math:
    """Equal as mathematics. Symmetric by construction; an answer that cannot be read equals only itself.

    First the text decides, in this process: one spelling (`normalise.py`), exact rational arithmetic, and lists,
    tuples, sets, intervals, unions and matrices member by member (`values.py`). What is left goes to worker processes
    (`pool.py`): expressions become 40-digit values at fixed points of their variables and are equal where these agree
    to 34 digits; only relations and other sets are asked of math-verify, in both directions.

    Known false positives of math-verify that are not repeated here: 1/2^99 and 1/2^98 (compared relative to their
    size), 52_8 and 52_9 (the base is a unit). 50 and 50 %: a percentage is a hundredth, so that 50 % is 1/2 and is not
    50, unless the question speaks of percent: then the sign is a unit that may be left out.

    Args:
        pool: workers of one's own; default one pool for the whole process (2 GiB and 5 s per item).
    """

    name = "math"

    def __init__(self, *, pool: Pool | None = None) -> None:
        self._own = pool
        self._verdicts: OrderedDict[tuple[str, str, bool], bool] = OrderedDict()
        self._described: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._compared: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._pool.report  # noqa: B018 - says now, not in the midst of training, that math-verify is missing

    @property
    def _pool(self) -> Pool:
        return self._own or shared_pool()

    @property
    def report(self) -> Report:
        """The items that failed (deadline, crash, memory …) in this judge's pool, each counted as not equivalent."""
        return self._pool.report

    def equivalent(self, pairs: Pairs, questions: Questions | None = None) -> list[bool]:
        """Judge every pair; repeated pairs cost nothing, also across calls."""
        asked = questions if questions is not None else [None] * len(pairs)
        keys = [
            (min(a, b), max(a, b), bool(question and _PERCENT.search(question)))
            for (a, b), question in zip(pairs, asked, strict=True)
        ]
        verdicts: dict[tuple[str, str, bool], bool] = {}
        open_ = []
        for key in dict.fromkeys(keys):
            known = _get(self._verdicts, key)
            if known is None:
                open_.append(key)
            else:
                verdicts[key] = known
        while open_:  # each round answers what the last one waited for; members of a list may need a second
            describe: dict[str, None] = {}
            compare: dict[tuple[str, str], None] = {}
            still = []
            for key in open_:
                verdict = self._judge(*key)
                if isinstance(verdict, bool):
                    verdicts[key] = verdict
                    # A cache of long hostile texts would fill the memory.
                    if max(len(key[0]), len(key[1])) <= LONGEST:
                        self._verdicts[key] = verdict
                    continue
                still.append(key)
                if verdict[0] == "describe":
                    describe.update(dict.fromkeys(verdict[1]))
                else:
                    compare[verdict[1]] = None
            self._ask(list(describe), list(compare))
            open_ = still
        for cache, size in (
            (self._verdicts, _VERDICTS),
            (self._described, _ANSWERS),
            (self._compared, _ANSWERS),
        ):
            while len(cache) > size:
                cache.popitem(last=False)
        return [verdicts[key] for key in keys]

    def _ask(self, bodies: list[str], pairs: list[tuple[str, str]]) -> None:
        requests: list[dict[str, Any]] = [{"describe": body} for body in bodies]
        requests += [{"compare": list(pair)} for pair in pairs]
        replies = self._pool.run(requests)
        for body, reply in zip(bodies, replies[: len(bodies)], strict=True):
            self._described[body] = reply or {"kind": "unreadable"}
        for pair, reply in zip(pairs, replies[len(bodies) :], strict=True):
            self._compared[pair] = reply is True

    def _judge(self, a: str, b: str, in_percent: bool) -> bool | _Waiting:
        if a == b:
            return True
        if len(a) > LONGEST or len(b) > LONGEST:
            return False
        one, other = _percent(normalise(a), in_percent), _percent(normalise(b), in_percent)
        if not one.meets(other):
            return False
        if not one.body or not other.body:
            return False
        if one.body == other.body:
            return True
        # Beside an equation, "y = 2x + 3" is one too.
        whole = [
            f"{side.name}={side.body}" if side.name and "=" in rival.body else side.body
            for side, rival in ((one, other), (other, one))
        ]
        return self._trees(parts(whole[0]), parts(whole[1]), whole[0], whole[1])

    def _trees(self, a: Parts | str, b: Parts | str, whole_a: str, whole_b: str) -> bool | _Waiting:
        if isinstance(a, str) and isinstance(b, str):
            return self._leaves(a, b)
        if isinstance(a, Parts) and isinstance(b, Parts):
            if not _kinds_meet(a, b) or len(a.items) != len(b.items):
                return False
            return self._in_order(a, b) if a.ordered or b.ordered else self._any_order(a, b)
        tree, leaf = (a, b) if isinstance(a, Parts) else (b, a)
        assert isinstance(tree, Parts) and isinstance(leaf, str)
        if len(tree.items) == 1:
            return self._trees(tree.items[0], leaf, whole_a, whole_b)
        return self._compare(whole_a, whole_b) if _RELATES.search(leaf) else False

    def _in_order(self, a: Parts, b: Parts) -> bool | _Waiting:
        waits: list[str] = []
        for one, other in zip(a.items, b.items, strict=True):
            verdict = self._trees(one, other, _text(one), _text(other))
            if verdict is False:
                return False
            if verdict is not True:
                if verdict[0] == "compare":
                    return verdict
                waits += verdict[1]
        return ("describe", tuple(waits)) if waits else True

    def _any_order(self, a: Parts, b: Parts) -> bool | _Waiting:
        """Match each member with a free member of the other side; equality is close enough to transitive for that."""
        free = list(b.items)
        waits: list[str] = []
        for one in a.items:
            verdicts = [self._trees(one, other, _text(one), _text(other)) for other in free]
            if True in verdicts:
                del free[verdicts.index(True)]
                continue
            open_ = [verdict for verdict in verdicts if not isinstance(verdict, bool)]
            if not open_:
                return False
            for verdict in open_:
                if verdict[0] == "compare":
                    return verdict
                waits += verdict[1]
        return ("describe", tuple(waits)) if waits else True

    def _leaves(self, a: str, b: str) -> bool | _Waiting:
        if a == b:
            return True
        value_a, value_b = rational(a), rational(b)
        if value_a and value_b:
            return value_a.equals(value_b)
        if _WORD.fullmatch(a) and _WORD.fullmatch(b):
            return False
        sides = []
        waits = []
        for leaf, value in ((a, value_a), (b, value_b)):
            known = value or _get(self._described, leaf)
            if known is None:
                waits.append(leaf)
            sides.append(known)
        if waits:
            # Braces that do not match are no LaTeX; that needs no worker.
            if any(leaf.count("{") != leaf.count("}") for leaf in waits):
                return False
            return ("describe", tuple(waits))
        kinds = {"number" if isinstance(side, Value) else side["kind"] for side in sides}
        if "unreadable" in kinds:
            return False
        if kinds <= {"number", "function"}:
            return _meet(sides[0], sides[1])
        if kinds == {"equation"} and _proportional(sides[0], sides[1]):
            return True
        return self._compare(a, b)

    def _compare(self, a: str, b: str) -> bool | _Waiting:
        pair = (min(a, b), max(a, b))
        known = _get(self._compared, pair)
        return ("compare", pair) if known is None else known

    def close(self) -> None:
        """End the workers of a pool of one's own; the shared pool ends with the interpreter."""
        if self._own:
            self._own.close()

    def __enter__(self) -> Math:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _percent(normal: Normal, in_percent: bool) -> Normal:
    """A percentage as a hundredth, unless the question is about percent."""
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


def _meet(a: Value | dict[str, Any], b: Value | dict[str, Any]) -> bool:
    if isinstance(a, Value):
        a, b = b, a
    assert isinstance(a, dict)
    if isinstance(b, Value):
        exact = _WORKING.divide(Decimal(b.exact.numerator), Decimal(b.exact.denominator))
        rounded = a["kind"] == "number" and b.rounds_to(a["points"][0])
        return rounded or all(_near(point, [exact, "0"], a["inexact"]) for point in a["points"])
    inexact = a["inexact"] or b["inexact"]
    return all(_near(point, other, inexact) for point, other in _together(a, b))


def _proportional(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether one equation is a constant multiple of the other: a_k b_0 = b_k a_0 at every point k."""
    pairs = _together(a, b)
    if any(one is None or other is None or one[1] != "0" or other[1] != "0" for one, other in pairs):
        return False
    (a0, _), (b0, _) = pairs[0]
    if Decimal(a0) == 0 or Decimal(b0) == 0:
        return False
    inexact = a["inexact"] or b["inexact"]
    return all(
        _near(
            [_WORKING.multiply(Decimal(x), Decimal(b0)), "0"],
            [_WORKING.multiply(Decimal(y), Decimal(a0)), "0"],
            inexact,
        )
        for (x, _), (y, _) in pairs
    )


def _together(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[Any, Any]]:
    """The values of both at the points that both have; a number is the same at every point."""
    one, other = a["points"], b["points"]
    count = max(len(one), len(other)) if 1 in (len(one), len(other)) else min(len(one), len(other))
    return list(zip((one * count)[:count], (other * count)[:count], strict=True))


def _near(one: list[Any] | None, other: list[Any] | None, inexact: bool) -> bool:
    if one is None or other is None:
        return one is other
    a, b = ([Decimal(part) for part in point] for point in (one, other))
    if any(part.is_infinite() for part in (*a, *b)):
        return a == b
    largest = max(abs(part) for part in (*a, *b))
    bound = _WORKING.multiply(largest, _CLOSE if inexact else _SAME)
    return all(abs(_WORKING.subtract(x, y)) <= bound for x, y in zip(a, b, strict=True))


def _get(cache: OrderedDict, key: Any) -> Any:
    try:
        value = cache[key]
        cache.move_to_end(key)
        return value
    except KeyError:  # also where another thread has just taken it out
        return None
