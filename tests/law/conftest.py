"""Synthetic runs for the tests of the law; nothing here imports entropilot."""

from __future__ import annotations

import numpy as np
import pytest


class Synthetic:
    """Runs that follow R = 1 − 0.2·exp(H) while H falls exponentially from 1.2 to 0.1 nats."""

    a, b, ceiling = 0.2, 1.0, 0.8

    @staticmethod
    def course(n: int, start: float = 1.2, end: float = 0.1, tau: float = 1 / 6) -> np.ndarray:
        return end + (start - end) * np.exp(-np.arange(n) / (n * tau))

    @staticmethod
    def ar1(rng: np.random.Generator, n: int, phi: float, sd: float = 1.0) -> np.ndarray:
        """A stationary AR(1) process of standard deviation sd."""
        from scipy.signal import lfilter  # takes seconds to load, wherever these tests are only collected

        shocks = rng.standard_normal(n) * np.sqrt(1 - phi**2)
        shocks[0] /= np.sqrt(1 - phi**2)
        return sd * lfilter([1.0], [1.0, -phi], shocks)

    @classmethod
    def run(cls, n: int, phi: float = 0.0, seed: int = 0, sd: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
        entropy = cls.course(n)
        return entropy, cls.b - cls.a * np.exp(entropy) + cls.ar1(np.random.default_rng(seed), n, phi, sd)


@pytest.fixture(scope="session")
def synthetic() -> type[Synthetic]:
    return Synthetic
