"""QAE: the quantile, the scale and the sides, by hand; what was not scored; settings that can't work."""

from __future__ import annotations

import math

import pytest
import torch

from entropilot.methods.advantage_method import RewardBatch
from entropilot.methods.qae import QAE

F64 = torch.float64
NAN = math.nan


def rollout(rewards: list[float], generations: int) -> RewardBatch:
    b = len(rewards)
    return RewardBatch(
        torch.tensor(rewards, dtype=F64),
        generations,
        torch.full((b,), 9.0, dtype=F64),  # the estimator's: not read
        torch.zeros(b, 2, dtype=F64),
        torch.ones(b, 2, dtype=torch.bool),
        torch.zeros(b, 2, dtype=F64),
    )


def test_a_rare_and_a_common_success_by_hand(near):
    """K = 0.4 of five. Rewards 1 0 0 0 0: F(0) = 0.8 ≥ 0.4, Q = 0, std = √(0.2·0.8) = 0.4: A = 2.5, 0, 0, 0, 0.

    Rewards 1 1 1 1 0: F(0) = 0.2 < 0.4, Q = 1, the same std: A = 0, 0, 0, 0, −2.5.
    """
    batch = rollout([1, 0, 0, 0, 0, 1, 1, 1, 1, 0], 5)
    near(
        QAE(epsilon=0.0).estimate(batch).advantages,
        [2.5, 0, 0, 0, 0, 0, 0, 0, 0, -2.5],
        "only the rarer side is trained on",
    )


@pytest.mark.parametrize(
    ("quantile", "baseline"),
    # Of 0, 1, 2, 4: F = 0.25, 0.5, 0.75, 1. Nothing is interpolated, and a share that is reached counts.
    [(0.2, 0), (0.25, 0), (0.26, 1), (0.4, 1), (0.5, 1), (0.6, 2), (0.75, 2), (0.8, 4), (0.99, 4)],
)
def test_the_quantile_is_the_first_reward_up_to_which_a_share_of_k_lies(near, quantile, baseline):
    """mean 1.75, std = √((1.75² + 0.75² + 0.25² + 2.25²)/4) = √2.1875."""
    rewards = [4.0, 0.0, 2.0, 1.0]
    expected = [(reward - baseline) / (math.sqrt(2.1875) + 0.5) for reward in rewards]
    near(
        QAE(quantile=quantile, epsilon=0.5).estimate(rollout(rewards, 4)).advantages,
        expected,
        "(R − Q) / (std + ε)",
    )


@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
def test_equal_rewards_give_nothing(epsilon):
    batch = rollout([0.3, 0.3, 0.3, 1.0, 1.0, 1.0], 3)
    assert QAE(epsilon=epsilon).estimate(batch).advantages.tolist() == [0.0] * 6


def test_what_nothing_scored_counts_nowhere(near):
    """Of 1, 0, 0 and a missing one: Q = 0, mean 1/3, std = √(2/9)."""
    batch = rollout([1, NAN, 0, 0, NAN, NAN, NAN, NAN], 4)
    near(
        QAE(epsilon=0.0).estimate(batch).advantages,
        [1 / math.sqrt(2 / 9), 0, 0, 0, 0, 0, 0, 0],
        "a group without a reward has no advantage",
    )


def test_defaults_are_the_papers():
    assert QAE() == QAE(quantile=0.4, epsilon=1e-8)
    assert QAE.from_rewards and not QAE.per_token


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantile": 0.0}, r"QAE: quantile=0\.0 must lie in \(0, 1\)"),
        ({"quantile": 1.0}, r"QAE: quantile=1\.0 must lie in"),
        ({"quantile": NAN}, r"QAE: quantile=nan must lie in"),
        ({"epsilon": -1.0}, r"QAE: epsilon=-1\.0 must be a number of at least 0"),
        ({"epsilon": NAN}, r"QAE: epsilon=nan must be"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        QAE(**settings)
