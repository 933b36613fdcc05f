"""400 hostile answers, 20 shapes of 20 contents, through every extraction rule and the judge: nothing raises or stays."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("math_verify", reason="math-verify is not installed")

from entropilot.answers.extraction.extract import RULES, extract
from entropilot.answers.math.judge import Math
from entropilot.answers.math.pool import Pool

CONTENTS = [
    "9^{9^{9^{9}}}", "(10^{9})!", "10^{1000000}", "e^{-3000000}", r"\sum_{k=1}^{10^{9}}k^{k}", r"\int_0^1x^{x^{x}}dx",
    r"\binom{10^{12}}{10^{11}}", r"\frac{0}{0}", r"\sqrt[9^9]{2}", "x^{x^{x^{x}}}", "7" * 300, "(" * 120 + "1" + ")" * 120,
    "{" * 90, "1\x00+1", "\ud800\udfff", "\u202e12", "__import__('os').abort()", r"\begin{pmatrix}1&2\\3",
    r"\begin{cases}x&\\&\end{cases}", "1_{9999999}",
]  # fmt: skip
SHAPES = [
    "%s", "-%s", "%s+1", r"\frac{1}{%s}", r"\sqrt{%s}", r"\{%s,2\}", "(%s,3)", "[%s,4)", "x=%s", "x<%s", r"%s\text{ km}",
    "%s_{7}", r"5\pm%s", "|%s|", "%s=%s", r"\begin{pmatrix}%s&1\\2&3\end{pmatrix}", r"%s\%%", "x^2+%s=y",
    "(B) %s", "%s or 6",
]  # fmt: skip
HOSTILE = [shape.replace("%s", content).replace("%%", "%") for shape in SHAPES for content in CONTENTS]


def survive(texts: list[str], alive) -> None:
    deadline = 0.25
    with Pool(workers=2, deadline=deadline, budget=None) as pool, Math(pool=pool) as judge:
        assert judge.equivalent([(r"\sqrt{8}", r"2\sqrt{2}")]) == [True]
        pids = set(pool.pids())
        start = time.monotonic()
        verdicts = judge.equivalent([(text, "123.25") for text in texts])
        seconds = time.monotonic() - start
        late = pool.report.counts["deadline"]
        pids.update(pool.pids())
        assert verdicts == [False] * len(texts)
        # Each late item costs its deadline and a fork; a process that loads sympy anew would take seconds.
        assert seconds < 30 + late * (deadline + 1.0) + 0.2 * len(texts)
        assert all(judge.equivalent([(text, text) for text in texts]))
        assert not set(pool.report.counts) & {"crash", "Overflow", "InvalidOperation"}, list(pool.report.last)
        assert judge.equivalent([(r"\sqrt{27}", r"3\sqrt{3}")]) == [True]
        pids.update(pool.pids())
    assert not [pid for pid in pids if alive(pid)]


def test_there_are_400() -> None:
    assert len(set(HOSTILE)) == 400


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_raises_on_a_hostile_answer(rule: str) -> None:
    for text in HOSTILE:
        for wrapped in (
            text,
            f"\\boxed{{{text}}}",
            f"The answer is {text}.",
            f"#### {text}",
            f"<answer>{text}</answer>",
        ):
            answer = extract(wrapped, rule)
            assert answer is None or answer.strip()


def test_20_hostile_answers_end_in_time(alive) -> None:
    survive(HOSTILE[:400:21], alive)


@pytest.mark.slow(seconds=20)
def test_400_hostile_answers_end_in_time(alive) -> None:
    survive(HOSTILE, alive)
