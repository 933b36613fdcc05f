r"""Compute the value of an answer in LaTeX: exact where arithmetic is exact, else at fixed points.

Imported by `worker.py` only, in a process that may be killed at any time: sympy decides how long it takes.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from functools import lru_cache
from typing import Any, cast

from entropilot.answers.math.values import PRIME, modular

_LITERAL = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NUMBER = re.compile(rf"Integer ?\( ?(\d+) ?\)|Float ?\( ?'({_LITERAL.pattern})' ?\)")
_INDEXED_E = re.compile(r"(?<![A-Za-z\\])E_")
_CAPITAL_I = re.compile(r"(\\[a-zA-Z]+)|I")
_WHOLE = re.compile(r"\d+")
_FRACTION = re.compile(r"\\frac\{\d+\}\{\d+\}")
_VARIABLE = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z](?![a-zA-Z])|\\[a-zA-Z]+_")
_POINTS = 4
_MORE_POINTS = 12  # for steps such as ⌊n/5⌋, which look alike near 0
_DIGITS = 40
_EXACT_BITS = 20_000  # a longer number is compared by its remainder
_MOST_DIGITS = 20_000  # to which a difference is computed before it counts as undecided
_ROOT = pow(
    2, (PRIME - 1) // 4, PRIME
)  # 2 is no square, so this squared is −1: the imaginary unit of remainders
# What the grammar's tables are built with at start, so that the first answers do not pay for it.
WARM_UP = (
    r"\frac{1}{2}+\sqrt{3}", r"2\pi", r"x^{2}-3x+1", r"\sin(2t)", r"\log_{2}5", r"e^{-2x}", r"\binom{5}{2}", r"(a+5)(b+2)",
    r"\sqrt[3]{4}", r"\lfloor\frac{n}{2}\rfloor", r"\frac{3\sqrt{3}}{4}", r"n!", r"2\cdot3^{4}", "x^2+y^2=4",
)  # fmt: skip


def forbid_eval() -> None:
    """Read numbers exactly, and never by evaluating Python: sympy evaluates the text "Integer (11 )" for the number 11.

    A decimal becomes the fraction that it stands for, so that 0.1 + 0.2 is 3/10.
    """
    # Imported now: sympy solves inequalities with it, and it names its units by evaluating text.
    import sympy.physics.units  # noqa: F401
    from sympy.parsing import sympy_parser

    def number(code: str, *_: Any) -> Any:
        match = _NUMBER.fullmatch(code.strip())
        value = None if match is None else _literal(match.group(1) or match.group(2))
        if value is None:
            raise ValueError("no answer is evaluated as code")
        return value

    sympy_parser.eval_expr = number  # type: ignore[assignment]


def _literal(text: str) -> Any:
    """Return the integer or rational of a number in digits; None for another text."""
    from sympy import Integer, Rational

    if not _LITERAL.fullmatch(text):
        return None
    return Integer(text) if text.isdigit() else Rational(text)


@lru_cache(maxsize=1)
def _converter() -> Any:
    from antlr4.atn.PredictionMode import PredictionMode
    from latex2sympy2_extended import latex2sympy2 as library

    class Converter(library._Latex2Sympy):
        """Convert as the library does, but 2(3) is a product; only digits before a fraction are a mixed number."""

        _mode = PredictionMode.LL
        _tokens = False

        def parse(self, latex_str: str) -> Any:
            # ANTLR's quick mode gives the same tree as the full one, or an error where it may need the full one.
            try:
                self._mode = PredictionMode.SLL
                return super().parse(latex_str)
            except (MemoryError, RecursionError):
                raise
            except Exception:
                if not self._tokens:
                    raise
                self._mode = PredictionMode.LL
                return super().parse(latex_str)

        def create_parser(self, latex_str: str) -> Any:
            parser = super().create_parser(latex_str)
            parser._interp.predictionMode = self._mode
            # All tokens first: what holds a character that is in none of them is refused for far less than a parse.
            self._tokens = False
            cast(Any, parser.getTokenStream()).fill()
            self._tokens = True
            return parser

        def convert_postfix_list(self, arr: list[Any], i: int = 0) -> Any:
            if i + 1 < len(arr) and _mixed(arr[i], arr[i + 1]):
                whole, fraction = cast(Any, self.convert_postfix(arr[i])), self.convert_postfix(arr[i + 1])
                left, after = whole + fraction, i + 2
            else:
                left, after = self.convert_postfix(arr[i]), i + 1
            if isinstance(left, list):  # a derivative
                return super().convert_postfix_list(arr, i)
            if after == len(arr):
                return left
            right = self.convert_postfix_list(arr, after)
            matrix = getattr(left, "is_Matrix", False) or getattr(right, "is_Matrix", False)
            return self.mat_mul_flat(left, right) if matrix else self.mul_flat(left, right)

        def parse_number(self, text: str) -> Any:
            # The library's way, by sympy's parser of Python text, takes a third of the time of an answer.
            value = _literal(text.replace(",", ""))
            return super().parse_number(text) if value is None else value

    return Converter(config=library.ConversionConfig(lowercase_symbols=False))


def _mixed(whole: Any, fraction: Any) -> bool:
    return bool(_WHOLE.fullmatch(whole.getText()) and _FRACTION.fullmatch(fraction.getText()))


@lru_cache(maxsize=512)
def parsed(body: str) -> Any:
    """Return the sympy object of a LaTeX body, or None where it cannot be read."""
    from latex2sympy2_extended import NormalizationConfig
    from latex2sympy2_extended.math_normalization import normalize_latex

    # The grammar cannot read E_1, and takes I for the imaginary unit; no answer has a \Xi beside them.
    text = _INDEXED_E.sub(r"\\Xi_", body)
    text = _CAPITAL_I.sub(lambda match: match.group(1) or r"\Xi_{9}", text)
    # units=False: with it "2t" loses its t.
    spelling = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
    )
    try:
        return _converter().parse(normalize_latex(text, spelling))
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the grammar raises plain exceptions on what it cannot read
        return None


@lru_cache(maxsize=2048)
def describe(body: str) -> dict[str, Any]:
    """Say what an answer is, in a form that can be compared without this process.

    Returns:
        {"kind": "unreadable" | "other" | "false"}, or "number", "function" or "equation" with
        `exact`: of a rational number, "p/q" in base 16, unless it is too long;
        `key`: remainders of the exact values at four points modulo one prime, where only rational arithmetic takes part:
        equal expressions have equal keys, and others differ but for a chance of 1 in 2^250. Of an equation they are
        those of left − right, each divided by the first, so that a constant factor does not matter;
        `points`: 40-digit values [real, imaginary] at fixed points of the variables, None where there is none.
        An equation between numbers is the number if it is true, and "false" if it is not.
    """
    sides = body.split("=")
    if 2 <= len(sides) <= 8 and all(sides) and not _VARIABLE.search(body.replace("\\pi", "")):
        return _chain(sides)
    thing: Any = parsed(body)
    if thing is None:
        return {"kind": "unreadable"}
    from sympy import Eq, Expr, S

    equation = isinstance(thing, Eq)
    if equation:
        left, right = cast(Any, thing).lhs, cast(Any, thing).rhs
        if not isinstance(left, Expr) or not isinstance(right, Expr):
            return {"kind": "other"}
        thing = left - right
    if not isinstance(thing, Expr):
        return {"kind": "other"}
    thing = _done(thing)
    if thing.has(S.NaN, S.ComplexInfinity):  # 0/0 and ∞ − ∞ are no value that could be shared
        return {"kind": "unreadable"}
    found = _fingerprint(thing, equation)
    return found if found is not None else {"kind": "other"}


def _chain(sides: list[str]) -> dict[str, Any]:
    """35 + 70 = 105 is the number 105; 0 = 5 is false."""
    values = [describe(side) for side in sides]
    if any(value["kind"] != "number" for value in values):
        return {"kind": "unreadable"}
    if all(decide(sides[0], side) for side in sides[1:]):
        return values[-1]
    return {"kind": "false"}


def _done(thing: Any) -> Any:
    """Carry out what the parser left undone; dy/dx and f(x) stay unknowns, decimals become fractions."""
    from sympy import Derivative, Float, I, Rational, Symbol
    from sympy.concrete.expr_with_limits import ExprWithLimits
    from sympy.core.function import AppliedUndef

    thing = thing.xreplace({number: Rational(str(number)) for number in thing.atoms(Float)})
    functions = thing.atoms(AppliedUndef)
    # The derivative of what is written out (x², sin x) is computed; that of a name (dy/dx) would come out as 0.
    unknown = [part for part in thing.atoms(Derivative) if part.expr.is_Symbol or part.atoms(AppliedUndef)]
    thing = thing.xreplace({part: Symbol(str(part)) for part in [*unknown, *functions]})
    if not thing.has(ExprWithLimits):  # where i may be counted by a sum
        thing = thing.xreplace({Symbol("i"): I})
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        thing = thing.doit()
    return thing


def _fingerprint(thing: Any, equation: bool) -> dict[str, Any] | None:
    from sympy import Mod, ceiling, floor, sign

    symbols = sorted(thing.free_symbols, key=str)
    variables = [symbol for symbol in symbols if str(symbol) != "i"]
    kind = "equation" if equation else "function" if variables else "number"
    exact = None
    if thing.is_Rational and not equation:
        p, q = int(thing.p), int(thing.q)
        exact = f"{p:x}/{q:x}" if p.bit_length() + q.bit_length() <= _EXACT_BITS else None
    rounds = range(_POINTS if variables else 1)
    remainders = [_remainder(thing, _residues(symbols, round_)) for round_ in rounds]
    key: list[str] | None = None
    if all(remainder is not None for remainder in remainders):
        if equation:
            first = remainders[0]
            if not first:
                return None
            inverse = pow(first, -1, PRIME)
            remainders = [cast(int, remainder) * inverse % PRIME for remainder in remainders]
        key = [f"{remainder:x}" for remainder in remainders]
    steps = thing.has(floor, ceiling, Mod, sign)
    rounds = range(1 if not variables else _MORE_POINTS if steps else _POINTS)
    try:
        points = [_value(thing, _places(symbols, round_)) for round_ in rounds]
    except (ArithmeticError, ValueError, TypeError):  # too large to be written down
        points = []
    if key is None and sum(point is not None for point in points) < min(2, len(rounds)):
        return None
    return {"kind": kind, "exact": exact, "key": key, "points": points}


def _residues(symbols: list[Any], round_: int) -> dict[Any, int]:
    return {
        symbol: _ROOT
        if str(symbol) == "i"
        else pow(7, 2 + zlib.crc32(f"{round_} {symbol}".encode()) + round_, PRIME)
        for symbol in symbols
    }


def _remainder(thing: Any, residues: dict[Any, int]) -> int | None:
    """The value modulo the prime of an expression in + − · / and whole powers; None for any other."""
    from sympy import S

    if thing.is_Rational:
        return modular(int(thing.p), int(thing.q))
    if thing.is_Symbol:
        return residues.get(thing)
    if thing is S.ImaginaryUnit:
        return _ROOT
    if thing.is_Add or thing.is_Mul:
        total = 0 if thing.is_Add else 1
        for part in thing.args:
            remainder = _remainder(part, residues)
            if remainder is None:
                return None
            total = (total + remainder if thing.is_Add else total * remainder) % PRIME
        return total
    if thing.is_Pow and thing.exp.is_Integer:
        base = _remainder(thing.base, residues)
        exponent = int(thing.exp)
        if base is None or (base == 0 and exponent < 0):
            return None
        return pow(base, exponent, PRIME)
    return None


def _places(symbols: list[Any], round_: int) -> dict[Any, Any]:
    """A rational for each variable, by its name; i is the imaginary unit.

    Between 0.3 and 3, negative in the fourth round, up to 300 after it.
    """
    from sympy import I, Rational

    def place(name: str) -> Any:
        if name == "i":
            return I
        number = Rational(300 + zlib.crc32(f"{round_} {name}".encode()) % 2700, 1000) + Rational(1, 7919)
        return -number if round_ == _POINTS - 1 else 100 * number if round_ >= _POINTS else number

    return {symbol: place(str(symbol)) for symbol in symbols}


def _value(thing: Any, places: dict[Any, Any]) -> list[str] | None:
    from sympy import Float, Integer, S, oo

    # By `subs` inside of evalf: put in beforehand, rationals under a power would be factored exactly, for minutes.
    value = thing.evalf(_DIGITS, subs=places) if places else thing.evalf(_DIGITS)
    if value in (oo, -oo):
        return [str(value).replace("oo", "Infinity"), "0"]
    if value is S.ComplexInfinity or value is S.NaN or not value.is_number:
        return None
    pair = []
    for part in value.as_real_imag():
        if isinstance(part, Integer):
            pair.append(str(part.evalf(_DIGITS)) if part else "0")
        elif isinstance(part, Float) and part.is_finite:
            # Fewer bits than asked for: a difference that cancelled, in truth 0 or beyond what can be said.
            if part._prec < 100 and abs(part) > Float("1e-35"):
                return None
            pair.append("0" if part._prec < 100 else str(part))
        else:
            return None
    return pair


def decide(a: str, b: str) -> bool:
    """Return whether two expressions that agree to 34 digits are equal.

    Their difference is computed to more digits than the numbers in it have, where that is possible; what is still 0 then
    is 0. Where it is not possible (more than 20,000 digits), only algebra can say so; what it leaves open is not equal.
    """
    from sympy import expand, simplify

    one, other = parsed(a), parsed(b)
    if one is None or other is None:
        return False
    one, other = _done(one), _done(other)
    difference = one - other
    if difference == 0:
        return True
    places = _places(sorted(difference.free_symbols, key=str), 0)
    digits = 2 * (_magnitude(one, places) + _magnitude(other, places)) + 100
    if digits > _MOST_DIGITS:
        return expand(difference) == 0 or simplify(difference) == 0
    value = difference.evalf(15, subs=places, maxn=digits)
    return all(part == 0 or getattr(part, "_prec", 53) < 20 for part in value.as_real_imag())


def _magnitude(thing: Any, places: dict[Any, Any]) -> int:
    """The digits that the numbers in an expression have before and after the point, in all."""
    from sympy import log

    total = 0
    for part in thing.atoms(*_ATOMS()) if not thing.is_Atom else [thing]:
        if part.is_Rational:
            total += (int(part.p).bit_length() + int(part.q).bit_length()) // 3
            continue
        size = abs(part.evalf(5, subs=places))
        if size.is_number and size != 0 and size.is_finite:
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                total += abs(int(log(size, 10).evalf(5)))
        if total > _MOST_DIGITS:
            break
    return total


def _ATOMS() -> tuple[type, ...]:
    from sympy import Pow, Rational
    from sympy.core.function import Function

    return Rational, Pow, Function


def compare(a: str, b: str) -> bool:
    """math-verify's verdict in either direction: relations, sets and what else has no fingerprint."""
    from math_verify import verify

    one, other = parsed(a), parsed(b)
    if one is None or other is None:
        return False
    options: dict[str, Any] = {"timeout_seconds": None, "allow_set_relation_comp": True}
    return bool(verify(one, other, **options)) or bool(verify(other, one, **options))
