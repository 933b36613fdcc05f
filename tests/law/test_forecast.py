"""Forecasts: no change with a calibrated interval, the law and its rivals beside it, silence where due."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from entropilot.errors import UserError
from entropilot.law.forecast import describe, forecast, forecast_run
from entropilot.law.law import fit_law
from entropilot.records import Run

STEPS = np.arange(240.0)
H = 0.9 / (1 + STEPS / 15)


def performance(h: np.ndarray) -> np.ndarray:
    return 0.9 - 0.2 * np.exp(h)


def test_the_forecast_is_no_change() -> None:
    r = performance(H)
    ahead = forecast(STEPS[:36], H[:36], r[:36], 239)
    assert ahead.performance == pytest.approx(r[33:36].mean(), rel=1e-9)
    assert ahead.entropy == pytest.approx(H[33:36].mean(), rel=1e-9)
    assert 0 <= ahead.interval.low < ahead.performance < ahead.interval.high <= 1
    assert 0 <= ahead.entropy_interval.low < ahead.entropy < ahead.entropy_interval.high <= 12.5
    assert ahead.silent is None and ahead.law == pytest.approx(r[-1], abs=1e-3)
    assert ahead.predictions["law"] == ahead.law and ahead.predictions["no change"] == ahead.performance
    assert ahead.fit == fit_law(H[:36], r[:36])


@pytest.mark.parametrize(
    ("h", "r", "words"),
    [
        (0.2 + 0.3 * STEPS / 240, 0.9 - 0.2 * np.exp(0.2 + 0.3 * STEPS / 240), "entropy has not fallen"),
        (H, 0.1 + 0.2 * np.exp(H), "R rose with entropy"),
        (H, np.full(240, 0.5), "R is the same at all points"),
        (H, performance(H) + 0.5 * STEPS / 240, "R drifts at equal entropy"),
        (np.full(240, 0.3), performance(H), "all 36 entropies are equal"),
    ],
)
def test_where_the_law_says_nothing(h, r, words) -> None:
    r = r + 1e-3 * np.random.default_rng(0).standard_normal(240) * (np.ptp(r) > 0)
    ahead = forecast(STEPS[:36], h[:36], r[:36], 239)
    assert words in ahead.silent
    assert ahead.law is None and "law" not in ahead.predictions and ahead.continuation is None
    assert ahead.performance == pytest.approx(r[33:36].mean()) and ahead.interval.low < ahead.interval.high
    assert any(
        line.startswith("no forecast from the law") and words in line for line in describe(ahead, 0.15)
    )


def test_few_points_have_a_forecast_too() -> None:
    ahead = forecast([1, 2], [0.4, 0.3], [0.5, math.nan], 100)
    assert ahead.performance == 0.5 and ahead.interval.low < 0.5 < ahead.interval.high
    assert "can't be fitted" in ahead.silent and ahead.best is None
    assert ahead.predictions == {"no change": 0.5}


def test_rewards_of_any_range() -> None:
    r = 10 * performance(H) - 7
    ahead = forecast(STEPS[:36], H[:36], r[:36], 239, performance_name="reward/mean")
    low, high, spread = r[:36].min(), r[:36].max(), np.ptp(r[:36])
    assert low - spread <= ahead.interval.low < ahead.interval.high <= high + spread
    scaled = forecast(STEPS[:36], H[:36], 2 * r[:36], 239, performance_name="reward/mean")
    assert scaled.interval == pytest.approx([2 * end for end in ahead.interval])


def test_a_vocabulary_bounds_entropy() -> None:
    h = np.full(36, 3.0) + 0.1 * np.sin(STEPS[:36])
    assert forecast(STEPS[:36], h, performance(H)[:36], 239, vocabulary=32).entropy_interval.high <= math.log(
        32
    )


@pytest.mark.parametrize(
    ("steps", "h", "r", "last", "words"),
    [
        (range(9), [math.nan] * 9, np.linspace(0, 1, 9), 100, "holds 0 and 9"),
        (range(9), np.linspace(1, 0.5, 9), [0.1] * 9, 5, "must come after the prefix, which ends at 8"),
        (range(9), [900.0] + [1.0] * 8, np.linspace(0, 1, 9), 100, "beyond any vocabulary"),
        ([0, 1, 2, 3, 3, 5, 6, 7, 8], np.linspace(1, 0.5, 9), np.linspace(0, 1, 9), 100, "increasing"),
        (range(8), np.linspace(1, 0.5, 9), np.linspace(0, 1, 9), 100, "8 steps, 9 entropies"),
    ],
)
def test_refusals(steps, h, r, last, words) -> None:
    with pytest.raises(UserError, match=words):
        forecast(list(steps), h, r, last)


def run_of(steps: int, every: int) -> Run:
    rows = [
        {"step": i + 1, "entropy/policy_T1": float(H[i]), "reward/mean": 0.5 + i / 1000}
        | ({"validation/accuracy": float(performance(H[i]))} if i % every == 0 else {})
        for i in range(steps)
    ]
    return Run(Path("runs/demo"), {"name": "demo"}, rows)


def test_a_run_is_cut_by_steps() -> None:
    ahead = forecast_run(run_of(240, 4))
    assert ahead.points == 9  # of the first 15 % of 239 steps
    assert (ahead.last_step, ahead.performance_name, ahead.notes) == (240, "validation/accuracy", ())
    later = forecast_run(run_of(100, 4), prefix=1, last_step=240)
    assert later.points == 25


def test_the_training_reward_stands_in_for_few_validations() -> None:
    ahead = forecast_run(run_of(240, 10))
    assert ahead.performance_name == "reward/mean" and ahead.points == 36
    assert "holds 4 values of validation/accuracy and 5 are needed" in ahead.notes[0]
    assert describe(ahead, 0.15)[0] == ahead.notes[0]
    # A metric that was asked for is not replaced.
    assert forecast_run(run_of(240, 10), performance="validation/accuracy").points == 4


def test_below_the_shares_that_were_measured_no_coverage_is_claimed() -> None:
    whole = run_of(240, 1)
    sparse = Run(whole.path, whole.header, whole.rows[::10])
    for run, (prefix, held) in itertools.product(
        (whole, sparse), ((0.15, 0.878), (0.3, 0.908), (0.29, 0.878), (0.14, None))
    ):
        ahead = forecast_run(run, prefix)
        (line,) = [line for line in describe(ahead, prefix) if line.startswith("forecast:")]
        assert ahead.held == held
        assert ("% of such intervals held" in line) == (held is not None)
        assert ("not known for less than 15 % of a run" in line) == (held is None)
    # 100 of 730 steps: 13.6 %
    assert forecast_run(run_of(100, 1), prefix=1, last_step=730).held is None


def test_a_run_that_cannot_be_forecast_says_why() -> None:
    with pytest.raises(UserError, match="say which later step"):
        forecast_run(run_of(240, 4), prefix=1)
    with pytest.raises(
        UserError, match="no entropy/other.*to take another, give entropy='entropy/policy_T1'"
    ):
        forecast_run(run_of(20, 4), entropy="entropy/other")
    empty = run_of(20, 4)
    for row in empty.rows:
        row["entropy/policy_T1"] = math.nan
    with pytest.raises(UserError, match="no entropy/policy_T1, which a forecast needs; it has"):
        forecast_run(empty)
    with pytest.raises(UserError, match="between 0 and 1"):
        forecast_run(run_of(240, 4), prefix=15)


def test_the_best_on_its_own_end_is_named() -> None:
    r = 1 - 0.8 * (STEPS + 1) ** -0.5
    ahead = forecast(STEPS[:60], H[:60], r[:60], 239)
    assert ahead.best[0] == "log(1 - R) linear in log step"
    lines = describe(ahead, 0.25)
    at = lines.index("for comparison, validation/accuracy at step 239 as each of these predicts it:")
    assert lines[at + 1].split(maxsplit=1) == ["prediction", "error on the last third"]
    table = lines[at + 1 : at + 2 + len(ahead.predictions)]
    assert len(table) == 1 + len(ahead.predictions) and max(map(len, table)) <= 80
    (line,) = [line for line in lines[at:] if line.startswith("  log(1 - R) linear in log step ")]
    assert line.split()[-2:] == [f"{r[-1]:.3g}", f"{ahead.best[1]:.3g}"]
    # Fitted on the first 40 points: the mean of points 37 to 40 against that of 55 to 60, each the last tenth.
    error = abs(r[36:40].mean() - r[54:60].mean())
    assert lines[at + 2].split() == ["no", "change", f"{r[54:60].mean():.3g}", f"{error:.3g}"]


def test_an_exploding_run_stays_within_what_is_possible() -> None:
    steps = np.arange(60.0)
    h, r = np.minimum(0.3 * np.exp(steps / 5), 11.9), np.maximum(0, 0.5 - 0.02 * steps)
    ahead = forecast(steps[:18], h[:18], r[:18], 59, performance_name="reward/mean")
    assert ahead.silent == "entropy has not fallen" and len(ahead.predictions) == 4
    assert all(0 <= value <= 1 for value in (*ahead.predictions.values(), *ahead.interval))
    assert ahead.entropy == pytest.approx(h[15:18].mean()) and ahead.entropy_interval.high <= 12.5
