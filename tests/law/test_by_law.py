"""What the law alone predicts: exact where nothing is uncertain, honest where something is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from entropilot.errors import UserError
from entropilot.law.by_law import backtest, continue_by_law
from entropilot.law.courses import continuations
from entropilot.law.law import fit_law

STEPS = np.arange(240.0)
COURSES = {
    "exponential to 0": 1.2 * np.exp(-STEPS / 50),
    "exponential to a floor": 0.2 + np.exp(-STEPS / 40),
    "hyperbola": 0.9 / (1 + STEPS / 15),
    "power law": 0.9 * (1 + STEPS / 15) ** -0.6,
    "linear in the logarithm of the step": 1.2 - 0.18 * np.log1p(STEPS / 7),
}


def performance(h: np.ndarray) -> np.ndarray:
    return 0.9 - 0.2 * np.exp(h)


def test_backtest_by_hand() -> None:
    # exp(H) = 3, 2, 1 gives a = 0.25, b = 1 exactly: R = 0.25, 0.5, 0.75. At exp(H) = 1.2 and 1 it predicts 0.7, 0.75.
    h = np.log([3, 2, 1, 1.2, 1])
    result = backtest(h, [0.25, 0.5, 0.75, 0.67, 0.79], share=0.6)
    assert result.fitted == 3
    assert result.predicted == pytest.approx([0.7, 0.75], rel=1e-9)
    assert result.rmse == pytest.approx(math.sqrt((0.03**2 + 0.04**2) / 2), rel=1e-9)
    assert result.final_error == pytest.approx(0.04, rel=1e-9)
    assert result.naive_rmse == pytest.approx(math.sqrt((0.17**2 + 0.29**2) / 2), rel=1e-9)
    assert result.inside == 0  # three points without residuals leave an interval of no width


def test_backtest_on_a_lawful_run(synthetic) -> None:
    h, r = synthetic.run(236, 0.3)
    result = backtest(h, r)
    assert result.fitted == 35  # 15 %, the paper's 36 of 236
    assert result.fit == fit_law(h[:35], r[:35])
    assert result.rmse < 0.04 < result.naive_rmse
    assert result.inside > 0.85
    holed = backtest(np.append(h, math.nan), np.append(r, 0.5))
    assert holed.rmse == result.rmse


def test_backtest_refuses_in_words(synthetic) -> None:
    h, r = synthetic.run(12)
    with pytest.raises(UserError, match="first 15 % of 12 points are 2"):
        backtest(h, r)
    with pytest.raises(UserError, match="between 0 and 1"):
        backtest(h, r, share=15)
    with pytest.raises(UserError, match="12 and 11"):
        backtest(h, r[:11])


@pytest.mark.parametrize("name", COURSES)
def test_without_noise_every_course_is_found_and_continued_exactly(name) -> None:
    h = COURSES[name]
    r = performance(h)
    found = continue_by_law(STEPS[:36], h[:36], r[:36], 239, draws=400)
    assert found.model == name
    assert found.models[name] > 0.6  # an exponential to 0 is also one to a floor of 0
    assert found.performance == pytest.approx(r[-1], abs=1e-7)
    assert found.interval == pytest.approx((r[-1], r[-1]), abs=1e-6)
    assert found.entropy == pytest.approx(h[-1], abs=1e-6)
    assert found.spent == pytest.approx((math.exp(h[0]) - math.exp(h[-1])) / (math.exp(h[0]) - 1), abs=1e-6)
    fallen = np.exp(h) <= 0.1 * math.exp(h[0]) + 0.9 * math.exp(h[-1])
    assert found.ninety_step == pytest.approx(STEPS[fallen.argmax()], abs=2.2)  # the path has 200 parts
    assert np.interp(STEPS, found.steps, found.path) == pytest.approx(r, abs=2e-2)


def test_intervals_hold_the_end_of_noisy_runs(synthetic) -> None:
    runs, hits, measured_hits = 60, 0, 0
    h = COURSES["power law"]
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        r = performance(h) + synthetic.ar1(rng, 240, 0.3, 0.02)
        found = continue_by_law(
            STEPS[:60], (h + 0.01 * rng.standard_normal(240))[:60], r[:60], 239, seed=seed, draws=500
        )
        hits += found.interval.low <= performance(h[-1]) <= found.interval.high
        measured_hits += found.measured_interval.low <= r[-1] <= found.measured_interval.high
    least = binom.ppf(1e-3, runs, 0.9)
    assert hits >= least
    assert measured_hits >= least


def test_courses_are_drawn_jointly(synthetic) -> None:
    # Where H was measured 40 times with sd 0.02 the course is known to about 0.02·√(3/40), however far apart the floor
    # and the size of each draw are; and autocorrelated noise leaves it less known.
    t = np.arange(160.0)
    h = 0.3 + np.exp(-t / 30)
    widths = {0.0: [], 0.8: []}
    for phi, found in widths.items():
        for seed in range(8):
            rng = np.random.default_rng(seed)
            noisy = h[:40] + synthetic.ar1(rng, 40, phi, 0.02)
            found.append(continuations(t[:40], noisy, t, 2000, rng).paths[:, 20].std())
    assert 0.4 < np.mean(widths[0.0]) / (0.02 * math.sqrt(3 / 40)) < 1.2
    assert np.mean(widths[0.8]) > 1.4 * np.mean(widths[0.0])


def test_a_forecast_is_seeded(synthetic) -> None:
    h, r = synthetic.run(60)
    first, again = (continue_by_law(np.arange(20), h[:20], r[:20], 59, seed=3) for _ in range(2))
    assert first == again
    assert continue_by_law(np.arange(20), h[:20], r[:20], 59, seed=4).interval != first.interval
    wide = continue_by_law(np.arange(20), h[:20], r[:20], 59, seed=3, level=0.99).interval
    assert wide.low < first.interval.low < first.performance < first.interval.high < wide.high
    assert first.measured_interval.low < first.interval.low


def test_entropy_that_rises_gains_nothing() -> None:
    h = 0.2 + 0.3 * (1 - np.exp(-STEPS / 60))
    found = continue_by_law(STEPS[:80], h[:80], performance(h[:80]), 239)
    assert found.ninety_step is None and found.ninety_interval is None
    assert found.spent < 0
    assert found.performance == pytest.approx(performance(h[-1]), abs=1e-3)


def test_performance_measured_now_and_then(synthetic) -> None:
    h, r = synthetic.run(60)
    rare = np.where(np.arange(60) % 4 == 0, r, math.nan)
    found = continue_by_law(np.arange(30), h[:30], rare[:30], 59)
    assert found.fit.n == 8
    assert found.interval.low < r[-1] < found.interval.high


@pytest.mark.parametrize(
    ("steps", "h", "r", "last", "words"),
    [
        (
            range(7),
            np.linspace(1, 0.5, 7),
            np.linspace(0, 1, 7),
            100,
            "the prefix holds 7 and 7; give a longer",
        ),
        (
            range(9),
            np.linspace(1, 0.5, 9),
            [0.1, math.nan, 0.2] * 3,
            5,
            "must come after the prefix, which ends at 8",
        ),
        (range(9), np.linspace(1, 0.5, 9), [math.nan] * 5 + [0.1] * 4, 100, "holds 9 and 4"),
        (range(9), [0.5] * 9, np.linspace(0, 1, 9), 100, "all 9 entropies are equal"),
        (range(9), [900.0] + [1.0] * 8, np.linspace(0, 1, 9), 100, "beyond any vocabulary"),
        ([0, 1, 2, 3, 3, 5, 6, 7, 8], np.linspace(1, 0.5, 9), np.linspace(0, 1, 9), 100, "increasing"),
        (range(8), np.linspace(1, 0.5, 9), np.linspace(0, 1, 9), 100, "8 steps, 9 entropies"),
    ],
)
def test_refusals(steps, h, r, last, words) -> None:
    with pytest.raises(UserError, match=words):
        continue_by_law(list(steps), h, r, last)


def test_hostile_prefixes() -> None:
    jump = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2]
    found = continue_by_law(range(8), jump, [0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1, 0.6], 50)
    assert math.isfinite(found.performance) and all(map(math.isfinite, found.interval))
    zero = continue_by_law(range(8), [0.0] * 7 + [0.1], np.linspace(0, 1, 8), 50)
    assert math.isnan(zero.spent)
