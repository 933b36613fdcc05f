"""Robust losses, against scipy's own solution in the plain parameters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from entropilot.errors import UserError
from entropilot.law.law import fit_law


def spoiled(synthetic) -> tuple[np.ndarray, np.ndarray]:
    h, r = synthetic.run(100)
    r[::12] -= 0.4
    return h, r


@pytest.mark.parametrize("loss", ["soft_l1", "huber"])
def test_it_is_scipys_minimum(loss, synthetic) -> None:
    h, r = spoiled(synthetic)
    weights = np.random.default_rng(0).uniform(0.5, 1, 100)
    weights[3] = 1.0  # weights are relative to the largest
    fit = fit_law(h, r, weights, loss=loss, loss_scale=0.03)
    best = least_squares(
        lambda c: np.sqrt(weights) * (r + c[0] * np.exp(h) - c[1]),
        [0.1, 0.9],
        loss=loss,
        f_scale=0.03,
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    ).x
    assert (fit.a, fit.b) == pytest.approx(tuple(best), rel=1e-6)


@pytest.mark.parametrize("loss", ["soft_l1", "huber"])
def test_outliers_pull_less(loss, synthetic) -> None:
    h, r = spoiled(synthetic)
    plain, robust = fit_law(h, r), fit_law(h, r, loss=loss)
    assert abs(robust.ceiling - 0.8) < 0.1 * abs(plain.ceiling - 0.8)
    low, high = robust.interval()
    assert low <= 0.8 <= high
    assert high - low < 0.5 * np.diff(plain.interval())[0]
    assert 0 <= robust.r2 <= 1


def test_without_outliers_it_is_nearly_least_squares(synthetic) -> None:
    h, r = synthetic.run(200)
    plain, robust = fit_law(h, r), fit_law(h, r, loss="huber")
    assert robust.a == pytest.approx(plain.a, rel=0.02)
    assert np.diff(robust.interval())[0] == pytest.approx(np.diff(plain.interval())[0], rel=0.15)


@pytest.mark.parametrize("loss", ["soft_l1", "huber"])
def test_perfect_and_constant_data(loss, synthetic) -> None:
    h = synthetic.course(20)
    assert fit_law(h, 1 - 0.2 * np.exp(h), loss=loss).ceiling == pytest.approx(0.8, abs=1e-9)
    assert fit_law(h, np.full(20, 0.5), loss=loss).a == pytest.approx(0, abs=1e-9)


def test_refusals(synthetic) -> None:
    h, r = synthetic.run(20)
    with pytest.raises(UserError, match="'cauchy' is none of squared, soft_l1, huber"):
        fit_law(h, r, loss="cauchy")
    for scale in (0.0, -1.0, np.nan):
        with pytest.raises(UserError, match="scale above 0"):
            fit_law(h, r, loss="huber", loss_scale=scale)
    with pytest.raises(UserError, match="every point is an outlier"):
        fit_law(h, r, loss="huber", loss_scale=1e-12)
