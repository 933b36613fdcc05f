"""Entrocraft: both sides of the band and its inside by hand, how it moves, what a controller sets."""

from __future__ import annotations

import math

import pytest
import torch

from entropilot.methods.adaptive import Reading
from entropilot.methods.advantage_method import RewardBatch
from entropilot.methods.entrocraft import Entrocraft

F64 = torch.float64
A = [1.5, -0.5, 0.0, -2.0]


def masked(rule: Entrocraft) -> tuple[list[float], dict[str, float]]:
    batch = RewardBatch(
        torch.zeros(4, dtype=F64),
        4,
        torch.tensor(A, dtype=F64),
        torch.zeros(4, 2, dtype=F64),
        torch.ones(4, 2, dtype=torch.bool),
        torch.zeros(4, 2, dtype=F64),
    )
    estimate = rule.estimate(batch)
    return estimate.advantages.tolist(), estimate.counts


@pytest.mark.parametrize(
    ("entropy", "sign", "kept", "left_out"),
    [
        (0.71, 1, [1.5, 0.0, 0.0, 0.0], 2),  # above: what sharpens is kept
        (0.59, -1, [0.0, -0.5, 0.0, -2.0], 1),  # below: what flattens is kept
        (0.65, 0, A, 0),
        (0.7, 0, A, 0),  # the bounds belong to the band
        (0.6, 0, A, 0),
    ],
)
def test_the_side_of_the_band_decides_the_sign(entropy, sign, kept, left_out):
    acting, memory = Entrocraft().adapt({}, Reading(entropy, 0, 100))
    assert memory == {"band_low": 0.6, "band_high": 0.7, "sign": sign}
    assert masked(acting) == (kept, {"left_out": left_out})


@pytest.mark.parametrize(
    ("step", "low", "high"), [(0, 0.6, 0.7), (25, 0.55, 0.65), (100, 0.4, 0.5), (130, 0.4, 0.5)]
)
def test_the_band_moves_linearly_over_the_training(step, low, high):
    _, memory = Entrocraft().adapt({}, Reading(0.5, step, 100))
    assert memory["band_low"] == pytest.approx(low) and memory["band_high"] == pytest.approx(high)


def test_without_an_end_the_band_stays():
    _, memory = Entrocraft(low_end=None, high_end=None).adapt({}, Reading(0.5, 99, 100))
    assert (memory["band_low"], memory["band_high"]) == (0.6, 0.7)


@pytest.mark.parametrize(("entropy", "sign"), [(0.18, -1), (0.2, 0), (0.22, 1)])
def test_a_controller_puts_the_band_around_its_target(entropy, sign):
    """Target 0.2, width 5 %: 0.19 to 0.21, whatever the strength and the step."""
    acting, memory = Entrocraft().driven(3.0, 0.2).adapt({}, Reading(entropy, 50, 100))
    assert (memory["band_low"], memory["band_high"]) == pytest.approx((0.19, 0.21))
    assert acting.sign == sign


def test_defaults_are_the_authors():
    assert Entrocraft() == Entrocraft(low=0.6, high=0.7, low_end=0.4, high_end=0.5)
    assert Entrocraft.adapts and not Entrocraft.from_rewards and not Entrocraft.per_token


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 0.8}, r"Entrocraft: the band from low=0\.8 to high=0\.7 is empty"),
        ({"high_end": 0.3}, r"the band from low=0\.4 to high=0\.3 is empty"),
        ({"low": -0.1}, r"the band from low=-0\.1 to high=0\.7"),
        ({"high": math.nan}, r"the band from low=0\.6 to high=nan"),
        ({"width": 1.0}, r"Entrocraft: width=1\.0 must be a share"),
        ({"sign": 2}, r"Entrocraft: sign=2 must be -1, 0 or 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Entrocraft(**settings)
