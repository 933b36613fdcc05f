"""EMPO: the published group by hand, every threshold on a group where it bites, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from entropilot.errors import UserError
from entropilot.maths.advantages import estimate_advantages
from entropilot.methods.empo import EMPO, MISSING, PENALTY, THRESHOLDS, semantic_entropy

# A A A B C C and one completion without an answer, which is a cluster of its own.
LABELS = [0, 0, 0, 1, 2, 2, 3]
ABSENT = [False] * 6 + [True]


def advantages(rewards: list[float | None], epsilon: float = 1e-6) -> np.ndarray:
    """(r − mean) / (unbiased std + ε), by NumPy."""
    r = np.array(rewards, dtype=np.float64)
    return (r - r.mean()) / (r.std(ddof=1) + epsilon)


def test_shares_of_the_published_group() -> None:
    rewards = EMPO().rewards(LABELS, ABSENT)
    assert rewards == pytest.approx([3 / 7, 3 / 7, 3 / 7, 1 / 7, 2 / 7, 2 / 7, 1 / 7], rel=1e-12)
    # H = −(3/7 ln 3/7 + 2·1/7 ln 1/7 + 2/7 ln 2/7)
    by_hand = -(3 / 7 * math.log(3 / 7) + 2 / 7 * math.log(1 / 7) + 2 / 7 * math.log(2 / 7))
    assert semantic_entropy(LABELS) == pytest.approx(by_hand, rel=1e-12)
    assert round(by_hand, 7) == 1.2770343
    expected = [0.952654] * 3 + [-1.270205] + [-0.158776] * 2 + [-1.270205]
    assert advantages(rewards) == pytest.approx(expected, abs=5e-7)


def test_a_missing_answer_may_count_for_nothing() -> None:
    rewards = EMPO(missing="zero").rewards(LABELS, ABSENT)
    assert rewards[-1] == 0.0
    assert advantages(rewards) == pytest.approx([0.866020] * 3 + [-0.866020, 0, 0, -1.732040], abs=5e-7)
    assert EMPO(missing="penalty").rewards(LABELS, ABSENT)[-1] == PENALTY == -0.5
    # The others get the same whatever the missing one gets.
    for rule in MISSING:
        assert EMPO(missing=rule).rewards(LABELS, ABSENT)[:6] == EMPO().rewards(LABELS, ABSENT)[:6]


def test_the_engine_turns_shares_into_these_advantages() -> None:
    rewards = torch.tensor(EMPO().rewards(LABELS, ABSENT), dtype=torch.float64)
    found = estimate_advantages(rewards, 7, "grpo")  # its ε is 1e-4, TRL's
    torch.testing.assert_close(found.numpy(), advantages(rewards.tolist(), 1e-4), rtol=1e-9, atol=0)


def group(*sizes: int) -> tuple[list[int], list[bool]]:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    return labels, [False] * len(labels)


@pytest.mark.parametrize(
    ("rule", "kept", "left_out"),
    [
        ({"threshold": "below_log_g"}, [(8,), (2, 1, 1, 1, 1, 1, 1)], [(1,) * 8, (1,) * 3, (1,)]),
        ({"threshold": "max_share_0.2"}, [(2,) * 5, (1,) * 5, (1,), (4, 1, 1)], [(1,) * 6, (3,) + (2,) * 7]),
        ({"threshold": "max_share_0.25"}, [(2,) * 4, (1,) * 4, (8,)], [(2,) * 5, (1,) * 5]),
        # ln 2 = 0.693 of (4, 4); 0 of (8,); ln 8 = 2.08 of eight.
        ({"threshold": "window", "low": 0.1, "high": 1.0}, [(4, 4), (7, 1)], [(8,), (1,) * 8]),
        ({"threshold": "window", "low": 0.1}, [(4, 4), (1,) * 8], [(8,)]),
        ({"threshold": "window", "high": 1.0}, [(8,), (4, 4)], [(1,) * 8]),
    ],
)
def test_every_threshold_bites_where_its_source_says(rule, kept, left_out) -> None:
    method = EMPO(**rule)
    for sizes in kept:
        rewards = method.rewards(*group(*sizes))
        assert rewards == EMPO().rewards(*group(*sizes)), f"{rule} must keep {sizes}"
    for sizes in left_out:
        assert method.rewards(*group(*sizes)) == [None] * sum(sizes), f"{rule} must leave out {sizes}"


def test_no_threshold_keeps_every_group() -> None:
    for sizes in ((8,), (1,) * 8, (3, 3, 2)):
        assert None not in EMPO().rewards(*group(*sizes))
    assert set(THRESHOLDS) == {"none", "below_log_g", "max_share_0.2", "max_share_0.25", "window"}


@pytest.mark.parametrize("size", [3, 5, 6, 7, 10, 12, 16, 64, 100])
def test_an_all_distinct_group_is_left_out_however_its_entropy_is_rounded(size: int) -> None:
    """In floating point H can come out below ln G; a comparison of the two would let such groups through."""
    assert not EMPO(threshold="below_log_g").keeps(list(range(size)))


def test_bounds_of_the_window_are_open() -> None:
    labels, _ = group(4, 4)
    exactly = semantic_entropy(labels)
    assert not EMPO(threshold="window", low=exactly).keeps(labels)
    assert not EMPO(threshold="window", low=0.0, high=exactly).keeps(labels)
    assert not EMPO(threshold="window", low=0.0).keeps(group(8)[0]), (
        "δ_low = 0 leaves out a group of one meaning"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": "often"}, "threshold = 'often' is no rule; choose one of none,"),
        ({"missing": "skip"}, "missing = 'skip' is no rule"),
        ({"threshold": "window"}, "give one of them or both"),
        ({"threshold": "window", "low": 2.0, "high": 1.0}, "low below high"),
        ({"low": 0.1}, "belong to threshold = 'window'"),
    ],
)
def test_what_cannot_work_is_refused(settings, said, unchecked) -> None:
    # Without the suite's type checks, so that it is our own message that arrives.
    with pytest.raises(UserError, match=said):
        unchecked(EMPO.__module__).EMPO(**settings)


def test_an_empty_group_has_no_rewards() -> None:
    assert EMPO().rewards([], []) == [] and EMPO(threshold="below_log_g").rewards([], []) == []
