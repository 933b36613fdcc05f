"""The estimators of an evaluation against counting, by hand, and their intervals against repetition."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest

from entropilot.analysis.passk import (
    bootstrap_means,
    estimate,
    estimates,
    ladder,
    majority,
    mean_of_files,
    paired_difference,
    pass_values,
    sampling_error,
)
from entropilot.errors import UserError

# --- pass@k ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(1, 6))
def test_pass_values_are_the_shares_of_subsets_with_a_right_one(k: int) -> None:
    scores = [list(row) for row in product([0.0, 1.0], repeat=5)]
    expected = []
    for row in scores:
        subsets = list(combinations(row, k))
        expected.append(float(Fraction(sum(max(subset) == 1 for subset in subsets), len(subsets))))
    np.testing.assert_allclose(pass_values(scores, k), expected, rtol=4 * np.finfo(float).eps)


def test_pass_values_of_problems_with_different_numbers_of_samples() -> None:
    # 1 of 2 and 1 of 4 right, two drawn: 1; and 1 − C(3,2)/C(4,2) = 1/2. A score of 1/2 is no pass.
    assert pass_values([[1.0, 0.5], [0.0, 0.0, 1.0, 0.4]], 2).tolist() == [1.0, 0.5]
    with pytest.raises(UserError, match="pass@3 can't be estimated from 2 samples"):
        pass_values([[1.0, 0.0], [1.0, 0.0, 1.0]], 3)


@pytest.mark.parametrize(
    ("samples", "ks"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (32, [1, 2, 4, 8, 16, 32])]
)
def test_the_ladder_of_k(samples: int, ks: list[int]) -> None:
    assert ladder(samples) == ks


# --- maj@K ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "scores", "missing", "expected"),
    [
        ([0, 0, 1], [0, 0, 1], [False] * 3, 0.0),
        ([0, 1, 1], [0, 1, 1], [False] * 3, 1.0),
        ([0, 1, 1, 0], [0, 1, 1, 0], [False] * 4, 0.5),  # a tie: the mean of what leads
        ([0, 1, 2], [1, 0, 0], [False] * 3, 1 / 3),
        ([0, 1, 2], [0, 0, 1], [True, True, False], 1.0),  # who gives no answer has no vote
        ([0, 1], [0, 0], [True, True], 0.0),
        ([0], [1], [False], 1.0),
        ([0, 0, 1], [1, 0, 0], [False] * 3, 0.5),  # one cluster judged two ways
    ],
)
def test_majority_by_hand(labels, scores, missing, expected: float) -> None:
    assert majority(labels, scores, missing) == pytest.approx(expected)


# --- intervals ------------------------------------------------------------------------------------------------


def test_bootstrap_means_are_those_of_all_resamples() -> None:
    values = [0.0, 0.3, 1.1]
    exact = np.sort([sum(drawn) / 3 for drawn in product(values, repeat=3)])
    means = bootstrap_means(np.array(values)[:, None], draws=60_000, seed=1)[:, 0]
    assert set(np.round(means, 9)) == set(np.round(exact, 9))
    assert means.mean() == pytest.approx(exact.mean(), abs=0.005)
    assert means.var() == pytest.approx(exact.var(), rel=0.03)


def test_measures_are_resampled_together_and_the_seed_decides() -> None:
    values = np.random.default_rng(0).random(40)
    means = bootstrap_means(np.stack([values, 2 * values], axis=1), draws=50, seed=3)
    np.testing.assert_allclose(means[:, 1], 2 * means[:, 0])
    assert np.array_equal(means, bootstrap_means(np.stack([values, 2 * values], axis=1), draws=50, seed=3))
    assert not np.allclose(means, bootstrap_means(np.stack([values, 2 * values], axis=1), draws=50, seed=4))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # Problems of Beta(1, 2) difficulty (mean 1/3), four samples each: 60 problems, 500 repetitions.
    rng = np.random.default_rng(5)
    inside = []
    for _ in range(500):
        right = rng.binomial(4, rng.beta(1, 2, size=60)) / 4
        found = estimate(right, draws=400)
        assert found.low is not None and found.high is not None and found.low < found.value < found.high
        inside.append(found.low <= 1 / 3 <= found.high)
    assert 0.92 <= np.mean(inside) <= 0.97  # 0.95 ± 3 standard errors of 0.01 is 0.92 to 0.98


def test_the_width_follows_the_level_and_the_number_of_problems() -> None:
    rng = np.random.default_rng(2)
    values = rng.random(400)
    few, many, sure = estimate(values[:100]), estimate(values), estimate(values, level=0.99)

    def width(found) -> float:
        return found.high - found.low

    assert width(few) == pytest.approx(2 * width(many), rel=0.1)  # 0.94 times
    assert width(many) == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)  # 1.03 times
    assert width(sure) == pytest.approx(width(many) * 2.576 / 1.96, rel=0.1)


def test_where_all_are_wrong_the_interval_still_has_a_width() -> None:
    found = estimates(
        {"wrong": np.zeros(8), "right": np.ones(8), "length": np.zeros(8)},
        share={"wrong", "right"},
        draws=40_000,
    )
    bound = 1 - 0.025 ** (1 / 8)  # 0.369: eight wrong in a row have a chance of 2.5 % there
    assert (found["wrong"].value, found["wrong"].low) == (0.0, 0.0)
    assert found["wrong"].high == pytest.approx(bound, abs=0.01)
    assert found["right"].low == pytest.approx(1 - bound, abs=0.01) and found["right"].high == 1.0
    assert found["length"] == (0.0, 0.0, 0.0, 8)  # no share: nothing is known of what else could be


def test_problems_without_a_value_are_left_out() -> None:
    found = estimates({"a": [1.0, math.nan, 3.0], "b": [1.0, 2.0, 3.0], "c": [math.nan] * 3})
    assert (found["a"].value, found["a"].problems) == (2.0, 2)
    assert (found["b"].value, found["b"].problems) == (2.0, 3)
    assert found["c"].problems == 0 and math.isnan(found["c"].value) and found["c"].low is None
    assert list(found) == ["a", "b", "c"]
    assert estimate([0.4]) == (0.4, None, None, 1)  # one problem says nothing of others


def test_every_file_weighs_the_same() -> None:
    a, b = [0.0] * 10 + [1.0] * 10, [1.0, math.nan, 0.0, 1.0, 1.0]
    found = mean_of_files([a, b])
    assert found.value == pytest.approx((0.5 + 0.75) / 2) and found.problems == 24
    spread = math.sqrt(0.25 / 20 + 0.1875 / 4) / 2
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    hidden = mean_of_files([np.zeros(8), np.ones(8)], share=True)
    assert hidden.value == 0.5 and hidden.low < 0.45 and hidden.high > 0.55
    assert mean_of_files([[0.1], [0.2, 0.3]])[1:3] == (None, None)
    assert math.isnan(mean_of_files([[], [1.0]]).value)


def test_files_of_one_length_are_resampled_apart() -> None:
    values = np.random.default_rng(0).random(100)
    twice, once = mean_of_files([values, values]), estimate(values)
    assert twice.high - twice.low == pytest.approx((once.high - once.low) / math.sqrt(2), rel=0.15)


# --- pairs ----------------------------------------------------------------------------------------------------


def test_paired_differences_by_hand() -> None:
    found = paired_difference([0.0, 0.5, 1.0, 0.25, math.nan], [0.5, 0.5, 0.75, 1.0, 1.0])
    assert found.value == pytest.approx((0.5 + 0.0 - 0.25 + 0.75) / 4)
    assert (found.problems, found.better, found.worse, found.equal) == (4, 2, 1, 1)
    assert found.low == pytest.approx(-0.125, abs=0.08) and found.high == pytest.approx(0.625, abs=0.08)
    same = paired_difference([0.1 + 0.2], [0.3])
    assert (same.value, same.equal, same.low) == (0.0, 1, None)


def test_pairing_takes_the_hardness_of_problems_out() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random(200)
    a, b = hard, np.clip(hard + 0.05 + rng.normal(0, 0.02, 200), 0, 2)
    paired = paired_difference(a, b)
    assert 0.04 < paired.low < paired.high < 0.06
    assert estimate(a).high > estimate(b).low  # on their own they overlap


def test_the_error_of_sampling_again_by_hand() -> None:
    # s² of (1, 0) is 1/2, of (1, 1, 0, 0) 1/3: sqrt(1/4 + 1/12) / 2
    assert sampling_error([[1.0, 0.0], [1.0, 1.0, 0.0, 0.0]]) == pytest.approx(math.sqrt(1 / 3) / 2)
    assert sampling_error([[1.0, 1.0]]) == 0.0
    assert sampling_error([[1.0], [1.0, 0.0]]) is None and sampling_error([]) is None
