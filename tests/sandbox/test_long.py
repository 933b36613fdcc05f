"""The tier `long`: chains with written working, of which the base's majority gets a good part wrong."""

from __future__ import annotations

import random

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from entropilot.evaluation.in_memory import Evaluation
from entropilot.evaluation.tier_properties import attempts, majority_at
from entropilot.sandbox import weights_of
from entropilot.sandbox.tasks import CHAINS, LONG, Problem


def test_problems_have_six_to_eight_digits() -> None:
    found = LONG.problems("train", 400, seed=3)
    assert {len(problem.prompt.removesuffix("=?")) for problem in found} == {11, 13, 15}
    # 7 − 8 = −1, which is 9; 9 · 3 = 27; 7 + 4 = 11; 1 · 5; 5 − 6 = −1; 9 + 2 = 11; 1 · 1
    assert LONG.right(Problem("7-8*3+4*5-6+2*1=?", "1")) == "7-8=9;9*3=7;7+4=1;1*5=5;5-6=9;9+2=1;1*1=1;#1"


def test_no_solution_is_longer_than_the_limit_and_all_are_scored() -> None:
    random_ = random.Random(0)
    for problem in LONG.problems("validation", 200, seed=1):
        right = LONG.right(problem)
        assert LONG.score(right, problem.answer) == 1.0
        # One token a character, and the end.
        assert max(len(LONG.solve(problem, random_)), len(right)) < LONG.max_completion_length


def test_the_majority_of_the_first_attempts_by_hand() -> None:
    gold = ["4", "5", "6", "7"]
    completions = [
        [
            "#4",
            "#3",
            "#4",
            "#3",
            "#3",
        ],  # a tie among the first four, one of them right: 1/2; wrong of all five
        ["x", "x", "#5", "x", "x"],  # no answer does not vote
        ["x", "", "#", "6", "="],  # none at all
        ["#1", "#7", "#7", "#1", "#7"],  # 1/2 of four, right of five
    ]
    scores = [
        [CHAINS.score(text, answer) for text in row] for row, answer in zip(completions, gold, strict=True)
    ]
    tried = Evaluation(scores, completions, [[0] * 5] * 4, [[False] * 5] * 4)
    assert [majority_at(tried, CHAINS, k) for k in (1, 4, 5)] == [1 / 4, 2 / 4, 2 / 4]


def test_its_base_is_right_sometimes_and_its_majority_often_wrong() -> None:
    folder = weights_of("long")
    base = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    problems = LONG.problems("train", 16, seed=5)
    tried = attempts(*base, LONG, problems, samples=8)
    # On 128 problems 0.52 and 0.34.
    assert 0.3 < majority_at(tried, LONG, 8) < 0.75
    assert tried.accuracy == pytest.approx(0.34, abs=0.08)
    assert tried.truncated < 0.02
