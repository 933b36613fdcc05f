"""A process that reads mathematics: one JSON request per line in, one JSON reply per line out.

Started by `pool.py` as `python -m entropilot.answers.math_worker SECONDS MEGABYTES`, never imported by the rest. What it is
given is untrusted: it may hang, swallow memory or crash, and the pool kills and replaces it. Should the pool be gone by
then, an alarm that the kernel delivers ends the process, however deep in arithmetic it is. math-verify's own timeouts
stay off.

Requests: {"describe": body} and {"compare": [a, b]}; replies: {"done": …} or {"failed": reason}.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import signal
import sys
import zlib
from functools import lru_cache
from typing import Any, cast

_NUMBER = re.compile(r"Integer ?\( ?(\d+) ?\)|Float ?\( ?'([0-9.]+(?:[eE][+-]?\d+)?)' ?\)")
_E_INDEX = re.compile(r"(?<![A-Za-z\\])E_")
_XI = r"\\Xi_"
_POINTS = 4
_MORE_POINTS = 12  # for steps such as ⌊n/5⌋, which look alike near 0
_DIGITS = 40
# What the grammar's tables are built with at start, so that the first answers do not pay for it.
_WARM_UP = (
    r"\frac{1}{2}+\sqrt{3}", r"2\pi", r"x^{2}-3x+1", r"\sin(2t)", r"\log_{2}5", r"e^{-2x}", r"\binom{5}{2}", r"(a+5)(b+2)",
    r"\sqrt[3]{4}", r"\lfloor\frac{n}{2}\rfloor", r"\frac{3\sqrt{3}}{4}", r"n!", r"2\cdot3^{4}",
)  # fmt: skip


def main() -> None:
    seconds, megabytes = float(sys.argv[1]), int(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # whatever a library prints must not enter the replies
    os.dup2(null, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)
    _limit_memory(megabytes)
    _forbid_eval()
    for body in _WARM_UP:
        _describe(body)
    _reply(replies, {"done": "ready"})
    parent = os.getppid()
    for line in _lines(parent):
        signal.setitimer(signal.ITIMER_REAL, seconds + 1.0)
        answer, last = _answer(line)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _reply(replies, answer)
        if last:
            return


def _lines(parent: int):
    """Requests until the pool closes the pipe or is gone. A sibling of the pool may hold the pipe open, so look."""
    rest = b""
    while True:
        if not select.select([0], [], [], 2.0)[0]:
            if os.getppid() != parent:
                return
            continue
        data = os.read(0, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _reply(replies, answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


def _answer(line: bytes) -> tuple[dict[str, Any], bool]:
    """The reply, and whether this process had better end: after a shortage of memory nothing is to be trusted."""
    try:
        request = json.loads(line)
        if "describe" in request:
            return {"done": _describe(request["describe"])}, False
        return {"done": _compare(*request["compare"])}, False
    except MemoryError:
        return {"failed": "memory"}, True
    except RecursionError:
        return {"failed": "recursion"}, False
    except Exception as error:
        return {"failed": type(error).__name__}, False


def _limit_memory(megabytes: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the address space is not what is counted
        size = megabytes * 2**20
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size if hard < 0 else min(size, hard), hard))


def _forbid_eval() -> None:
    """sympy reads the number 11 by evaluating the Python text "Integer (11 )"; let numbers pass, and nothing else."""
    from sympy import Float, Integer
    from sympy.parsing import sympy_parser

    def number(code: str, *_: Any) -> Any:
        found = _NUMBER.fullmatch(code.strip())
        if found is None:
            raise ValueError("no answer is evaluated as code")
        return Integer(found.group(1)) if found.group(1) else Float(found.group(2))

    sympy_parser.eval_expr = number  # type: ignore[assignment]


@lru_cache(maxsize=512)
def _parsed(body: str) -> Any:
    """The sympy object of a LaTeX body, or None where it cannot be read."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # units=False: with it "2t" loses its t.
    spelling = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all"
    )
    found = parse(
        # The grammar takes E for Euler's number and then cannot read E_1; no answer has a \Xi beside it.
        f"\\boxed{{{_E_INDEX.sub(_XI, body)}}}",
        extraction_config=[LatexExtractionConfig(boxed_match_priority=0, normalization_config=spelling)],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,  # type: ignore[arg-type]
    )
    return next((thing for thing in found if not isinstance(thing, str)), None)


@lru_cache(maxsize=2048)
def _describe(body: str) -> dict[str, Any]:
    """What an answer is: {"kind": "unreadable" | "other"}, or "number", "function" or "equation" with "points", "inexact".

    `points` are 40-digit values [real, imaginary] at fixed points of the variables; None where there is no value. Two
    expressions that agree at all of them are the same function, as surely as a fingerprint can say. Those of an equation
    are its left side less its right side.
    """
    from sympy import Derivative, Eq, Expr, Float, Mod, Symbol, ceiling, floor, sign
    from sympy.core.function import AppliedUndef

    thing: Any = _parsed(body)
    if thing is None:
        return {"kind": "unreadable"}
    equation = isinstance(thing, Eq)
    if equation:
        thing = cast(Any, thing).lhs - cast(Any, thing).rhs
    if not isinstance(thing, Expr):
        return {"kind": "other"}
    inexact = thing.has(Float)
    # A decimal as it was written: in 53 bits, 7e-19 + 1 - 1 is 0.
    thing = thing.xreplace({number: Float(str(number), 60) for number in thing.atoms(Float)})
    # dy/dx and f(x) are unknowns here: doit() would make the one 0, and the other has no value.
    thing = thing.xreplace({part: Symbol(str(part)) for part in thing.atoms(Derivative, AppliedUndef)})
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        thing = thing.doit()
    symbols = sorted(thing.free_symbols, key=str)
    names = [str(symbol) for symbol in symbols]
    variables = [name for name in names if name != "i"]
    steps = thing.has(floor, ceiling, Mod, sign)
    rounds = range(1 if not variables else _MORE_POINTS if steps else _POINTS)
    points = [_value(thing, _places(symbols, round_)) for round_ in rounds]
    if sum(point is not None for point in points) < min(2, len(points)):
        return {"kind": "other"}
    kind = "equation" if equation else "function" if variables else "number"
    return {"kind": kind, "points": points, "inexact": inexact}


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
            pair.append(str(part))
        elif isinstance(part, Float) and part.is_finite:
            # Fewer bits than asked for: a difference that cancelled, in truth 0 or beyond what can be said.
            if part._prec < 100 and abs(part) > Float("1e-35"):
                return None
            pair.append("0" if part._prec < 100 else str(part))
        else:
            return None
    return pair


def _compare(a: str, b: str) -> bool:
    """math-verify's verdict in either direction: relations, sets and what else has no fingerprint."""
    from math_verify import verify

    one, other = _parsed(a), _parsed(b)
    if one is None or other is None:
        return False
    options: dict[str, Any] = {"timeout_seconds": None, "allow_set_relation_comp": True}
    return bool(verify(one, other, **options)) or bool(verify(other, one, **options))


if __name__ == "__main__":
    main()
