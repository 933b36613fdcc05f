"""Labels tell unequal answers apart at once, and never two that are equal."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

pytest.importorskip("math_verify", reason="math-verify is not installed")

from entropilot.answers.math.labels import Form, Unknown, form
from entropilot.answers.math.pool import shared_pool
from entropilot.answers.normalise import normalise

# Each row is one meaning in several spellings.
EQUAL = [
    [
        r"(\frac{1}{3},\sqrt{2})",
        r"(0.333333,\frac{2}{\sqrt{2}})",
        r"(0.333333,1.414214)",
        r"\left(1/3, \sqrt{2}\right)",
    ],
    [r"\{1,-\sqrt{8}\}", r"\{-2\sqrt{2},1\}", r"\{1.0,-2.828427\}"],
    [r"1\pm\sqrt{5}", r"1-\sqrt{5},1+\sqrt{5}"],
    [r"(-\infty,-\sqrt{3})\cup(\sqrt{3},\infty)", r"(\sqrt{3},\infty)\cup(-\infty,-\frac{3}{\sqrt{3}})"],
    [r"\begin{pmatrix}1\\\sqrt{4}\end{pmatrix}", r"(1,2)", r"(\sqrt{1},2)"],
    [r"(10^{-30},\sqrt{2})", r"(\frac{1}{10^{30}},\sqrt{2})"],
    [r"(2x,\sin x)", r"(x+x,\sin{x})"],
    [r"\{7\}", "7", r"\sqrt{49}"],
    [r"(3+4i,\sqrt{2})", r"(4i+3,\frac{2}{\sqrt{2}})"],
    ["2x<5", "x<5/2", "5/2>x", r"(-\infty,\frac{5}{2})", "x<2.5"],
    [r"x^2\ge 2", r"(-\infty,-\sqrt{2}]\cup[\sqrt{2},\infty)"],
    [r"1\le x<3", "[1,3)"],
]
# Pairs that only one of the sums tells apart: by size, by sign, by squares, by place.
APART = [
    (r"(1,\sqrt{2})", r"(2,\sqrt{2})"),
    (r"(1,-\sqrt{2})", r"(-1,\sqrt{2})"),
    (r"(3,7,\sqrt{2})", r"(4,6,\sqrt{2})"),
    (r"(3,7,\sqrt{2})", r"(7,3,\sqrt{2})"),
    ("2x<5", "2x<7"),
    ("x<3", r"(-\infty,4)"),
]


def form_of(answer: str) -> Any:
    """Return the form of an answer after workers have described all that it takes."""
    replies: dict[tuple[str, str], Any] = {}

    def ask(verb: str, bodies: list[str]) -> None:
        requests = [(verb, body) for body in bodies]
        replies.update(zip(requests, shared_pool().run([{verb: body} for body in bodies]), strict=True))

    ask("solve", [normalise(answer).body])
    found = form(answer, False, lambda *request: replies.get(request))
    if isinstance(found, Unknown):
        ask("describe", sorted(found.bodies))
        found = form(answer, False, lambda *request: replies.get(request))
    assert isinstance(found, Form), answer
    return found


@pytest.mark.parametrize("spellings", EQUAL, ids=lambda row: row[0])
def test_equal_answers_are_never_apart(math_judge, spellings: list[str]) -> None:
    pairs = list(combinations(spellings, 2))
    assert math_judge.equivalent(pairs) == [True] * len(pairs)
    forms = {answer: form_of(answer) for answer in spellings}
    assert not [pair for pair in pairs if forms[pair[0]].apart(forms[pair[1]])]


@pytest.mark.parametrize(("one", "other"), APART)
def test_each_sum_tells_something_apart(one: str, other: str) -> None:
    assert form_of(one).apart(form_of(other)) and form_of(other).apart(form_of(one))


def test_permutations_of_a_set_are_not_apart() -> None:
    assert not form_of(r"\{3,7,\sqrt{2}\}").apart(form_of(r"\{\sqrt{2},7,3\}"))


def test_what_a_worker_has_to_say_is_named() -> None:
    assert form(r"(1,\sqrt{2},x+1)", False, lambda *_: None) == Unknown(frozenset({r"\sqrt{2}", "x+1"}))
    assert form("2x<5", False, lambda *_: None) is None  # what it describes is not known
    assert form(r"(1,\sqrt{2,3)", False, lambda *_: None) is None  # braces that do not match are no LaTeX
