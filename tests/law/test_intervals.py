"""Intervals of the law: how often they hold the truth, and what they must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from entropilot.errors import UserError
from entropilot.law.intervals import smoothed
from entropilot.law.law import LawFit, fit_law

NAMES = ("a", "b", "ceiling")


@pytest.mark.parametrize(("n", "phi", "runs"), [(60, 0.0, 150), (240, 0.6, 150), (240, 0.9, 100)])
def test_95_percent_intervals_hold_the_truth(n, phi, runs, synthetic) -> None:
    # Fewer hits than `least` has a chance of 1e-4 if each run had 93 %; the whole table is benchmarks/law.py --coverage.
    least = binom.ppf(1e-4, runs, 0.93)
    hits, independent = dict.fromkeys(NAMES, 0), 0
    for seed in range(runs):
        fit = fit_law(*synthetic.run(n, phi, seed))
        for name in NAMES:
            low, high = fit.interval(which=name)
            hits[name] += low <= getattr(synthetic, name) <= high
        independent += abs(fit.a - synthetic.a) <= 1.97 * math.sqrt(fit.covariance[0][0])
    assert min(hits.values()) >= least, hits
    if phi:  # the test can tell: intervals for independent residuals fail it
        assert independent < 0.9 * least


def test_independent_noise_gives_nearly_the_textbook_interval(synthetic) -> None:
    fit = fit_law(*synthetic.run(1000, 0.0, seed=3))
    low, high = fit.interval(which="a")
    assert (high - low) / 2 == pytest.approx(1.962 * math.sqrt(fit.covariance[0][0]), rel=0.15)
    assert (low + high) / 2 == pytest.approx(fit.a, rel=1e-9)


def test_units_and_order_of_magnitude_do_not_matter(synthetic) -> None:
    h, r = synthetic.run(50, 0.5)
    fit, scaled = fit_law(h, r), fit_law(h, 1e6 * r - 3)
    weighted = fit_law(h, r, np.full(50, 1e-150))
    for name in NAMES:
        width = np.diff(fit.interval(which=name))[0]
        assert np.diff(scaled.interval(which=name))[0] == pytest.approx(1e6 * width, rel=1e-6)
        assert np.diff(weighted.interval(which=name))[0] == pytest.approx(width, rel=1e-9)
    assert fit.interval() == fit_law(h, r).interval()


def test_the_interval_at_an_entropy(synthetic) -> None:
    fit = fit_law(*synthetic.run(80, 0.3))
    low, high = fit.interval_at([0.0, 0.2, 2.0])
    assert (low[0], high[0]) == pytest.approx(fit.interval(), rel=1e-9)
    assert high[1] - low[1] < high[0] - low[0] < high[2] - low[2]  # best known amid the data
    wide_low, wide_high = fit.interval_at([[0.2]], measured=True)
    assert wide_low.shape == (1, 1)
    assert wide_low[0, 0] < low[1] - fit.rmse
    assert wide_high[0, 0] > high[1] + fit.rmse
    wider = fit.interval(0.99)
    assert wider.low < fit.interval().low < fit.interval(0.5).low < fit.interval(0.5).high < wider.high


def test_a_weight_narrows_what_it_speaks_for(synthetic) -> None:
    # Half of the points carry noise of 1/10 of the others': told so, the fit knows more.
    rng = np.random.default_rng(0)
    h = synthetic.course(200)
    sd = np.where(np.arange(200) % 2 == 0, 0.002, 0.02)
    r = 1 - 0.2 * np.exp(h) + sd * rng.standard_normal(200)
    plain, told = fit_law(h, r), fit_law(h, r, 1 / sd**2)
    assert np.diff(told.interval())[0] < 0.4 * np.diff(plain.interval())[0]
    assert told.interval().low <= 0.8 <= told.interval().high


def test_resamples_are_seeded_and_agree_with_the_interval(synthetic) -> None:
    fit = fit_law(*synthetic.run(120, 0.6))
    draws = fit.resample(50_000, seed=4)
    assert (fit.resample(50_000, seed=4).a == draws.a).all()
    assert not (fit.resample(50_000, seed=5).a == draws.a).all()
    for values, name in ((draws.a, "a"), (draws.b, "b"), (draws.b - draws.a, "ceiling")):
        low, high = fit.interval(which=name)
        assert np.quantile(values, [0.025, 0.975]) == pytest.approx([low, high], abs=0.03 * (high - low))
    assert np.median(draws.noise) == pytest.approx(0.02, rel=0.25)


def test_a_law_without_noise_is_known(synthetic) -> None:
    h = synthetic.course(30)
    fit = fit_law(h, 1 - 0.2 * np.exp(h))
    assert fit.interval() == pytest.approx((0.8, 0.8), abs=1e-12)
    assert fit.resample(10).a == pytest.approx(np.full(10, 0.2))
    constant = fit_law([0.1, 0.5, 0.9, 0.4], [0.3] * 4)
    assert constant.interval(which="a") == pytest.approx((0, 0), abs=1e-12)


def test_noisy_entropy_does_not_make_noise_without_end(synthetic) -> None:
    # A likelihood that may trade the noise of H for a slope of 0 ends at φ = 0.98 and intervals 20 times as wide.
    rng = np.random.default_rng(0)
    h, r = synthetic.run(240, 0.6)
    fit = fit_law(h + 0.05 * rng.standard_normal(240), r)
    assert fit.noise.persistence < 0.7
    low, high = fit.interval(which="a")
    assert high - low < 0.05


@pytest.mark.parametrize(
    ("h", "r"),
    [
        ([0.1, 0.5, 0.9], [0.5, 0.45, 0.3]),
        ([0.1, 0.5, 0.1, 0.5, 0.1], [0.5, 0.4, 0.52, 0.41, 0.5]),  # smoothed entropy hardly moves
        ([1.0, 1.0, 1.0, 1.0 + 1e-9], [0.1, 0.2, 0.3, 0.1]),
        ([600.0, 650.0, 690.0, 640.0], [0.5, 0.4, 0.1, 0.3]),
        ([-5.0, -3.0, 0.2, 0.1], [0.5, 0.4, 0.1, 0.3]),
    ],
)
def test_hostile_points_have_finite_intervals(h, r) -> None:
    fit = fit_law(h, r)
    for name in NAMES:
        low, high = fit.interval(which=name)
        assert math.isfinite(low) and math.isfinite(high)
        assert low <= getattr(fit, name) <= high
    low, high = fit.interval_at(h, measured=True)
    assert np.isfinite(low).all() and (low <= high).all()


def test_weights_over_many_orders_of_magnitude(synthetic) -> None:
    h, r = synthetic.run(30)
    fit = fit_law(h, r, np.geomspace(1e-12, 1, 30))
    assert all(math.isfinite(end) for end in fit.interval())


def test_refusals(synthetic) -> None:
    fit = fit_law(*synthetic.run(20))
    for level in (0, 1, 95):
        with pytest.raises(UserError, match="between 0 and 1"):
            fit.interval(level)
    with pytest.raises(UserError, match="a, b or ceiling, not of 'slope'"):
        fit.interval(which="slope")
    with pytest.raises(UserError, match="in nats"):
        fit.interval_at(1200.0)
    by_hand = LawFit(0.2, 1, 0.8, 0.9, 0.01, 20, ((0, 0), (0, 0)))
    with pytest.raises(UserError, match="holds no points"):
        by_hand.interval()


def test_moving_averages_by_hand() -> None:
    # Windows of 1, 3, 5, 5, 5, 3, 1 points.
    values = np.array([7.0, 1, 4, 8, 2, 6, 9])
    assert smoothed(values) == pytest.approx([7, 4, 22 / 5, 21 / 5, 29 / 5, 17 / 3, 9])
    assert smoothed(values[:2]) == pytest.approx(values[:2])
