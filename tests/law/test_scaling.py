"""From small models to a larger one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, linregress
from scipy.stats import t as student

from entropilot.errors import UserError
from entropilot.law.law import fit_law
from entropilot.law.scaling import fit_family


def test_three_sizes_by_hand() -> None:
    # ln N = 0, 1, 2: a = 0.3, 0.2, 0.1 lies on a line; b = 0.9, 1.0, 1.2 has slope 0.15, mean 31/30 and residuals
    # 1/60, −1/30, 1/60: variance (1/3600 + 4/3600 + 1/3600)/(3 − 2) = 1/600. At ln N = 3 the leverage is 1 + 1/3 + 4/2.
    family = fit_family({1.0: (0.3, 0.9), math.e: (0.2, 1.0), math.e**2: (0.1, 1.2)})
    found = family.predict(math.e**3)
    assert (found.a, found.b, found.ceiling) == pytest.approx((0.0, 4 / 3, 4 / 3), abs=1e-9)
    assert found.a_interval == pytest.approx((0, 0), abs=1e-9)
    half = 12.706204736 * math.sqrt(1 / 600 * 10 / 3)  # t of one degree of freedom at 95 %
    assert found.b_interval == pytest.approx((4 / 3 - half, 4 / 3 + half), rel=1e-9)
    assert found.ceiling_interval == pytest.approx(found.b_interval, rel=1e-9)
    assert found.caution == "three sizes leave one degree of freedom, so the intervals are wide"


def test_agrees_with_linregress() -> None:
    sizes, b = np.array([0.5e9, 1.5e9, 3e9, 7e9, 14e9]), np.array([0.4, 0.52, 0.55, 0.66, 0.7])
    family = fit_family({size: (0.1, value) for size, value in zip(sizes, b, strict=True)})
    line = linregress(np.log(sizes), b)
    assert family.b_line == pytest.approx((line.intercept, line.slope), rel=1e-9)
    # On the data's mean, the interval of the line alone is that of the mean of residuals; a prediction adds one residual.
    centre = math.exp(np.log(sizes).mean())
    residual = b - line.intercept - line.slope * np.log(sizes)
    half = student.ppf(0.95, 3) * math.sqrt(residual @ residual / 3 * (1 + 1 / 5))
    low, high = family.predict(centre, level=0.9).b_interval
    assert (high - low) / 2 == pytest.approx(half, rel=1e-9)


def test_fits_of_runs_and_a_line_of_predictions(synthetic) -> None:
    h = synthetic.course(50)
    fits = {n: fit_law(h, (0.4 + 0.1 * math.log(n)) - 0.05 * np.exp(h)) for n in (3, 1, 7, 2)}
    family = fit_family(fits)
    assert family.params == pytest.approx([1, 2, 3, 7])
    assert family.predict(14).ceiling == pytest.approx(0.35 + 0.1 * math.log(14), rel=1e-9)
    low, high = family.interval_at(14, [0.0, 1.0])
    assert low == pytest.approx(high, abs=1e-6)
    assert low == pytest.approx(
        [0.35 + 0.1 * math.log(14), 0.4 + 0.1 * math.log(14) - 0.05 * math.e], abs=1e-6
    )


def test_the_ceilings_interval_is_the_line_at_no_entropy() -> None:
    family = fit_family({1: (0.3, 0.9), 2: (0.25, 1.0), 4: (0.1, 1.2), 8: (0.15, 1.1)})
    low, high = family.interval_at(16, [0.0])
    assert (low[0], high[0]) == pytest.approx(family.predict(16).ceiling_interval, rel=1e-9)


def test_intervals_hold_the_next_size() -> None:
    rng, runs, hits = np.random.default_rng(0), 300, 0
    sizes = [0.5, 1.5, 3, 7]
    for _ in range(runs):
        truth = {n: (0.2, 0.4 + 0.1 * math.log(n) + 0.02 * rng.standard_normal()) for n in (*sizes, 32)}
        low, high = fit_family({n: truth[n] for n in sizes}).predict(32).ceiling_interval
        hits += low <= truth[32][1] - 0.2 <= high
    assert binom.ppf(1e-4, runs, 0.95) <= hits <= binom.ppf(1 - 1e-4, runs, 0.95)


def test_far_sizes_and_impossible_lines_are_said() -> None:
    family = fit_family({1: (0.3, 0.9), 2: (0.2, 1.0), 4: (0.1, 1.1), 8: (0.01, 1.1)})
    assert family.predict(8 * 3.9).caution.startswith("the line puts a at -")
    assert "8 times above the largest size fitted, a long way" in family.predict(64).caution
    assert "5 times below the smallest" in family.predict(0.2).caution
    assert family.predict(4).caution is None


@pytest.mark.parametrize(
    ("fits", "words"),
    [
        ({1: (0.1, 0.2), 2: (0.1, 0.2)}, "three sizes or more .* but 2 are"),
        ({}, "but 0 are"),
        ({0: (0.1, 0.2), 1: (0.1, 0.2), 2: (0.1, 0.2)}, "above 0, but it is 0"),
        ({1: (0.1, math.nan), 3: (0.1, 0.2), 2: (0.1, 0.2)}, "finite"),
    ],
)
def test_refusals(fits, words) -> None:
    with pytest.raises(UserError, match=words):
        fit_family(fits)
    with pytest.raises(UserError, match="above 0"):
        fit_family({1: (0.3, 0.9), 2: (0.2, 1.0), 4: (0.1, 1.1)}).predict(-7)
