"""W-REINFORCE: by hand, equal rewards, what was not scored, settings that can't work."""

from __future__ import annotations

import math

import pytest
import torch

from entropilot.maths.advantages import groups_with_signal
from entropilot.methods.advantage_method import RewardBatch
from entropilot.methods.w_reinforce import WReinforce

F64 = torch.float64


def rollout(rewards: list[float], generations: int = 2) -> RewardBatch:
    b = len(rewards)
    return RewardBatch(
        torch.tensor(rewards, dtype=F64),
        generations,
        torch.full((b,), 9.0, dtype=F64),
        torch.zeros(b, 2, dtype=F64),
        torch.ones(b, 2, dtype=torch.bool),
        torch.zeros(b, 2, dtype=F64),
    )


def test_right_is_a_little_and_wrong_is_one():
    estimate = WReinforce().estimate(rollout([1.0, 0.0, 0.5, 0.75]))
    assert estimate.advantages.tolist() == [0.1, -1.0, -1.0, 0.1]
    assert estimate.counts == {}


def test_a_weight_of_0_leaves_the_wrong_ones_alone_to_learn_from():
    assert WReinforce(weight=0.0).estimate(rollout([1.0, 0.0])).advantages.tolist() == [0.0, -1.0]


def test_groups_of_equal_rewards_are_trained_on():
    """GRPO gives both groups 0; here all four rows pull, so their groups have a signal."""
    advantages = WReinforce().estimate(rollout([1.0, 1.0, 0.0, 0.0])).advantages
    assert advantages.tolist() == [0.1, 0.1, -1.0, -1.0]
    assert groups_with_signal(advantages, 2).tolist() == [True] * 4


def test_what_counts_as_right_can_be_set():
    assert WReinforce(right=0.2).estimate(rollout([0.25, 0.2])).advantages.tolist() == [0.1, -1.0]


def test_what_nothing_scored_gets_nothing():
    assert WReinforce().estimate(rollout([math.nan, 1.0])).advantages.tolist() == [0.0, 0.1]


def test_defaults_are_the_papers():
    assert WReinforce() == WReinforce(weight=0.1, right=0.5)
    assert WReinforce.from_rewards and not WReinforce.per_token


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -0.1}, r"W-REINFORCE: weight=-0\.1 must be a number of at least 0; the paper's is 0\.1"),
        ({"weight": math.inf}, r"W-REINFORCE: weight=inf must be"),
        ({"right": math.nan}, r"W-REINFORCE: right=nan must be a number"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        WReinforce(**settings)
