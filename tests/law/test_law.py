"""The law R = −a·exp(H) + b, against a fit by hand and two independent solvers."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import curve_fit

from entropilot.errors import UserError
from entropilot.law.assess import assess
from entropilot.law.law import Columns, LawFit, fit_law, fit_run
from entropilot.records import Run

EXACT = {"rel": 1e-9, "abs": 1e-12}


def cloud(n: int = 40, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    entropy = rng.uniform(0.05, 1.6, n)
    return entropy, 0.9 - 0.17 * np.exp(entropy) + rng.normal(0, noise, n)


def run_of(rows: list[dict]) -> Run:
    return Run(
        Path("runs/demo"), {"name": "demo"}, [{"step": i} | row for i, row in enumerate(rows, start=1)]
    )


def test_three_points_by_hand() -> None:
    # exp(H) = 1, 2, 3 with mean 2; R = 0.8, 0.5, 0.35 with mean 0.55.
    # Sxx = 2, Sxy = −0.25 + 0 − 0.20 = −0.45, so a = 0.225 and b = 0.55 + 0.225·2 = 1.
    # Residuals 0.025, −0.05, 0.025: RSS = 0.00375 with 3 − 2 = 1 degree of freedom; TSS = 0.0625 + 0.0025 + 0.04 = 0.105.
    fit = fit_law([math.log(1), math.log(2), math.log(3)], [0.8, 0.5, 0.35])
    assert fit.a == pytest.approx(0.225, **EXACT)
    assert fit.b == pytest.approx(1.0, **EXACT)
    assert fit.ceiling == pytest.approx(0.775, **EXACT)
    assert fit.r2 == pytest.approx(1 - 0.00375 / 0.105, **EXACT)
    assert fit.rmse == pytest.approx(math.sqrt(0.00125), **EXACT)
    assert (fit.n, fit.dropped) == (3, 0)
    # var a = 0.00375/2; cov(a, b) = 2·var a; var b = 0.00375·(1/3 + 4/2)
    assert np.array(fit.covariance) == pytest.approx(
        np.array([[0.001875, 0.00375], [0.00375, 0.00875]]), **EXACT
    )
    assert fit.predict([0.0, math.log(4)]) == pytest.approx([0.775, 0.1], **EXACT)
    assert fit.predict(0.0) == pytest.approx(fit.ceiling, **EXACT)


def test_agrees_with_polyfit() -> None:
    entropy, performance = cloud()
    (slope, intercept), covariance = np.polyfit(np.exp(entropy), performance, 1, cov=True)
    fit = fit_law(entropy, performance)
    assert (fit.a, fit.b) == pytest.approx((-slope, intercept), **EXACT)
    assert np.array(fit.covariance) == pytest.approx(covariance * [[1, -1], [-1, 1]], rel=1e-9)
    residual = performance - (intercept + slope * np.exp(entropy))
    assert fit.r2 == pytest.approx(1 - residual.var() / performance.var(), **EXACT)


def test_agrees_with_curve_fit_under_weights() -> None:
    entropy, performance = cloud()
    weights = np.random.default_rng(1).uniform(0.2, 3, entropy.size)
    best, covariance = curve_fit(
        lambda h, a, b: -a * np.exp(h) + b,
        entropy,
        performance,
        sigma=1 / np.sqrt(weights),
        xtol=1e-14,
        ftol=1e-14,
        jac=lambda h, a, b: np.stack([-np.exp(h), np.ones_like(h)], axis=1),
    )
    fit = fit_law(entropy, performance, weights)
    assert (fit.a, fit.b) == pytest.approx(tuple(best), **EXACT)
    assert np.array(fit.covariance) == pytest.approx(covariance, rel=1e-6)


def test_a_weight_is_a_point_given_again() -> None:
    entropy, performance = cloud(12)
    times = np.array([1, 2, 3, 1, 1, 4, 1, 0, 2, 1, 1, 5])
    weighted = fit_law(entropy, performance, times)
    repeated = fit_law(np.repeat(entropy, times), np.repeat(performance, times))
    for name in ("a", "b", "ceiling", "r2", "rmse"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name), **EXACT), name
    assert weighted.n == 11  # the point of weight 0 is none
    scaled = fit_law(entropy, performance, times * 1e-200)
    assert scaled.a == pytest.approx(weighted.a, **EXACT)
    assert np.array(scaled.covariance) == pytest.approx(np.array(weighted.covariance), **EXACT)


def test_nearly_equal_entropies_keep_their_difference() -> None:
    # exp(H) differs in the 8th digit: without centring, the normal equations lose all of it.
    entropy = 9.0 + 1e-8 * np.arange(4)
    a, b = 0.5 / (math.exp(9.0) * 1e-8), 3.0
    exact = b - a * math.exp(9.0) - a * math.exp(9.0) * np.expm1(entropy - 9.0)
    fit = fit_law(entropy, exact)
    assert fit.a == pytest.approx(a, rel=1e-6)
    assert fit.r2 == pytest.approx(1.0)


def test_pairs_that_are_not_finite_are_dropped_and_counted() -> None:
    entropy, performance = cloud(10)
    holed = np.concatenate([entropy, [math.nan, 0.5, math.inf]])
    fit = fit_law(holed, np.concatenate([performance, [0.1, math.nan, 0.2]]))
    clean = fit_law(entropy, performance)
    assert (fit.a, fit.b, fit.n, fit.dropped) == (clean.a, clean.b, 10, 3)


@pytest.mark.parametrize(
    ("entropy", "performance", "weights", "words"),
    [
        ([1.0, 2.0], [0.1, 0.2], None, "3 or more points, but 2 are usable"),
        ([], [], None, "but 0 are usable"),
        ([1.0, 2.0, math.nan, math.nan], [0.1, 0.2, 0.3, math.inf], None, "but 2 are usable"),
        ([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [1, 0, 0], "but 1 is usable"),
        ([0.7, 0.7, 0.7], [0.1, 0.2, 0.3], None, "all 3 entropies are equal"),
        ([0.1, 0.1 + 1e-17, 0.3 - 0.2], [0.1, 0.2, 0.3], None, "all 3 entropies are equal"),
        ([1.0, 2.0, 3.0], [0.1, 0.2], None, "3 entropies, 2 values of performance"),
        ([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [1.0], "1 weights"),
        ([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [1, -1, 1], "at least 0"),
        ([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [1, math.nan, 1], "finite"),
        ([[1.0, 2.0, 3.0]], [[0.1, 0.2, 0.3]], None, "one dimension"),
        (["a", "b", "c"], [0.1, 0.2, 0.3], None, "plain numbers as entropy"),
        ([1.0, 2.0, 1200.0], [0.1, 0.2, 0.3], None, "in nats"),
    ],
)
def test_refuses_in_one_sentence(entropy, performance, weights, words) -> None:
    with pytest.raises(UserError, match=words) as caught:
        fit_law(entropy, performance, weights)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_run_is_fitted_to_the_rows_that_hold_both() -> None:
    entropy, performance = cloud(6)
    rows: list[dict] = []
    for h, r in zip(entropy, performance, strict=True):
        rows.append({"entropy/policy_T1": float(h), "validation/accuracy": float(r), "reward/mean": 0.5})
        rows.append({"entropy/policy_T1": 9.0, "reward/mean": 0.1})  # no accuracy was due
        rows.append({"reward/mean": 0.2, "note": "words", "entropy/train_token_mean": float(h)})
    rows.append({"validation/accuracy": 0.99})  # after training: no entropy belongs to it
    fit, used = fit_run(run_of(rows))
    assert used == Columns("entropy/policy_T1", "validation/accuracy")
    assert fit == fit_law(entropy, performance)
    assert fit_run(run_of(rows), performance="reward/mean")[0].n == 12


def test_a_run_without_validation_is_fitted_to_the_training_reward() -> None:
    rows = [{"entropy/policy_T1": h, "reward/mean": 1 - h} for h in (0.1, 0.2, 0.4, 0.8)]
    fit, (entropy, performance) = fit_run(run_of([*rows, {"entropy/policy_T1": "words", "reward/mean": 1}]))
    assert (entropy, performance) == ("entropy/policy_T1", "reward/mean")
    assert (fit.n, fit.dropped) == (4, 1)
    assert "R is the training reward (reward/mean)" in assess(fit, performance_name=performance).verdict


def test_a_run_that_lacks_a_metric_says_what_it_has() -> None:
    rows = [{"entropy/train_token_mean": 0.1, "reward/mean": 0.3}]
    with pytest.raises(UserError, match="no entropy/policy_T1.*entropy/train_token_mean, reward/mean"):
        fit_run(run_of(rows))
    with pytest.raises(UserError, match="it has no metric at all"):
        fit_run(run_of([]))
    with pytest.raises(UserError, match=r"Run demo, reward/mean on entropy/train_token_mean: .* 1 is usable"):
        fit_run(run_of(rows), entropy="entropy/train_token_mean")


def fitted(**changes) -> LawFit:
    values = {
        "a": 0.2,
        "b": 0.9,
        "ceiling": 0.7,
        "r2": 0.95,
        "rmse": 0.01,
        "n": 30,
        "covariance": ((0, 0), (0, 0)),
    }
    return LawFit(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        (
            {},
            "validation/accuracy",
            "explains 95 % of the variance of 30 points: it describes this run well",
        ),
        (
            {"r2": 0.31},
            "validation/accuracy",
            "explains 31 % of the variance of 30 points: do not trust this ceiling",
        ),
        ({"r2": 0.7}, "validation/accuracy", "rough guide"),
        ({"n": 5}, "validation/accuracy", "too few points"),
        ({"ceiling": 1.4}, "validation/accuracy", "above 1, which no accuracy reaches"),
        ({"ceiling": 1.4}, "reward/mean", "describes this run well.*R is the training reward"),
        ({"a": -0.2}, "validation/accuracy", "performance rose with entropy.*the law does not hold here"),
        ({"a": 0.0, "r2": math.nan}, "validation/accuracy", "performance is the same at all 30 points"),
        ({}, "eval/pass@4", "R is eval/pass@4 here, not the validation accuracy"),
    ],
)
def test_verdict(changes, name, words) -> None:
    text = assess(fitted(**changes), performance_name=name).verdict
    assert re.search(words, text), text
    assert ("; R is" in text) == (name != "validation/accuracy")


def test_performance_that_never_changed_has_no_r2() -> None:
    fit = fit_law([0.1, 0.5, 0.9], [0.3, 0.3, 0.1 + 0.2])
    assert math.isnan(fit.r2)
    assert fit.a == pytest.approx(0.0, abs=1e-12)


def test_statistics_import_neither_torch_nor_plotly() -> None:
    code = (
        "import sys, entropilot.law.law, entropilot.reports.page, entropilot.records\n"
        "heavy = {'torch', 'transformers', 'trl', 'accelerate', 'datasets', 'plotly', 'pandas'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"imported: {done.stderr}"
