"""The choice of prompts: variance and intervals by hand, ties, label-free rules; the area under the ROC curve by pairs."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad

from entropilot.analysis.auroc import auroc
from entropilot.analysis.prompts import (
    agreement,
    jeffreys,
    rank_prompts,
    score_prompt,
    value_of,
    variance_interval,
)
from entropilot.errors import UserError


def scored(correct: int | None, k: int = 8, most: int | None = None, token_entropy: float | None = None):
    """A prompt whose answers are `most` times one answer and else all different."""
    most = k if most is None else most
    labels = [0] * most + list(range(1, k - most + 1))
    grades = None if correct is None else [i < correct for i in range(k)]
    return score_prompt(labels, [False] * k, grades, token_entropy)


def test_a_prompt_by_hand() -> None:
    # Answers A A A B C C and one missing (its own cluster), 3 of 7 right: T2's group.
    labels, missing = [0, 0, 0, 1, 2, 2, 3], [False] * 6 + [True]
    score = score_prompt(labels, missing, [True] * 3 + [False] * 4, token_entropy=0.5)
    assert (score.samples, score.correct, score.token_entropy) == (7, 3, 0.5)
    assert score.accuracy == pytest.approx(3 / 7, rel=1e-12)
    # ((4/7)²·3 + (3/7)²·4)/7 = (48 + 36)/343 = 12/49
    assert score.variance == pytest.approx(12 / 49, rel=1e-12)
    entropy = -(3 / 7 * math.log(3 / 7) + 2 / 7 * math.log(2 / 7) + 2 / 7 * math.log(1 / 7))
    assert score.semantic_entropy == pytest.approx(entropy, rel=1e-12) == pytest.approx(1.2770343, rel=1e-7)
    assert score.majority_share == pytest.approx(3 / 7, rel=1e-12)
    assert value_of(score, "majority_share") == pytest.approx(12 / 49, rel=1e-12)


def test_missing_answers_have_no_majority() -> None:
    score = score_prompt([0, 1, 2, 3], [True, True, False, True])
    assert score.majority_share == 0.25 and score.semantic_entropy == pytest.approx(math.log(4), rel=1e-12)
    nobody = score_prompt([0, 1], [True, True])
    assert nobody.majority_share == 0 and value_of(nobody, "majority_share") == 0
    assert (nobody.accuracy, nobody.variance, nobody.accuracy_interval) == (None, None, None)


@pytest.mark.parametrize(("correct", "k"), [(3, 8), (1, 5), (7, 8), (20, 64)])
def test_jeffreys_leaves_the_tails_of_its_posterior(correct: int, k: int) -> None:
    def density(p: float) -> float:
        return p ** (correct - 0.5) * (1 - p) ** (k - correct - 0.5)

    low, high = jeffreys(correct, k, level=0.9)
    whole = quad(density, 0, 1)[0]
    assert quad(density, 0, low)[0] / whole == pytest.approx(0.05, abs=1e-7)
    assert quad(density, high, 1)[0] / whole == pytest.approx(0.05, abs=1e-7)
    mirrored = jeffreys(k - correct, k, level=0.9)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high), rel=1e-9)


def test_jeffreys_ends_where_nothing_failed() -> None:
    assert jeffreys(0, 8).low == 0 < jeffreys(0, 8).high < 0.3
    assert jeffreys(8, 8).high == 1 > jeffreys(8, 8).low > 0.7
    for wrong in [(9, 8), (-1, 8), (0, 0)]:
        with pytest.raises(UserError, match="has no interval"):
            jeffreys(*wrong)
    with pytest.raises(UserError, match="level"):
        jeffreys(1, 2, level=1.0)


def test_the_interval_of_the_variance_is_its_range() -> None:
    for low, high in [(0.1, 0.3), (0.2, 0.9), (0.6, 0.95), (0.0, 0.26), (0.5, 0.6)]:
        p = np.linspace(low, high, 10_001)
        values = p * (1 - p)
        found = variance_interval(type(jeffreys(1, 2))(low, high))
        assert found == pytest.approx((values.min(), values.max()), abs=1e-8)
    assert scored(0).variance_interval.low == 0.0
    assert scored(4).variance_interval.high == 0.25


def test_the_largest_variance_comes_first_and_ties_are_counted() -> None:
    # accuracy 0, 3/8, 4/8, 5/8, 4/8, 8/8; rows 2 and 4 tie, and row 4's answers disagree more.
    scores = [scored(0), scored(3), scored(4, most=5), scored(5), scored(4, most=3), scored(8)]
    ranking = rank_prompts(scores)
    assert ranking.order == [4, 2, 1, 3, 0, 5]
    assert (ranking.by, ranking.tied, ranking.unknown) == ("variance", 2, 0)
    assert ranking.values == pytest.approx([0, 15 / 64, 0.25, 15 / 64, 0.25, 0], abs=1e-15)
    assert rank_prompts(scores[::-1]).order == [1, 3, 2, 4, 0, 5]  # only what ties goes by the row


@pytest.mark.parametrize("k", [2, 5, 6, 7, 9, 10, 13, 49])
def test_rounding_breaks_no_tie(k: int) -> None:
    for c in range(0, k + 1, 3):
        tie = rank_prompts([scored(c, k), scored(k - c, k), scored(2 * c, 2 * k)])
        assert tie.tied == 3
        same = rank_prompts(
            [scored(None, k, most=max(1, c)), scored(None, 3 * k, most=3 * max(1, c))], "majority_share"
        )
        assert same.tied == 2


def test_how_many_could_be_the_better_choice() -> None:
    # 32 of 64 against: the same; 31 of 64 (as good as even); 2 and 62 of 64 (surely less).
    scores = [scored(c, 64) for c in (32, 32, 31, 2, 62)]
    assert rank_prompts(scores).unclear == 2
    assert rank_prompts([scored(c, 2) for c in (1, 0, 2)]).unclear == 2  # two samples tell nothing
    assert rank_prompts(scores, by="semantic_entropy").unclear is None
    # 4 of 8 against 1 of 8: Beta(4.5, 4.5) and Beta(1.5, 7.5), their p·(1 − p) compared on a grid of midpoints.
    p = (np.arange(2000) + 0.5) / 2000
    one, other = p**3.5 * (1 - p) ** 3.5, p**0.5 * (1 - p) ** 6.5
    one, other = one / one.sum(), other / other.sum()
    order = np.argsort(p * (1 - p), kind="stable")
    chance = float((one[order] * (other[order].cumsum() - other[order] / 2)).sum())
    assert 0.8 < chance < 0.99
    pair = [scored(4), scored(1)]
    assert rank_prompts(pair, level=chance - 0.02).unclear == 0
    assert rank_prompts(pair, level=chance + 0.02).unclear == 1


def test_the_rules_without_labels() -> None:
    scores = [
        scored(None, most=8, token_entropy=0.1),
        scored(None, most=4, token_entropy=None),
        scored(None, most=1, token_entropy=0.3),
    ]
    assert rank_prompts(scores, "semantic_entropy").order == [2, 1, 0]
    assert rank_prompts(scores, "majority_share").order == [1, 2, 0]  # 4/8 is nearer to one half than 1/8
    by_tokens = rank_prompts(scores, "token_entropy")
    assert by_tokens.order == [2, 0, 1] and by_tokens.unknown == 1
    assert by_tokens.values == [0.1, None, 0.3]
    with pytest.raises(UserError, match="No prompt can be ranked by variance: none of the 3 has a value"):
        rank_prompts(scores)
    with pytest.raises(UserError, match="there are none"):
        rank_prompts([])
    with pytest.raises(UserError, match="no rule 'luck'"):
        rank_prompts(scores, "luck")


@pytest.mark.parametrize(
    ("labels", "missing", "correct"),
    [([], [], None), ([0], [False, False], None), ([0, 1], [False] * 2, [True])],
)
def test_lists_that_do_not_fit(labels, missing, correct) -> None:
    with pytest.raises(UserError, match="A prompt is scored by k ≥ 1 samples"):
        score_prompt(labels, missing, correct)


def test_agreement_of_a_label_free_rule_with_the_variance() -> None:
    scores = [scored(c, most=most) for c, most in [(0, 8), (1, 7), (2, 6), (4, 4)]]
    assert agreement(scores, "semantic_entropy") == pytest.approx(1.0)
    assert agreement(scores[:2], "semantic_entropy") is None
    assert agreement([scored(4), scored(4), scored(4)], "semantic_entropy") is None
    assert agreement(scores, "token_entropy") is None
    assert agreement(
        [scored(c, most=8 - c) for c in (0, 2, 4)] + [scored(None)], "majority_share"
    ) == pytest.approx(1.0)


# --- the area under the ROC curve -------------------------------------------------------------------------------------


def by_pairs(scores: list[float], marked: list[bool]) -> float:
    pairs = [(a, b) for (a, x), (b, y) in product(zip(scores, marked, strict=True), repeat=2) if x and not y]
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.integers(0, 4, size=12).tolist()
        marked = [True, False, *(rng.random(10) < 0.4).tolist()]
        assert auroc(scores, marked, draws=10).value == pytest.approx(by_pairs(scores, marked), rel=1e-12)


def test_the_interval_of_auroc_is_a_bootstrap_of_rows() -> None:
    rng = np.random.default_rng(1)
    marked = rng.random(60) < 0.4
    scores = (rng.integers(0, 5, size=60) + marked).astype(float)
    found = auroc(scores, marked, level=0.9, draws=4000)
    drawn = []
    while len(drawn) < 800:
        rows = rng.integers(60, size=60)
        if 0 < marked[rows].sum() < 60:
            drawn.append(by_pairs(scores[rows].tolist(), marked[rows].tolist()))
    low, high = np.quantile(drawn, [0.05, 0.95])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.015)
    assert (found.positive, found.negative) == (int(marked.sum()), int((~marked).sum()))
    assert auroc(scores, marked, level=0.9) == found  # the same draws every time
    assert auroc(scores, marked, seed=1).low != found.low


def test_auroc_of_one_class_and_of_separated_ones() -> None:
    assert auroc([], []) == (None, None, None, 0, 0)
    assert auroc([1.0, 2.0], [True, True]) == (None, None, None, 2, 0)
    assert auroc([1.0, 2.0], [False, False]) == (None, None, None, 0, 2)
    assert auroc([2.0, 1.0, 1.5], [True, False, False]) == (1.0, None, None, 1, 2)
    assert auroc([2.0, 1.0], [False, True]) == (0.0, None, None, 1, 1)
    tied = auroc([1.0, 1.0, 1.0], [True, False, False])
    assert (tied.value, tied.low, tied.high) == (0.5, 0.5, 0.5)
    for scores, marked in [([1.0], [True, False]), ([math.nan, 1.0], [True, False])]:
        with pytest.raises(ValueError, match="of one length"):
            auroc(scores, marked)
