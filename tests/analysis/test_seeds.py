"""Intervals over seeds, by hand; there is one t interval in the package."""

from __future__ import annotations

import math

import numpy as np
import pytest

from entropilot.analysis.seeds import differences, interval, mean_difference


def test_a_mean_difference_by_hand() -> None:
    # Differences 1, 0, 2: mean 1, sd 1; t(0.975, 2) = 4.302652729749464
    mean, half = mean_difference([1.0, 2.0, 4.0], [0.0, 2.0, 2.0])
    assert (mean, half) == pytest.approx((1.0, 4.302652729749464 / math.sqrt(3)), rel=1e-12)


def test_too_few_seeds() -> None:
    assert mean_difference([1.0], [0.5])[0] == 0.5 and math.isnan(mean_difference([1.0], [0.5])[1])
    assert all(map(math.isnan, mean_difference([], [])))
    assert interval([None, math.nan]) is None


def test_what_is_missing_on_one_side_is_missing() -> None:
    assert differences([1.0, None, 3.0], [0.25, 1.0, None]) == [0.75, None, None]
    with pytest.raises(ValueError, match="longer"):
        differences([1.0], [1.0, 2.0])


def test_it_is_scipys() -> None:
    from scipy import stats

    values = np.random.default_rng(0).normal(size=9)
    mean, half = interval(list(values)) or (0.0, 0.0)
    low, high = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-12)
