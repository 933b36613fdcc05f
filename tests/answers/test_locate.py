"""Where an extraction rule found its answer: the occurrence that it used, and no other."""

from __future__ import annotations

import pytest

from entropilot.answers.extraction.locate import locate, locate_own
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


QUESTION = r"For example \boxed{2}. What is 3 + 4?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{QUESTION} I do not know.", []),  # the example of the question is no answer
        (rf"It is \boxed{{7}}. {QUESTION}", [(13, "7")]),
        (rf"{QUESTION} It is \boxed{{2}}.", [(len(QUESTION) + 14, "2")]),
        (rf"\boxed{{2}}, as in {QUESTION}", [(7, "2")]),  # the same value stands in the copy
        (rf"{QUESTION} {QUESTION} \boxed{{4é}} {QUESTION}", [(2 * len(QUESTION) + 9, "4é")]),
        (r"so \boxed{7}", [(10, "7")]),
    ],
)
def test_what_stands_in_a_copy_of_the_question_is_passed_over(
    text: str, expected: list[tuple[int, str]]
) -> None:
    spans = locate_own(text, QUESTION)
    assert spans is not None
    assert [(start, text[start:end]) for start, end in spans] == expected


def test_an_answer_around_a_copy_is_two_places_without_it() -> None:
    text = f"1 {QUESTION} 2"
    spans = locate_own(text, QUESTION, "last_line")
    assert spans is not None and "".join(text[start:end] for start, end in spans) == "1  2"
    assert len(spans) == 2 and spans[0][0] == 0 and spans[1][1] == len(text)


def test_a_short_question_is_a_copy_only_where_it_is_the_whole_text() -> None:
    assert locate_own("#4", "#4", "mark") == [] and locate_own("3;#4", "#4", "mark") == [(3, 4)]
