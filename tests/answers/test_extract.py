"""The final answer of a completion: every rule by example, None where there is none, and linear time on hostile text."""

from __future__ import annotations

import time

import pytest

from entropilot.answers.extract import RULES, extract
from entropilot.errors import UserError


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("boxed", r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{1} and a box that never ends \boxed{2", "1"),
        ("boxed", r"\boxed {7}", "7"),
        ("boxed", r"\fbox{8}", "8"),
        ("boxed", r"\boxed{\{1,2\}}", r"\{1,2\}"),
        ("boxed", r"\boxed{\text{a \} b}}", r"\text{a \} b}"),
        ("boxed", r"\boxed{\boxed{3}}", "3"),
        ("boxed", r"{ \boxed{4} an open brace before, and } } two after", "4"),
        ("boxed", r"\boxed{5} then \boxed{ }", "5"),
        ("boxed", r"\boxed{}", None),
        ("boxed", "no box", None),
        ("boxed", r"\boxed 5", None),
        ("hash", "so 3 + 4\n#### 7\nand on", "7"),
        ("hash", "#### 7\n#### 8", "8"),
        ("hash", "####  ", None),
        ("hash", "none", None),
        ("phrase", "The answer is 3.5. That is all.", "3.5"),
        ("phrase", "The answer is 1; no, the final answer is $x = 2$.", "x = 2"),
        ("phrase", "**Answer:** 42", "42"),
        ("phrase", "The answer is:\n\n$$\\frac{1}{2}$$\n\nDone.", r"\frac{1}{2}"),
        ("phrase", "the answers are many", None),
        ("phrase", "The answer is", None),
        ("tag", "<think>a <answer>0</answer></think> <answer> 9 </answer>", "9"),
        ("tag", "<ANSWER>x</Answer>", "x"),
        ("tag", "é <answer>x</answer>", "x"),
        ("tag", "<answer>open", None),
        ("tag", "</answer><answer>", None),
        ("choice", r"\boxed{\text{(C)}}", "C"),
        ("choice", r"\boxed{\textbf{(D)}\ 12}", "D"),
        ("choice", "A is wrong. The correct option is (B).", "B"),
        ("choice", "Answer: C. Because it is", "C"),
        ("choice", "D", "D"),
        ("choice", "(e)", None),
        ("choice", "I think so", None),
        ("last_line", "one\ntwo\n\n", "two"),
        ("last_line", "\n \n", None),
        ("whole", "  a b ", "a b"),
        ("whole", "", None),
        ("auto", r"<answer>1</answer> \boxed{2}", "1"),
        ("auto", "\\boxed{2}\n#### 3", "2"),
        ("auto", "The answer is 4\n#### 3", "3"),
        ("auto", "The answer is 4", "4"),
        ("auto", r"\boxed{} The answer is 4", "4"),
        ("auto", "nothing here", None),
    ],
)
def test_each_rule_finds_the_answer(rule: str, text: str, expected: str | None) -> None:
    assert extract(text, rule) == expected


def test_auto_is_the_default() -> None:
    assert extract("#### 5") == "5"


def test_an_unknown_rule_names_the_choices() -> None:
    with pytest.raises(UserError, match=r"no extraction rule named 'box'; choose one of .*boxed"):
        extract("5", "box")


HOSTILE = {
    "open braces": "{" * 100_000,
    "closed braces": "}" * 100_000,
    "open boxes": "\\boxed{" * 14_000,
    "boxes in boxes": "\\boxed{" * 14_000 + "1" + "}" * 14_000,
    "empty boxes in boxes": "\\boxed{" * 14_000 + "}" * 14_000,
    "boxes": "\\boxed{1}" * 11_000,
    "boxes far from their braces": ("\\boxed" + " " * 30) * 3_000,
    "backslashes": "\\" * 100_000,
    "answers": "answer is " * 10_000,
    "answer and blanks": ("answer" + " " * 50) * 2_000,
    "one sentence": "the answer is " + "x" * 100_000,
    "hashes": "#" * 100_000,
    "open tags": "<answer>" * 12_000,
    "closed tags": "</answer>" * 11_000,
    "letters": "A " * 50_000,
    "words": "option " * 14_000,
    "null bytes": "\x00" * 100_000,
    "lone surrogates": "\ud800\udfff\ud83d" * 30_000,
    "long lower case": "İ" * 100_000,
    "blanks": " " * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_100_kb_of_anything_take_linear_time(name: str) -> None:
    # Twice the text may take about twice the time; a quadratic rule takes four times as long and far more than 2 s.
    start = time.process_time()
    for rule in RULES:
        extract(HOSTILE[name], rule)
    assert time.process_time() - start < 2.0
