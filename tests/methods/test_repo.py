"""REPO: the factors of both signs by hand on T1, the stop at 0, padding, how ζ moves, settings that can't work."""

from __future__ import annotations

import math

import pytest
import torch

from entropilot.methods.adaptive import Reading
from entropilot.methods.advantage_method import RewardBatch
from entropilot.methods.repo import REPO

F64 = torch.float64


def t1(padding: float = -0.5, advantages: tuple[float, float] = (1.5, -0.5)) -> RewardBatch:
    """T1 of tests/conftest.py: log π = −0.1, −2.0 | −1.0, −0.2, −2.7."""
    logp = torch.tensor([[-0.1, -2.0, padding], [-1.0, -0.2, -2.7]], dtype=F64)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    rows = torch.tensor(advantages, dtype=F64)
    return RewardBatch(torch.zeros(2, dtype=F64), 2, rows, logp, mask, torch.zeros(2, 3, dtype=F64))


@pytest.mark.parametrize("padding", [-0.5, math.nan, -math.inf])
def test_t1_by_hand(near, padding):
    """ζ = 0.2. A = 1.5: 1.5·(1 + 0.02), 1.5·(1 + 0.4). A = −0.5: −0.5·(1 − 0.2), (1 − 0.04), (1 − 0.54)."""
    estimate = REPO(zeta=0.2).estimate(t1(padding))
    expected = [[1.53, 2.1, 0.0], [-0.4, -0.48, -0.23]]
    near(estimate.advantages, expected, "1 − ζ log π where A > 0, 1 + ζ log π where A < 0, 0 in the padding")
    assert estimate.counts == {"clamped": 0.0}


def test_the_factor_of_a_negative_advantage_stops_at_0(near):
    """ζ = 0.5: log π = −2.7 < −1/ζ = −2 gives 1 − 1.35 < 0. The positive row has no such bound."""
    estimate = REPO(zeta=0.5).estimate(t1())
    near(estimate.advantages, [[1.575, 3.0, 0.0], [-0.25, -0.45, 0.0]], "no token that failed is rewarded")
    assert estimate.counts == {"clamped": 1.0}


def test_a_row_without_an_advantage_stays_without():
    assert REPO(zeta=0.2).estimate(t1(advantages=(0.0, 0.0))).advantages.tolist() == [[0.0] * 3] * 2


def test_a_token_that_the_policy_cannot_give_keeps_its_advantage():
    batch = t1()
    batch.logp[1, 2] = -math.inf
    estimate = REPO(zeta=0.2).estimate(batch)
    assert estimate.advantages[1, 2] == -0.5 and estimate.counts == {"clamped": 0.0}


def test_zeta_doubles_below_the_first_entropy_and_halves_above():
    """H_0 = 0.7. Then 0.6: 0.02; 0.5: 0.04; 0.8: 0.02; 0.7: stays; ten times 0.1: stops at 1; and back at once."""
    rule, memory, seen = REPO(zeta=0.01), {}, []
    for step, entropy in enumerate([0.7, 0.6, 0.5, 0.8, 0.7, *[0.1] * 10, 0.8]):
        acting, memory = rule.adapt(memory, Reading(entropy, step, 100))
        assert acting.zeta == memory["zeta"] and memory["target"] == 0.7
        seen.append(memory["zeta"])
    assert seen[:5] == [0.01, 0.02, 0.04, 0.02, 0.02]
    assert seen[10:] == [1.0, 1.0, 1.0, 1.0, 1.0, 0.5]


def test_zeta_stops_at_its_lowest_and_a_target_can_be_set():
    rule, memory = REPO(zeta=3e-4, target=0.5), {}
    for step in range(4):
        acting, memory = rule.adapt(memory, Reading(0.9, step, 100))
    assert acting.zeta == 1e-4 and memory["target"] == 0.5


def test_it_adapts_unless_it_is_told_not_to():
    assert REPO().adapts and not REPO(adaptive=False).adapts
    assert REPO.per_token and not REPO.from_rewards


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zeta": 2.0}, r"REPO: zeta=2\.0 must lie between lowest=0\.0001 and highest=1\.0"),
        ({"lowest": 0.0}, r"REPO: zeta=0\.01 must lie between lowest=0\.0"),
        ({"zeta": math.nan}, r"REPO: zeta=nan must lie"),
        ({"target": -1.0}, r"REPO: target=-1\.0 must be an entropy in nats"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        REPO(**settings)
