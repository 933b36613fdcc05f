"""Reasons for doubt: each on a run that has it, and silence on runs that do not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from entropilot.errors import UserError
from entropilot.law.assess import assess
from entropilot.law.diagnosis import alternatives, diagnose, entropy_noise
from entropilot.law.law import LawFit, fit_law


def names(fit: LawFit, steps=None) -> set[str]:
    return {finding.name for finding in diagnose(fit, steps)}


@pytest.mark.parametrize(("n", "phi"), [(60, 0.0), (240, 0.0), (240, 0.6), (1000, 0.6)])
def test_a_lawful_run_gives_no_reason(n, phi, synthetic) -> None:
    # The tests are at 1 % and at an AIC of 4: of 12 runs, two may be doubted.
    doubted = [names(fit_law(*synthetic.run(n, phi, seed))) for seed in range(12)]
    assert sum(map(bool, doubted)) <= 2, doubted


def test_a_below_0(synthetic) -> None:
    h = synthetic.course(60)
    r = 0.2 + 0.1 * np.exp(h) + 0.01 * np.random.default_rng(0).standard_normal(60)
    (finding,) = diagnose(fit_law(h, r))
    assert finding.name == "sign"
    assert re.search(r"a is below 0 \(95 % interval -0\.1\d* to -0\.0\d*\)", finding.words), finding.words


def test_too_narrow_for_a() -> None:
    rng = np.random.default_rng(0)
    h = rng.uniform(0.30, 0.32, 60)
    found = diagnose(fit_law(h, 0.8 - 0.2 * np.exp(h) + 0.02 * rng.standard_normal(60)))
    assert [finding.name for finding in found] == ["narrow"]
    assert (
        "entropy ranges only from 0.3 to 0.32 nats, too little amid the noise to tell a from 0"
        in found[0].words
    )


def test_too_narrow_for_a_ceiling(synthetic) -> None:
    # exp(H) from 9.0 to 7.4, and the ceiling is at 1: a is clear, the ceiling is not.
    h = synthetic.course(60, start=2.2, end=2.0)
    r = 2 - 0.2 * np.exp(h) + 0.06 * np.random.default_rng(1).standard_normal(60)
    fit = fit_law(h, r)
    assert fit.interval(which="a").low > 0
    words = dict(diagnose(fit))["narrow"]
    assert re.search(
        r"too little for a ceiling: its 95 % interval, .* is wider than the change of R over that range \(0.3",
        words,
    )


def test_entropy_measured_with_noise(synthetic) -> None:
    h, r = synthetic.run(400)
    noisy = h + 0.08 * np.random.default_rng(2).standard_normal(400)
    fit = fit_law(noisy, r)
    x = np.exp(noisy)
    true_share = np.var(x - np.exp(h)) / np.var(x)
    # Noise of exp(H) grows with H, and the median sees the typical point.
    assert 0.3 * true_share < entropy_noise(fit) < 1.5 * true_share
    words = dict(diagnose(fit))["noisy entropy"]
    assert "pulls a toward 0" in words
    corrected = float(re.search(r"ceiling near ([\d.]+)", words)[1])
    assert abs(corrected - 0.8) < abs(fit.ceiling - 0.8)
    assert entropy_noise(fit_law(h, r)) < 1e-4


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_residuals_with_a_trend(phi, synthetic) -> None:
    h, r = synthetic.run(240, phi)
    words = dict(diagnose(fit_law(h, r + 0.15 * np.arange(240) / 240)))["trend"]
    assert "measured from the law's curve R rose by" in words
    assert abs(float(re.search(r"rose by ([\d.]+)", words)[1]) - 0.15) < 0.06
    assert "fell by" in dict(diagnose(fit_law(h, r - 0.15 * np.arange(240) / 240)))["trend"]


def test_a_random_walk_is_no_trend(synthetic) -> None:
    found = [names(fit_law(*synthetic.run(240, 0.97, seed))) for seed in range(12)]
    assert sum("trend" in each for each in found) <= 1
    assert sum("few points" in each for each in found) >= 9


def test_a_sigmoid_of_the_step(synthetic) -> None:
    rng = np.random.default_rng(3)
    steps = np.arange(0, 960, 4)
    r = 0.4 + 0.4 / (1 + np.exp(-(steps - 500) / 60)) + 0.01 * rng.standard_normal(240)
    h = synthetic.course(240, tau=0.4)
    fit = fit_law(h, r)
    linear, sigmoid = alternatives(fit, steps)
    assert sigmoid.gain > 50 > linear.gain
    assert (
        "a sigmoid of the step describes R better than the law (AIC lower by"
        in dict(diagnose(fit))["alternative"]
    )


def test_linear_in_entropy(synthetic) -> None:
    rng = np.random.default_rng(4)
    h = synthetic.course(240, start=2.0)
    fit = fit_law(h, 0.9 - 0.3 * h + 0.01 * rng.standard_normal(240))
    linear, sigmoid = alternatives(fit)
    assert linear.gain > 20
    lawful = fit_law(h, 0.9 - 0.1 * np.exp(h) + 0.01 * rng.standard_normal(240))
    assert max(other.gain for other in alternatives(lawful)) < -20


def test_few_points_do_not_make_a_sigmoid(synthetic) -> None:
    # 12 points and 7 parameters: the plain AIC would prefer it often.
    gains = [alternatives(fit_law(*synthetic.run(12, 0.3, seed)))[1].gain for seed in range(30)]
    assert max(gains) < 4


def test_few_independent_points(synthetic) -> None:
    words = dict(diagnose(fit_law(*synthetic.run(30, 0.9, seed=1))))["few points"]
    assert re.search(r"only about \d effectively independent points \(autocorrelation 0\.\d\d\)", words)


def test_findings_enter_the_verdict(synthetic) -> None:
    h, r = synthetic.run(240)
    fit = fit_law(h, r + 0.15 * np.arange(240) / 240)
    text = assess(fit).verdict
    assert "describes this run well" not in text
    assert "rough guide, because measured from the law's curve R rose" in text
    assert "\n" not in text
    short = assess(fit, performance_name="reward/mean").short
    assert short == text.partition(", because ")[0] and short.endswith("take this ceiling as a rough guide")
    assert all(finding.words in text for finding in diagnose(fit))


@pytest.mark.parametrize(
    ("h", "r"),
    [
        ([0.1, 0.5, 0.9], [0.5, 0.45, 0.3]),
        ([0.1, 0.5, 0.9, 0.3], [0.5] * 4),
        (list(np.linspace(1, 0, 40)), [0.5] * 39 + [0.6]),
        (list(np.linspace(1, 0, 40)), list(0.9 - 0.2 * np.exp(np.linspace(1, 0, 40)))),
        (list(np.linspace(690, 1, 40)), list(np.linspace(0, 1, 40))),
        ([0.5, 0.1] * 20, [0.2, 0.4] * 20),
    ],
)
def test_hostile_runs_are_examined_without_a_crash(h, r) -> None:
    for finding in diagnose(fit_law(h, r)):
        assert finding.words and "\n" not in finding.words and "nan" not in finding.words


def test_refusals(synthetic) -> None:
    fit = fit_law(*synthetic.run(30))
    with pytest.raises(UserError, match="needs as many steps, finite and increasing"):
        diagnose(fit, np.arange(29))
    with pytest.raises(UserError, match="finite and increasing"):
        diagnose(fit, np.zeros(30))
    with pytest.raises(UserError, match="holds no points"):
        diagnose(LawFit(0.2, 1, 0.8, 0.9, 0.01, 20, ((0, 0), (0, 0))))
    with pytest.raises(UserError, match="12 points or more"):
        alternatives(fit_law(*synthetic.run(11)))
