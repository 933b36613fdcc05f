"""Vector T2 by hand, missing answers, and the rounds against the plain sequential rule, also for judges without manners."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import pytest

from entropilot.answers.clusters import cluster
from entropilot.answers.judges import Function, build_judge
from entropilot.errors import UserError

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


def sequential(answers: Sequence[str | None], equivalent) -> list[int]:
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


ORDERS = [
    # A bare number meets every unit and every name, and these differ from each other.
    (["7 km", "7", "7 km", "7 cm"], {("7 km", "7")}),
    (["x=7", "7", "x = 7", "y=8"], {("x=7", "7", "x = 7")}),
    # Both decimals stand for 1/7, and two decimals are compared as they are written.
    (["0.142857", r"\frac{1}{7}", "0.1428571"], {("0.142857", r"\frac{1}{7}", "0.1428571")}),
    (["0.142857", "0.1428571"], set()),
    # A list meets the tuple and the set of its members; the set and the tuple differ.
    (["(6,2)", "6,2", "[6,2]", "6,2"], {("(6,2)", "6,2")}),
]


@pytest.mark.parametrize(("answers", "together"), ORDERS)
def test_the_clusters_of_the_math_judge_do_not_depend_on_the_order(
    math_judge, answers: list[str], together: set[tuple[str, ...]]
) -> None:
    for order in itertools.permutations(answers):
        found = cluster([list(order)], math_judge)[0]
        members: dict[int, set[str]] = {}
        for answer, label in zip(order, found.labels, strict=True):
            members.setdefault(label, set()).add(answer)
        assert {frozenset(group) for group in members.values() if len(group) > 1} == {
            frozenset(group) for group in together
        }, order
        for label, leader in enumerate(found.representatives):
            assert all(math_judge.equivalent([(leader, each) for each in members[label]]))


def test_the_answer_that_commits_itself_most_stands_for_its_cluster(math_judge) -> None:
    found = cluster([["0.142857", None, r"\frac{1}{7}", "0.1428571"]], math_judge)[0]
    assert (found.labels, found.leaders) == ([0, 1, 0, 0], [2, 1])
    assert found.representatives == [r"\frac{1}{7}", None]


class Short:
    name = "short"

    def equivalent(self, pairs, questions=None) -> list[bool]:
        return [True] * (len(pairs) - 1)


def test_a_judge_with_too_few_verdicts_is_told() -> None:
    with pytest.raises(UserError, match="'short' gave 1 verdicts for 2 pairs; let its equivalent"):
        cluster([["a", "b", "c"]], Short())


def test_of_two_units_as_frequent_the_first_in_the_group_takes_the_bare_number(math_judge) -> None:
    # What no rule decides is left to the order, as in EMPO's code.
    assert cluster([["7 cm", "7", "7 km"]], math_judge)[0].labels == [0, 0, 1]
    assert cluster([["7 km", "7", "7 cm"]], math_judge)[0].labels == [0, 0, 1]


def test_answers_take_their_turn_by_precedence_and_then_by_index() -> None:
    class Vague:
        name = "vague"

        def precedence(self, answers):
            return [(answer[0] == "?", len(answer)) for answer in answers]

        def equivalent(self, pairs, questions=None):
            return [a == b or "?" in (a, b) for a, b in pairs]

    assert cluster([["?", "bb", "a", "?", "cc"]], Vague())[0].labels == [0, 1, 0, 0, 2]
    assert cluster([["?", "b", "a", "a", "?"]], Vague())[0].labels == [0, 1, 0, 0, 0]  # a is there twice


@pytest.mark.parametrize(
    "make",
    [
        lambda n: f"(x-{n})^2+y^2={n + 3}", lambda n: f"{n}/7", lambda n: rf"{n}\sqrt{{5}}", lambda n: f"({n},{n + 1})",
        lambda n: f"x^{{{n}}}+1", lambda n: f"x<{n}", lambda n: rf"({n},{n + 1},\sqrt{{2}})",
        lambda n: rf"({n},{100 - n},\sqrt{{2}})", lambda n: rf"\{{{n},\sqrt{{3}}\}}", lambda n: rf"[{-n},\sqrt{{3}})",
        lambda n: rf"(-\infty,-\sqrt{{3}})\cup({n},\infty)",
    ],
)  # fmt: skip
def test_distinct_answers_are_compared_in_full_a_few_times_each(math_judge, make, monkeypatch) -> None:
    # 24 distinct answers are 276 pairs; a quick look must tell nearly all of them apart.
    from entropilot.answers.math import judge as module

    compared: list[str] = []
    equal = module.equal
    monkeypatch.setattr(module, "equal", lambda *key: compared.append(key[0]) or equal(*key))
    answers = [make(n) for n in range(40, 64)]
    assert cluster([answers], math_judge)[0].labels == list(range(24))
    assert len(compared) < 4 * 24
