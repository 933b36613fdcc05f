"""The stop rule that needs no label: where it holds on series whose course is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from entropilot.analysis.stopping import Stop, StopRule, label_free_stop
from entropilot.errors import UserError

RULE = StopRule(window=4, flat=0.02, falling=0.05, majority=0.9)
T = np.arange(1, 41) * 4.0


def falling(start: float, rate: float) -> np.ndarray:
    return start * np.exp(-rate * np.arange(40))


def test_it_fires_when_meaning_is_flat_and_tokens_still_fall() -> None:
    # Semantic entropy falls by 0.05 a rollout for 12 rollouts and is flat from then on.
    meaning = np.maximum(1.0 - 0.05 * np.arange(40), 0.4)
    stop = label_free_stop(T, meaning, falling(0.5, 0.05), np.full(40, 0.7), rule=RULE)
    # The limit is 0.02 of the first window's mean: 0.02·(1 + 0.95 + 0.9 + 0.85)/4 = 0.0185. After 18 rollouts the window
    # before the last is (0.5 + 0.45 + 2·0.4)/4 = 0.4375, 0.0375 above the last; after 19 it is 0.4125, 0.0125 above.
    assert stop is not None and (stop.reason, stop.step) == ("flat", 4.0 * 19)
    assert "falls no more" in stop.words and "0.40" in stop.words


def test_it_goes_on_while_meaning_still_falls_or_tokens_are_steady() -> None:
    rows = np.full(40, 0.7)
    assert label_free_stop(T, 1.0 - 0.02 * np.arange(40), falling(0.5, 0.05), rows, rule=RULE) is None
    assert label_free_stop(T, np.full(40, 0.4), np.full(40, 0.3), rows, rule=RULE) is None, (
        "nothing gets surer"
    )


def test_a_majority_above_the_limit_ends_it_at_once() -> None:
    share = np.where(np.arange(40) < 10, 0.5, 0.95)
    stop = label_free_stop(T, 1.0 - 0.02 * np.arange(40), falling(0.5, 0.05), share, rule=RULE)
    # (0.5 + 3·0.95)/4 = 0.8375 and 4·0.95/4 = 0.95: the window must hold four of them, the fourth is rollout 14.
    assert stop is not None and (stop.reason, stop.step) == ("majority", 4.0 * 14)
    assert "95%" in stop.words and "90%" in stop.words


def test_too_short_a_run_and_values_that_were_not_measured() -> None:
    assert label_free_stop([1, 2], [1, 1], [1, 1], [1, 1], rule=RULE) is None
    meaning, token, share = np.full(40, 0.4), falling(0.5, 0.05), np.full(40, 0.7)
    plain = label_free_stop(T, meaning, token, share, rule=RULE)
    holes = label_free_stop([*T, 500], [*meaning, math.nan], [*token, 1.0], [*share, 1.0], rule=RULE)
    assert plain == holes and isinstance(plain, Stop) and plain.step == 4.0 * 8


@pytest.mark.parametrize(
    "rule",
    [
        StopRule(window=1),
        StopRule(majority=0.0),
        StopRule(majority=1.1),
        StopRule(flat=-1),
        StopRule(flips=-0.1),
        StopRule(falling=-1),
    ],
)
def test_limits_that_make_no_sense_are_refused(rule: StopRule) -> None:
    with pytest.raises(UserError, match="A stop rule needs"):
        label_free_stop([1.0], [1.0], [1.0], [1.0], rule=rule)


def test_series_of_different_lengths_are_refused() -> None:
    with pytest.raises(UserError, match="as many values"):
        label_free_stop([1.0, 2.0], [1.0], [1.0], [1.0])


def test_majorities_that_begin_to_change_again_end_it() -> None:
    meaning, token, share = 1.0 - 0.02 * np.arange(40), falling(0.5, 0.05), np.full(40, 0.7)
    # Unknown for five rollouts, then 0.20 for ten, 0.04 for ten, 0.10 from rollout 26 on.
    flips = np.concatenate([np.full(5, np.nan), np.full(10, 0.2), np.full(10, 0.04), np.full(15, 0.1)])
    stop = label_free_stop(T, meaning, token, share, flips, RULE)
    # Window of 4, lowest mean 0.04; 0.04 + k·0.06/4 exceeds 0.09 first at k = 4 (0.10), rollout 29.
    assert stop is not None and (stop.reason, stop.step) == ("flips", 4.0 * 29)
    assert "10%" in stop.words and "up from 4%" in stop.words
    assert label_free_stop(T, meaning, token, share, flips, RULE._replace(flips=0.061)) is None
    assert label_free_stop(T, meaning, token, share, flips[::-1], RULE._replace(flips=0.2)) is None


def test_flips_that_fall_or_were_never_seen_end_nothing() -> None:
    meaning, token, share = 1.0 - 0.02 * np.arange(40), falling(0.5, 0.05), np.full(40, 0.7)
    assert label_free_stop(T, meaning, token, share, falling(0.5, 0.05), RULE) is None
    assert label_free_stop(T, meaning, token, share, np.full(40, np.nan), RULE) is None
