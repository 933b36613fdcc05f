"""Where an extraction rule found its answer: the occurrence that it used, and no other."""

from __future__ import annotations

import pytest

from entropilot.answers.extraction.locate import locate
from entropilot.sandbox.tasks import get_tier

CASES = [  # text, rule, the pieces of the answer with where each begins
    (r"5 + 0 = 5, so \boxed{5}.", "auto", [(21, "5")]),
    (r"\boxed{x+1}, thus \boxed{x+1}", "auto", [(25, "x+1")]),
    (r"\boxed{\frac{1}{2}} and later 1/2", "auto", [(7, r"\frac{1}{2}")]),
    (r"\boxed{3} and \boxed{4}", "auto", [(7, "3"), (21, "4")]),
    (r"first -3, then -\boxed{3}", "auto", [(23, "3")]),
    ("The answer is 42. So 42 it is", "auto", [(14, "42")]),
    ("15 + 5 = 20 #### 1,234\n", "auto", [(17, "1,234")]),
    ("答案是四十二。四十二", "auto", [(3, "四十二")]),
    ("Answer: B, so the answer is (B)", "choice", [(29, "B")]),
    ("<answer>yes</answer> yes", "auto", [(8, "yes")]),
    ("so 7 and 9, then 7", "lenient", [(17, "7")]),
    ("7\nüñ 7", "last_line", [(2, "üñ 7")]),
    ("π = 3, é: \\boxed{π}", "auto", [(17, "π")]),
    ("3+4=7;7*2=4;#4", get_tier("chains").answer_of, [(13, "4")]),
    ("<think>\\boxed{9}</think> It is \\boxed{8}", "auto", [(38, "8")]),
]


@pytest.mark.parametrize(("text", "rule", "expected"), CASES, ids=[case[0] for case in CASES])
def test_the_occurrence_that_the_rule_used(text, rule, expected) -> None:
    spans = locate(text, rule)
    assert spans is not None
    assert [(start, text[start:end]) for start, end in spans] == expected


def test_no_answer_has_no_place() -> None:
    assert locate("I do not know", "auto") == [] and locate("", "auto") == []
    assert locate("anything", lambda text: "  ") == []


def test_an_answer_that_stands_nowhere_in_the_text_is_not_located() -> None:
    assert locate("five", lambda text: "5") is None
    assert locate(r"so \boxed{2}\pi", "auto") is None, (
        "the factor is a command, which has no value of its own form"
    )
    assert locate("5 and 5", lambda text: "5") is None, "no occurrence decides what this function says"


def test_a_text_of_many_mentions_takes_no_longer_than_its_occurrences() -> None:
    asked: list[str] = []

    def first(text: str) -> str:
        asked.append(text)
        return text[:1]

    assert locate("1" * 5000, first) is None  # only the last 200 are tried
    assert len(asked) <= 1 + 2 * 200 * 5
