"""How early entropy goes and reward comes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from entropilot.errors import UserError
from entropilot.law.consumption import consumption


def test_by_hand() -> None:
    # 25 steps; H falls from 1 to 0.4 over the first 2, then to 0.2 and stays: 0.6/0.8 of it is gone by step 2 = 24/12.
    # The window of 5 % of 24 steps reaches 0.6 steps: step 2 alone, and steps 23 and 24 at the end.
    h = [1.0, 0.7, 0.4, *[0.2] * 22]
    r = [0.1, 0.2, 0.4, *[0.5] * 22]
    found = consumption(range(25), h, r)
    assert (found.share, found.step) == (1 / 12, 2)
    assert found.entropy == pytest.approx(0.75, rel=1e-9)
    assert found.gain == pytest.approx(0.75, rel=1e-9)


def test_the_papers_twelfth() -> None:
    # An exponential with 73 % of its fall in the first twelfth.
    steps = np.arange(2401)
    h = 0.05 + np.exp(steps / 200 * math.log(0.27))
    found = consumption(steps, h, 1 - 0.3 * np.exp(h))
    assert found.entropy == pytest.approx(0.73, abs=0.01)
    assert 0.73 < found.gain < 0.9  # exp(H) falls faster than H at first
    third = consumption(steps, h, 1 - 0.3 * np.exp(h), share=1 / 3)
    assert third.entropy > 0.98


def test_values_between_measurements_are_interpolated() -> None:
    steps = np.arange(0, 101)
    h = np.where(steps % 20 == 0, 1 - steps / 200, math.nan)
    found = consumption(steps, h, np.linspace(0, 1, 101), share=0.3, window=0.01)
    assert found.entropy == pytest.approx(0.3, rel=1e-9)
    assert found.gain == pytest.approx(0.3 / 0.995, rel=1e-9)  # the last 1 %: the mean of 0.99 and 1


def test_what_did_not_happen_has_no_share() -> None:
    rising = np.linspace(0.2, 0.5, 20)
    found = consumption(range(20), rising, -rising)
    assert math.isnan(found.entropy) and math.isnan(found.gain)


@pytest.mark.parametrize(
    ("steps", "h", "r", "settings", "words"),
    [
        (range(3), [1, 2], [1, 2, 3], {}, "3, 2, 3"),
        ([0, 0, 1], [1, 2, 3], [1, 2, 3], {}, "increasing"),
        (range(3), [1, math.nan, 3], [1, 2, 3], {}, "3 or more entropies"),
        (range(3), [1, 2, 3], [1, 2, 3], {"share": 12}, "share of the steps must be between"),
        (range(3), [1, 2, 3], [1, 2, 3], {"window": 0}, "window of the steps must be between"),
    ],
)
def test_refusals(steps, h, r, settings, words) -> None:
    with pytest.raises(UserError, match=words):
        consumption(list(steps), h, r, **settings)
