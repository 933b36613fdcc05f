"""Rivals of the law: each exact on its own shape, and held within what R can be."""

from __future__ import annotations

import numpy as np
import pytest

from entropilot.law.calibration import Allowed
from entropilot.law.rivals import RIVALS, errors_on_own_end, predict_all, recent

SHARE = Allowed(0.0, 1.0, 1.0)
STEPS = np.arange(1.0, 61.0)


def test_recent_is_the_last_tenth_or_three() -> None:
    assert recent(np.arange(100.0)) == 94.5
    assert recent(np.array([1.0, 2.0, 6.0, 7.0])) == 5.0
    assert recent(np.array([4.0])) == 4.0


def test_by_hand() -> None:
    # Steps 1 … 60 count as 1 … 60 steps trained, so step 240 is 240.
    said = predict_all(STEPS, 0.2 + 0.1 * np.log(STEPS), 240, SHARE)
    assert said["linear in log step"] == pytest.approx(0.2 + 0.1 * np.log(240), rel=1e-9)
    # 1 − R = 0.8·X^−0.5, so 0.8/√240 at the end.
    said = predict_all(STEPS, 1 - 0.8 * STEPS**-0.5, 240, SHARE)
    assert said["log(1 - R) linear in log step"] == pytest.approx(1 - 0.8 / np.sqrt(240), rel=1e-9)
    assert said["no change"] == pytest.approx(np.mean(1 - 0.8 * np.arange(55.0, 61) ** -0.5), rel=1e-9)


def test_the_sigmoid_is_scalerls() -> None:
    # R₀ is the mean of the first three of 60 points, which the curve leaves at 0.1.
    truth = lambda c: 0.1 + 0.7 / (1 + (80 / c) ** 3.0)  # noqa: E731
    said = predict_all(STEPS, truth(STEPS), 240, SHARE)["sigmoid of the step"]
    assert said == pytest.approx(truth(240), abs=0.03)
    assert truth(240) - truth(60) > 0.4


def test_what_cannot_be_is_not_predicted() -> None:
    rising = predict_all(STEPS, np.linspace(0, 0.95, 60), 6000, SHARE)
    assert rising["linear in log step"] == 1.0
    assert all(0 <= value <= 1 for value in rising.values())
    falling = predict_all(STEPS, np.linspace(0.5, 0.01, 60), 6000, SHARE)
    assert falling["linear in log step"] == 0.0 and all(value >= 0 for value in falling.values())


def test_few_points_are_not_continued() -> None:
    assert list(predict_all(STEPS[:5], np.linspace(0, 1, 5), 60, SHARE)) == ["no change"]
    assert errors_on_own_end(STEPS[:8], np.linspace(0, 1, 8), SHARE) == {}


def test_its_own_end_picks_the_shape() -> None:
    errors = errors_on_own_end(STEPS, 1 - 0.8 * STEPS**-0.5, SHARE)
    assert set(errors) == set(RIVALS)
    # Predicted is the last value, held against is the mean of the last six: half of what the curve rose over them.
    rest = 0.8 * np.mean(np.arange(55.0, 61) ** -0.5) - 0.8 / np.sqrt(60)
    assert errors["log(1 - R) linear in log step"] == pytest.approx(rest, rel=1e-9)
    assert errors["no change"] > 5 * rest
