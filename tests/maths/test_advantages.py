"""Advantage estimators by hand: 2 groups of 3, rewards that nothing scored, groups without a signal."""

from __future__ import annotations

import math

import pytest
import torch

from entropilot.maths.advantages import EPSILON, ESTIMATORS, estimate_advantages, groups_with_signal

F64 = torch.float64
NAN = math.nan
# Group means 0.5 and 1; batch mean 0.75.
REWARDS = [1.0, 0.0, 0.5, 2.0, 1.0, 0.0]
# Unbiased: group 1: √((0.25 + 0.25 + 0)/2) = 0.5; group 2: √((1 + 0 + 1)/2) = 1.
# Batch: deviations 0.25, −0.75, −0.25, 1.25, 0.25, −0.75; Σ squares = 2.875, /5 = 0.575.
# Centred by group: 0.5, −0.5, 0, 1, 0, −1; Σ squares = 2.5, /5 = 0.5.
BY_HAND = {
    "grpo": [0.5 / 0.5001, -0.5 / 0.5001, 0.0, 1 / 1.0001, 0.0, -1 / 1.0001],
    "rloo": [1 - 0.25, 0 - 0.75, 0.5 - 0.5, 2 - 0.5, 1 - 1, 0 - 1.5],  # r − mean of the two others
    "reinforce++": [x / (math.sqrt(0.575) + 1e-4) for x in (0.25, -0.75, -0.25, 1.25, 0.25, -0.75)],
    "reinforce++_baseline": [x / (math.sqrt(0.5) + 1e-4) for x in (0.5, -0.5, 0.0, 1.0, 0.0, -1.0)],
}
# The second of group 1 was not scored, nothing of group 2 was, group 3 has one score only.
HOLES = [1.0, NAN, 0.0, NAN, NAN, NAN, NAN, 3.0, NAN]
# Scored: 1, 0 | – | 3. Group 1: mean 0.5, std √(0.5/1). Batch: mean 4/3, deviations −1/3, −4/3, 5/3;
# Σ squares = 42/9, /2 = 7/3. Centred by group: 0.5, −0.5 | 0; Σ squares = 0.5, /2 = 0.25.
HOLES_BY_HAND = {
    "grpo": [0.5 / (math.sqrt(0.5) + 1e-4), 0, -0.5 / (math.sqrt(0.5) + 1e-4), 0, 0, 0, 0, 0, 0],
    "rloo": [1, 0, -1, 0, 0, 0, 0, 0, 0],
    "reinforce++": [x / (math.sqrt(7 / 3) + 1e-4) for x in (-1 / 3, 0, -4 / 3, 0, 0, 0, 0, 5 / 3, 0)],
    "reinforce++_baseline": [x / (0.5 + 1e-4) for x in (0.5, 0, -0.5, 0, 0, 0, 0, 0, 0)],
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_by_hand(near, estimator):
    found = estimate_advantages(torch.tensor(REWARDS, dtype=F64), 3, estimator)
    near(found, BY_HAND[estimator], f"advantages of {estimator}")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_nothing_scored_counts_nowhere(near, estimator):
    found = estimate_advantages(torch.tensor(HOLES, dtype=F64), 3, estimator)
    near(found, HOLES_BY_HAND[estimator], f"a NaN reward must have the advantage 0 under {estimator}")


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, NAN])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equal_rewards_have_no_advantage(estimator, value):
    found = estimate_advantages(torch.full((6,), value, dtype=F64), 3, estimator)
    assert torch.equal(found, torch.zeros(6, dtype=F64))


def test_a_group_without_signal_under_each_baseline(near):
    """Three estimators compare within the group; reinforce++ compares with the batch and keeps the difference."""
    rewards = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=F64)
    for estimator in ("grpo", "rloo", "reinforce++_baseline"):
        assert estimate_advantages(rewards, 2, estimator)[2:].tolist() == [0, 0], estimator
    near(
        estimate_advantages(rewards, 2, "reinforce++")[2:],
        [0.25 / (0.5 + EPSILON)] * 2,
        "mean 0.75, std √((3·0.0625 + 0.5625)/3) = 0.5",
    )


def test_an_unknown_estimator_is_refused(unchecked):
    with pytest.raises(ValueError, match="Unknown advantage estimator 'ppo'; choose one of grpo, rloo"):
        unchecked("entropilot.maths.advantages").estimate_advantages(torch.zeros(4), 2, "ppo")


@pytest.mark.parametrize(
    ("advantages", "signal"),
    [
        ([1, -1, 0, 0], [True, True, False, False]),
        (
            [1, -1, 7e-5, 7e-5],
            [True, True, False, False],
        ),  # (0.1 − mean of six 0.1)/1e-4: rounding is no signal
        ([1, -1, 2e-3, 0], [True] * 4),  # one of a group is enough
        ([-1e-6, 1e-6, 0, 0], [True, True, False, False]),  # the batch is the scale, not 1
        ([0.5, 0.5, -0.5, -0.5], [True] * 4),  # reinforce++: equal rewards, equal advantages
        ([0, 0, 0, 0], [False] * 4),
    ],
)
def test_groups_with_signal(advantages, signal):
    assert groups_with_signal(torch.tensor(advantages, dtype=F64), 2).tolist() == signal


def test_groups_with_signal_of_advantages_per_token():
    advantages = torch.tensor([[0, 0], [0, 0], [0, -1], [0, 0]], dtype=F64)
    assert groups_with_signal(advantages, 2).tolist() == [False, False, True, True]


def test_equal_rewards_have_a_signal_where_they_train():
    """Two groups of equal rewards: `reinforce++` trains on both, the group-centred estimators on neither."""
    rewards = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=F64)
    for estimator in ESTIMATORS:
        signal = groups_with_signal(estimate_advantages(rewards, 2, estimator), 2)
        assert signal.tolist() == [estimator == "reinforce++"] * 4, estimator
