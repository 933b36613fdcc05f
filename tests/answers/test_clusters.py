"""Vector T2 by hand, missing answers, and the rounds against the plain sequential rule, also for judges without manners."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from entropilot.answers.clusters import cluster
from entropilot.answers.judges import Function, build_judge

EXACT = build_judge("exact")


def test_t2_by_hand() -> None:
    """A A A B C C '': shares 3/7, 1/7, 2/7, 1/7; H = −(3/7 ln 3/7 + 2/7 ln 2/7 + 2 · 1/7 ln 1/7) = 1.27703…"""
    found = cluster([["A", "A", "A", "B", "C", "C", ""]], EXACT)[0]
    assert found.labels == [0, 0, 0, 1, 2, 2, 3]
    assert found.sizes == [3, 1, 2, 1]
    assert found.shares == pytest.approx([3 / 7, 1 / 7, 2 / 7, 1 / 7], rel=1e-12)
    assert found.semantic_entropy == pytest.approx(1.277034259466139, rel=1e-9)
    assert found.answers == ["A", "A", "A", "B", "C", "C", None]
    assert found.representatives == ["A", "B", "C", None]
    assert found.missing == [False] * 6 + [True]


def test_each_missing_answer_is_its_own_cluster() -> None:
    found = cluster([[None, "", "  \n", "1", None]], EXACT)[0]
    assert found.labels == [0, 1, 2, 3, 4]
    assert found.missing == [True, True, True, False, True]
    assert found.semantic_entropy == pytest.approx(math.log(5), rel=1e-12)


def test_one_cluster_has_no_entropy_and_an_empty_group_nothing() -> None:
    assert cluster([["1"] * 5], EXACT)[0].semantic_entropy == 0.0
    empty = cluster([[]], EXACT)[0]
    assert (empty.labels, empty.sizes, empty.semantic_entropy) == ([], [], 0.0)
    assert cluster([], EXACT) == []


def sequential(answers: list[str | None], equivalent) -> list[int]:
    """The rule as EMPO's final code states it, one answer after the other; shares nothing with the implementation."""
    firsts: list[str | None] = []
    labels = []
    for answer in answers:
        if answer:
            for label, first in enumerate(firsts):
                if first and (first == answer or equivalent(first, answer)):
                    labels.append(label)
                    break
            else:
                firsts.append(answer)
                labels.append(len(firsts) - 1)
        else:
            firsts.append(None)
            labels.append(len(firsts) - 1)
    return labels


@pytest.mark.parametrize("chance", [0.0, 0.1, 0.5, 0.9])
def test_rounds_give_the_sequential_rule_also_without_transitivity_or_symmetry(chance: float) -> None:
    random_ = random.Random(7)
    for _ in range(60):
        table = {pair: random_.random() < chance for pair in itertools.product("abcdefgh", repeat=2)}
        groups = [
            [random_.choice(["", *"abcdefgh"]) for _ in range(random_.randint(0, 20))] for _ in range(3)
        ]
        judge = Function(lambda a, b, _, table=table: table[a, b])
        found = cluster(groups, judge)
        assert [one.labels for one in found] == [sequential(g, lambda a, b, t=table: t[a, b]) for g in groups]


class Counting:
    """Equal by first letter; keeps what it was asked."""

    name = "counting"

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, str]]] = []
        self.questions: list[str | None] = []

    def equivalent(self, pairs, questions=None):
        self.calls.append(list(pairs))
        self.questions += questions or []
        return [a[0] == b[0] for a, b in pairs]


def test_the_judge_sees_large_batches_and_no_pair_twice() -> None:
    judge = Counting()
    groups = [["a1", "a2", "b1", "a1", "b2"], ["c1", "c2"], [None, "d"], ["x", "y", "x2", "y2"]]
    cluster(groups, judge, ["p", "q", "r", "s"])
    assert len(judge.calls) == 2  # one call per round, all groups in it
    assert judge.calls[0] == [
        ("a1", "a2"),
        ("a1", "b1"),
        ("a1", "b2"),
        ("c1", "c2"),
        ("x", "y"),
        ("x", "x2"),
        ("x", "y2"),
    ]
    assert judge.calls[1] == [("b1", "b2"), ("y", "y2")]
    assert judge.questions == ["p", "p", "p", "q", "s", "s", "s", "p", "s"]


def test_questions_must_match_the_groups() -> None:
    with pytest.raises(ValueError, match="1 questions for 2 groups"):
        cluster([["a"], ["b"]], EXACT, ["one"])
