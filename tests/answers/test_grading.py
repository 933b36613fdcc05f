"""Gold answers, grades of whole groups in one call, and the vote."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from entropilot.answers.clusters import cluster
from entropilot.answers.grading import gold_answer, grade, majority


class Recording:
    """Equal in letters, whatever their case; keeps what it was asked."""

    name = "recording"

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, str], str | None]] = []
        self.calls = 0

    def equivalent(
        self, pairs: Sequence[tuple[str, str]], questions: Sequence[str | None] | None = None
    ) -> list[bool]:
        self.calls += 1
        self.asked += zip(pairs, questions or [None] * len(pairs), strict=True)
        return [a.lower() == b.lower() for a, b in pairs]


def test_every_distinct_answer_meets_the_gold_answer_once() -> None:
    judge = Recording()
    groups = [["a", "A", "b", None, "a"], ["x"], [None], []]
    found = grade(groups, ["A", None, "y", "z"], judge, ["first?", "second?", None, None])
    assert found == [[True, True, False, False, True], None, [False], []]
    assert judge.asked == [(("A", answer), "first?") for answer in ("a", "A", "b")] and judge.calls == 1
    assert grade([[None]], ["4"], judge) == [[False]] and judge.calls == 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("4:30p..", "4:30p.."),
        ("  7 ", "7"),
        ("First \\boxed{1}, then \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("2+2 is\n#### 4", "4"),
        (" \n", None),
    ],
)
def test_gold_texts(text: str, answer: str | None) -> None:
    assert gold_answer(text) == answer


@pytest.mark.parametrize(
    ("answers", "winner", "tied"),
    [
        (["b", "a", "A"], 1, False),
        (["b", "a", "a", "B"], 0, True),  # the first to appear
        ([None, "a"], 1, False),  # a missing answer has no vote
        ([None, None], None, False),
        ([], None, False),
    ],
)
def test_the_vote(answers: list[str | None], winner: int | None, tied: bool) -> None:
    assert majority(cluster([answers], Recording())[0]) == (winner, tied)
