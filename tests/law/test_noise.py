"""The noise of residuals: exact against dense matrices, and what it estimates on processes that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import t as student

from entropilot.law.noise import (
    _cells,
    _correlated,
    _profile,
    estimate_noise,
    local_scale,
    log_likelihood,
    mixture_quantile,
)

CELLS = np.array([[0.0, 1.0], [-0.5, 1.0], [0.7, 1.0], [0.7, 0.4], [0.97, 0.15]])


def dense(n: int, phi: float, share: float) -> np.ndarray:
    gap = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return share * phi**gap + (1 - share) * np.eye(n)


def line(n: int) -> np.ndarray:
    return np.stack([np.linspace(-1, 2, n) ** 2, np.ones(n)], axis=1)


@pytest.mark.parametrize("n", [3, 4, 17])
def test_the_restricted_likelihood_is_that_of_dense_matrices(n) -> None:
    rng = np.random.default_rng(0)
    design, y = line(n), rng.standard_normal(n)
    log_det, log_gram, rss = _profile(design, y, *CELLS.T)
    for i, (phi, share) in enumerate(CELLS):
        omega = dense(n, phi, share)
        inverse = np.linalg.inv(omega)
        gram = design.T @ inverse @ design
        beta = np.linalg.solve(gram, design.T @ inverse @ y)
        error = y - design @ beta
        expected = (np.linalg.slogdet(omega)[1], np.linalg.slogdet(gram)[1], error @ inverse @ error)
        assert (log_det[i], log_gram[i], rss[i]) == pytest.approx(expected, rel=1e-9, abs=1e-9), (phi, share)


def test_the_likelihood_is_the_gaussian_one() -> None:
    # Of all cells the best: no cell's dense likelihood is larger, and one is as large.
    rng = np.random.default_rng(1)
    design, y, scale = line(12), rng.standard_normal(12), np.linspace(0.5, 2, 12)
    values = []
    phis, shares, _ = _cells(False)
    for phi, share in zip(phis, shares, strict=True):
        omega = np.outer(scale, scale) * dense(12, phi, share)
        inverse = np.linalg.inv(omega)
        beta = np.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ y)
        error = y - design @ beta
        values.append(-0.5 * np.linalg.slogdet(omega)[1] - 6 * np.log(error @ inverse @ error / 12))
    assert log_likelihood(design, y, scale) == pytest.approx(max(values), rel=1e-9)


def test_quadratic_forms_are_those_of_dense_matrices() -> None:
    rows = np.random.default_rng(2).standard_normal((3, 25))
    for (phi, share), got in zip(CELLS, _correlated(rows, *CELLS.T), strict=True):
        expected = np.einsum("mi,ij,mj->m", rows, dense(25, phi, share), rows)
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_quantiles_of_mixtures() -> None:
    # One cell is Student's t itself; of two, P(|T| ≤ q) is checked by an independent root.
    assert mixture_quantile(np.array([[2.0]]), np.array([1.0]), 5, 0.95)[0] == pytest.approx(
        2 * student.ppf(0.975, 5), rel=1e-9
    )
    both = mixture_quantile(np.array([[1.0], [4.0]]), np.array([0.7, 0.3]), 3, 0.9)[0]
    expected = brentq(
        lambda q: 0.7 * (2 * student.cdf(q, 3) - 1) + 0.3 * (2 * student.cdf(q / 4, 3) - 1) - 0.9,
        0.1,
        50,
        xtol=1e-13,
    )
    assert both == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_persistence_of_known_processes(phi, synthetic) -> None:
    n = 1500
    noise = estimate_noise(line(n), synthetic.ar1(np.random.default_rng(3), n, phi))
    assert noise.persistence == pytest.approx(phi, abs=0.06)
    assert noise.effective_n == pytest.approx(n * (1 - phi) / (1 + phi), rel=0.35)
    assert np.sqrt(noise.weight @ noise.variance) == pytest.approx(1, rel=0.15)


def test_residuals_of_a_short_run_do_not_hide_their_persistence(synthetic) -> None:
    # The plain lag-1 autocorrelation of 40 residuals of an AR(0.8) is biased to near 0.65.
    plain, ours = [], []
    design = line(40)
    for seed in range(60):
        u = synthetic.ar1(np.random.default_rng(seed), 40, 0.8)
        residual = u - design @ np.linalg.lstsq(design, u, rcond=None)[0]
        plain.append(residual[1:] @ residual[:-1] / (residual @ residual))
        ours.append(estimate_noise(design, residual).persistence)
    assert np.mean(plain) < 0.7
    assert np.mean(ours) > np.mean(plain) + 0.04


def test_a_slow_part_is_seen_through_a_white_one(synthetic) -> None:
    rng = np.random.default_rng(4)
    n = 1500
    u = synthetic.ar1(rng, n, 0.9) + rng.standard_normal(n)
    noise = estimate_noise(line(n), u)
    assert float(noise.weight @ noise.phi) == pytest.approx(0.9, abs=0.06)
    assert float(noise.weight @ noise.share) == pytest.approx(0.5, abs=0.2)


def test_noise_that_shrinks_is_seen_and_noise_that_does_not_is_left_alone() -> None:
    rng = np.random.default_rng(5)
    n = 600
    design = np.stack([np.linspace(1, 0, n), np.ones(n)], axis=1)
    steady = local_scale(design, rng.standard_normal(n))
    assert np.ptp(steady) < 0.25
    falling = local_scale(design, rng.standard_normal(n) * np.sqrt(np.linspace(1.9, 0.1, n)))
    assert falling[0] / falling[-1] > 2.2
    assert np.mean(falling**2) == pytest.approx(1, rel=1e-9)
    assert (local_scale(design[:5], np.arange(5.0)) == 1).all()


def test_draws_have_the_variances_they_are_drawn_from(synthetic) -> None:
    noise = estimate_noise(line(80), synthetic.ar1(np.random.default_rng(6), 80, 0.4))
    rows = np.random.default_rng(7).standard_normal((2, 80)) / 80
    errors, sd = noise.draws(rows, 200_000, np.random.default_rng(8))
    df = noise.df / (noise.df - 2)  # variance of Student's t
    both = noise.variances(np.vstack([rows, rows.sum(axis=0)]))
    expected = noise.weight @ both * df
    assert errors.var(axis=0) == pytest.approx(expected[:2], rel=0.02)
    assert errors.sum(axis=1).var() == pytest.approx(expected[2], rel=0.02)
    assert np.mean(sd**2) == pytest.approx(float(noise.weight @ noise.variance) * df, rel=0.02)


def test_no_noise_at_all() -> None:
    noise = estimate_noise(line(9), np.zeros(9))
    assert noise.half_width(np.ones((1, 9)), 0.95)[0] == 0
    assert 1 <= noise.effective_n <= 9
