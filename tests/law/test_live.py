"""The law while training: the same numbers as afterwards, nothing raised, one sentence at the right time."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from entropilot.errors import UserError
from entropilot.law import intervals
from entropilot.law.law import fit_law
from entropilot.law.live import alarm, law_metrics, smoothed_entropy, spent
from entropilot.law.noise import estimate_noise


def test_the_same_law_as_afterwards(synthetic) -> None:
    h, r = synthetic.run(100, 0.3)
    metrics = law_metrics(np.arange(100), h, r)
    fit = fit_law(h, r)
    assert list(metrics) == ["law/ceiling", "law/ceiling_low", "law/ceiling_high", "law/r2", "law/spent"]
    assert (metrics["law/ceiling"], metrics["law/r2"]) == (fit.ceiling, fit.r2)
    low, high = fit.interval()
    assert metrics["law/ceiling_high"] - metrics["law/ceiling_low"] == pytest.approx(high - low, rel=0.15)


def test_spent_by_hand() -> None:
    # exp(H) from 3 to the last three's 2, 2, 2: (3 − 2)/(3 − 1).
    h = np.log([3, 2.5, 2, 2, 2])
    assert spent(h) == pytest.approx(0.5, rel=1e-9)
    assert smoothed_entropy(np.arange(100.0)) == pytest.approx(97)  # the last twentieth
    assert smoothed_entropy(np.arange(2000.0)) == pytest.approx(1989.5)  # but 20 at most
    assert (
        math.isnan(spent([])) and math.isnan(spent([0.0, 0.1])) and math.isnan(smoothed_entropy([math.nan]))
    )


def test_the_interval_of_long_histories_holds(synthetic) -> None:
    hits = 0
    for seed in range(30):
        metrics = law_metrics(np.arange(1000), *synthetic.run(1000, 0.6, seed))
        hits += metrics["law/ceiling_low"] <= 0.8 <= metrics["law/ceiling_high"]
    assert hits >= 24  # 30 runs at 93 %: fewer has a chance of 3e-3


def test_long_histories_are_quick(synthetic) -> None:
    """Fifty times the points cost 1.5 times the time; without averaging in blocks it is the cube. A ratio, because
    milliseconds differ between machines."""

    def quickest(n: int) -> float:
        h, r = synthetic.run(n, 0.6)
        seconds = []
        for _ in range(15):
            start = time.process_time()
            law_metrics(np.arange(n), h, r)
            seconds.append(time.process_time() - start)
        return min(seconds)

    assert quickest(10_000) < 4 * quickest(200)


def test_long_histories_are_averaged_in_blocks_of_neighbours(synthetic, monkeypatch) -> None:
    sizes = []

    def spy(design, *args):
        sizes.append(len(design))
        return estimate_noise(design, *args)

    monkeypatch.setattr(intervals, "estimate_noise", spy)
    h = synthetic.course(1003)  # no multiple of the block
    metrics = law_metrics(np.arange(1003), h, 1 - 0.2 * np.exp(h))
    assert sizes == [200]
    # Means of exp(H) and of R over the same points lie on the law too, so nothing is left to be noise.
    assert metrics["law/ceiling_high"] - metrics["law/ceiling_low"] < 1e-9


@pytest.mark.parametrize(
    ("h", "r"),
    [
        ([], []),
        ([0.5], [0.1]),
        ([math.nan] * 6, [0.1] * 6),
        ([0.5] * 6, [0.1] * 6),
        ([0.5, 0.4, 0.3, 0.2, 0.1], [math.nan] * 5),
        ([0.5, 0.4, 0.3, 0.2, 0.1], [0.3] * 5),
        ([900.0, 0.4, 0.3, 0.2, 0.1], [0.3, 0.1, 0.2, 0.4, 0.2]),
        ([0.0, 0.0, 0.0, 0.1, 0.2], [0.3, 0.1, 0.2, 0.4, 0.2]),
        ([math.inf, 0.4, 0.3, 0.2, 0.1, 0.3], [0.3, 0.1, 0.2, 0.4, 0.2, -math.inf]),
    ],
)
def test_what_was_measured_never_raises(h, r) -> None:
    metrics = law_metrics(np.arange(len(h)), h, r)
    assert all(math.isfinite(value) for value in metrics.values())
    assert isinstance(alarm(np.arange(len(h)), h, r), str | None)


def test_too_few_points_have_no_law_but_are_spent() -> None:
    assert law_metrics(range(4), [0.5, 0.4, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]).keys() == {"law/spent"}


def test_the_alarm_speaks_once_and_in_time(synthetic) -> None:
    h = synthetic.course(300, end=0.02)
    r = 0.9 - 0.2 * np.exp(h) + 0.01 * np.random.default_rng(0).standard_normal(300)
    said: list[tuple[int, str]] = []
    for n in range(1, 301):
        words = alarm(np.arange(n) * 4, h[:n], r[:n], raised=bool(said))
        if words:
            said.append((n, words))
    ((n, words),) = said
    assert spent(h[:n]) >= 0.9 > spent(h[: n - 1])
    assert f"at step {4 * (n - 1)}: it fell from 1.2 to 0." in words
    assert "90 % of what the law R = -a*exp(H) + b can buy" in words
    assert (
        "validation/accuracy, now 0.6" in words
        and "ceiling near 0.7" in words
        and "% of the variance" in words
    )
    for setting in ("fewer updates", "repo", "clip_cov", "`epsilon_high` to 0.28", "entropy bonus"):
        assert setting in words
    assert words.endswith(".") and "\n" not in words


def test_the_alarm_speaks_at_a_tenth_of_a_large_entropy() -> None:
    # 5 nats to 0.4: only exp(5) counts for the share, and it is long gone; 0.4 is below a tenth of 5 all the same.
    assert alarm(range(6), [5.0, 4.0, 4.9, 4.8, 4.9, 4.9]) is None
    assert "from 5 to 0.4 nats" in alarm(range(6), [5.0, 0.4, 0.4, 0.4, 0.4, 0.4])


def test_what_is_set_already_is_not_advised() -> None:
    h = [1.0, 0.5, 0.01, 0.01, 0.01]
    kl = alarm(range(5), h, settings={"method": "kl_cov", "entropy_coef": 0.001})
    assert "raise its `fraction` or `coef`" in kl
    assert "epsilon_high" not in kl and "bonus" not in kl
    clip = alarm(range(5), h, settings={"method": "clip_cov", "restrain": 1.0})
    assert "raise its `restrain`," in clip and "fraction" not in clip
    higher = alarm(range(5), h, settings={"method": "none", "epsilon": 0.2, "epsilon_high": 0.28})
    assert "clip-higher" not in higher and "repo" in higher
    repo = alarm(range(5), h, settings={"method": "repo", "updates_per_rollout": 1, "beta": 0.1})
    assert "method `clip_cov` or `stare`, which gained there" in repo
    assert "`repo`" not in repo and "fewer updates" not in repo and "`beta" not in repo


def test_a_run_that_does_not_follow_the_law_has_no_ceiling_in_the_alarm() -> None:
    h = np.linspace(1, 0.01, 30) ** 2
    r = 0.5 + 0.1 * np.random.default_rng(1).standard_normal(30)
    words = alarm(range(30), h, r)
    assert "though performance rose with entropy" in words and "ceiling near" not in words


def test_shapes_that_differ_are_the_callers_mistake() -> None:
    with pytest.raises(UserError, match="must be as many"):
        law_metrics(range(3), [0.1, 0.2], [0.1, 0.2])
