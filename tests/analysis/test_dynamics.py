"""The theory as an instrument: the exact check, and what is read from a run's record."""

from __future__ import annotations

import json
import math
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from entropilot.analysis.dynamics import (
    STEP_SIZES,
    agreement,
    by_difficulty,
    covariance_over_training,
    tabular_check,
)
from entropilot.errors import UserError
from entropilot.records import RunWriter


@pytest.mark.parametrize("rule", ["pg", "npg"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_relative_error_shrinks_linearly_with_the_step(rule: str, seed: int) -> None:
    check = tabular_check(rule, seed=seed)
    assert check.errors.shape == (100, 4) and tuple(check.step_sizes) == STEP_SIZES
    assert check.slope == pytest.approx(1.0, abs=0.05), f"{rule}: log error against log η over 100 draws"
    # A single draw whose first-order term nearly vanishes has a slope of its own; most have not.
    assert np.median(check.slopes) == pytest.approx(1.0, abs=0.02)
    assert np.mean(np.abs(check.slopes - 1) < 0.05) > 0.7


def exactly(z: np.ndarray, advantages: np.ndarray, rule: str, eta: float) -> tuple[Decimal, Decimal]:
    """The relative error of ΔH = −η·Cov for one policy, to 50 digits, and what one rounding in float64 may change of it.

    That is a unit in the last place of the terms of Cov, which cancel in part, as a share of ΔH, itself of order Cov.
    """
    with localcontext(prec=50):

        def policy(logits: list[Decimal]) -> list[Decimal]:
            weights = [v.exp() for v in logits]
            return [w / sum(weights) for w in weights]

        def entropy(logits: list[Decimal]) -> Decimal:
            return -mean(policy(logits), [q.ln() for q in policy(logits)])

        def mean(weights: list[Decimal], values: list[Decimal]) -> Decimal:
            return sum((w * v for w, v in zip(weights, values, strict=True)), Decimal(0))

        logits, a = ([Decimal(float(v)) for v in values] for values in (z, advantages))
        p, step = policy(logits), Decimal(eta)
        centred = [v - mean(p, a) for v in a]
        direction = [q * v for q, v in zip(p, centred, strict=True)] if rule == "pg" else centred
        log_p = [q.ln() for q in p]
        products = [x * y for x, y in zip(log_p, direction, strict=True)]
        cov = mean(p, products) - mean(p, log_p) * mean(p, direction)
        change = entropy([v + step * d for v, d in zip(logits, direction, strict=True)]) - entropy(logits)
        error = abs(change + step * cov) / abs(change)
        m, n = mean(p, log_p), mean(p, direction)
        terms = mean(p, [abs((x - m) * (y - n)) for x, y in zip(log_p, direction, strict=True)])
        return error, Decimal(float(np.finfo(float).eps)) * terms / abs(cov) * (1 + error) ** 2


@pytest.mark.parametrize(("rule", "actions"), [("pg", 3), ("npg", 3), ("pg", 40), ("npg", 40)])
def test_an_error_is_that_of_exact_arithmetic(rule: str, actions: int) -> None:
    check = tabular_check(rule, actions=actions, draws=4, step_sizes=[0.05, 0.002], seed=5)
    z, advantages = np.random.default_rng(5).standard_normal((2, 4, actions))
    for draw in range(4):
        for column, eta in enumerate((0.05, 0.002)):
            witness, unit = map(float, exactly(z[draw], advantages[draw], rule, eta))
            assert check.errors[draw, column] == pytest.approx(witness, rel=0, abs=8 * unit)


def test_the_wrong_sign_would_show() -> None:
    # Were the covariance taken with the other sign, the relative error would stay near 2 for every η.
    assert tabular_check("pg").errors[:, -1].max() < 0.1


def test_a_tabular_check_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UserError, match="none of pg and npg"):
        tabular_check("ppo")
    with pytest.raises(UserError, match="two or more step sizes"):
        tabular_check("pg", step_sizes=[0.1])


def series(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A covariance that decays, and a fall of entropy that is 0.4 times it, both with noise."""
    generator = np.random.default_rng(seed)
    covariance = np.exp(-np.arange(n) / (n / 3)) * generator.uniform(0.5, 1.5, n)
    return covariance, 0.4 * covariance + noise * generator.standard_normal(n)


def test_agreement_of_a_law_without_noise() -> None:
    found = agreement(*series(200, 0.0))
    for name in ("pearson", "spearman", "detrended"):
        assert getattr(found, name).value == pytest.approx(1.0), name
    assert (found.same_sign, found.positive, found.updates, found.window) == (1.0, (1.0, 1.0), 200, 20)
    assert found.step_size == pytest.approx(0.4)


def test_correlations_are_those_of_scipy() -> None:
    x, y = series(120, 0.3)
    found = agreement(x, y)
    last = 8 * np.finfo(float).eps  # eight units in the last place: scipy sums in another order
    assert found.pearson.value == pytest.approx(stats.pearsonr(x, y).statistic, rel=last, abs=0)
    assert found.spearman.value == pytest.approx(stats.spearmanr(x, y).statistic, rel=last, abs=0)
    assert found.same_sign == np.mean((x > 0) == (y > 0))
    assert found.positive == (np.mean(x > 0), np.mean(y > 0))
    products = sum(Fraction(v) * Fraction(w) for v, w in zip(x, y, strict=True))
    exact = float(products / sum(Fraction(v) ** 2 for v in x))
    assert found.step_size == pytest.approx(exact, rel=last, abs=0)


def test_a_shared_trend_alone_is_seen_through() -> None:
    """Two series that only fall together correlate; taken off their running means they do not."""
    detrended, inside = [], 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        trend = np.exp(-np.arange(240) / 60)
        x, y = trend + 0.2 * generator.standard_normal((2, 240))
        found = agreement(x, y)
        assert found.pearson.value > 0.2
        detrended.append(found.detrended.value)
        inside += found.detrended.low <= 0 <= found.detrended.high
    assert abs(np.mean(detrended)) < 0.02
    assert inside >= 180, f"a 95 % interval held the truth in {inside} of 200"


def test_an_interval_knows_of_autocorrelation() -> None:
    """Two independent AR(1) series of φ = 0.9: Fisher's interval on n values would miss 0 most of the time."""
    inside = 0
    for seed in range(200):
        shocks = np.random.default_rng(seed).standard_normal((2, 400))
        x, y = (np.convolve(row, 0.9 ** np.arange(400))[:400] for row in shocks)
        low, high = agreement(x, y).pearson[1:]
        inside += low <= 0 <= high
    assert inside >= 175, f"held 0 in {inside} of 200"


def test_agreement_refuses_too_little_and_leaves_out_what_is_not_finite() -> None:
    with pytest.raises(UserError, match="8 or more updates, but there are 7"):
        agreement([1.0] * 7, [1.0] * 7)
    with pytest.raises(UserError, match="must be as many, but are 3 and 2"):
        agreement([1, 2, 3], [1, 2])
    x, y = series(30, 0.1)
    holes = agreement([*x, math.nan, 1.0], [*y, 1.0, math.inf])
    assert holes == agreement(x, y)
    flat = agreement(np.ones(30), y)
    assert math.isnan(flat.pearson.value) and math.isnan(flat.pearson.low)


def test_difficulty_adds_up_over_rollouts() -> None:
    rows = [
        {"step": 1, "dynamics/by_accuracy": [[0.25, 2, 0.1, 1.0], [1.0, 6, 0.0, 0.0]]},
        {"step": 2},
        {"step": 3, "dynamics/by_accuracy": [[0.25, 6, 0.3, 3.0]]},
    ]
    first, last = by_difficulty(rows)
    # (2·0.1 + 6·0.3)/8 = 0.25 and (2 + 18)/8 = 2.5
    assert (first.accuracy, first.prompts, last) == (0.25, 8, (1.0, 6, 0.0, 0.0))
    assert first.covariance_pg == pytest.approx(0.25) and first.covariance_npg == pytest.approx(2.5)


@pytest.mark.parametrize(
    "value",
    ["text", 5, [[1, 2]], [["a", 1, 2, 3]], [[0.5, 0, 1.0, 1.0]], [None], [[0.5, 1, None, 1.0]], {"a": 1}],
)
def test_what_stands_in_a_foreign_record_is_left_out(value: object) -> None:
    assert by_difficulty([{"step": 1, "dynamics/by_accuracy": value}]) == []
    assert covariance_over_training([{"step": 1, "covariance/top_1": value if value != 5 else "five"}]) == []


def test_the_table_over_training_is_in_equal_parts() -> None:
    rows = [
        {"step": step, "covariance/top_1": float(step), "covariance/top_0.5": 1.0} for step in range(1, 8)
    ]
    parts = covariance_over_training([*rows, {"step": 8}], parts=3)
    assert [(first, last) for first, last, _ in parts] == [(1, 3), (4, 5), (6, 7)]
    assert [top["1"] for _, _, top in parts] == [2.0, 4.5, 6.5]
    assert covariance_over_training(rows[:2], parts=3) == [
        (1, 1, {"1": 1.0, "0.5": 1.0}),
        (2, 2, {"1": 2.0, "0.5": 1.0}),
    ]
    assert covariance_over_training([]) == []


# --- the command --------------------------------------------------------------------------------------------


def write_run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a run that measured around its updates; `rows` change what stands there."""
    writer = RunWriter(folder, {"name": "demo"})
    for step, row in enumerate(rows, start=1):
        around = {"dynamics/entropy_before": 0.6 / step, "dynamics/entropy_after": 0.6 / (step + 1)}
        covariance = {"dynamics/covariance_pg": 0.1 / step, "dynamics/covariance_npg": 0.2 / step}
        basis = {"entropy/policy_T1": 0.6 / step, "validation/accuracy": 0.5, "covariance/top_0.02": 1.0}
        writer.row(step, basis | around | covariance | row)
    writer.end("finished", seconds=1.0)
    writer.close()
    return folder


def test_a_short_run_is_one_sentence_and_what_else_is_known(run, tmp_path: Path) -> None:
    shown = run("dynamics", str(write_run(tmp_path / "short", [{}] * 7)))
    assert shown.code == 0 and "8 or more updates, but there are 7" in shown.err
    assert "Traceback" not in shown.err and "Pearson" not in shown.out and "top 2%" in shown.out
    document = json.loads(run("dynamics", str(write_run(tmp_path / "long", [{}] * 8)), "--json").out)
    assert document["agreement"]["pg"]["updates"] == 8


def test_tables_fit_eighty_columns(run, tmp_path: Path) -> None:
    """With all shares of the probe, more than a thousand steps, and negative values."""
    pytest.importorskip("torch", reason="the shares of the probe are in a module that imports torch")
    from entropilot.maths.covariance import TABLE_SHARES

    wobble = [math.sin(7 * step) for step in range(1201)]
    rows = [
        {
            **{f"covariance/top_{share:g}": -100 * wobble[step] for share in TABLE_SHARES},
            "dynamics/covariance_pg": wobble[step],
            "dynamics/covariance_npg": -1e-4 * wobble[step],
            "dynamics/by_accuracy": [[0.125, 1000, -0.01234, -0.12345], [1.0, 1000, 0.0, 0.0]],
        }
        for step in range(1200)
    ]
    shown = run("dynamics", str(write_run(tmp_path / "long", rows)))
    assert shown.code == 0, shown.err
    # No prose has two spaces in a row.
    tables = [line for line in shown.out.splitlines() if "  " in line]
    headings = ("covariance of responses", "accuracy of the prompt", "steps ")
    assert all(any(line.startswith(heading) for line in tables) for heading in headings)
    assert max(map(len, tables)) <= 80


@pytest.mark.parametrize(
    "hostile",
    [
        {"dynamics/covariance_pg": "text"},
        {"dynamics/covariance_npg": [1.0]},
        {"dynamics/entropy_before": None},
        {"dynamics/entropy_after": {"a": 1}},
        {"covariance/top_x": 1.0},
        {"covariance/top_": 1.0},
        {"covariance/top_nan": 1.0},
        {"covariance/top_-1": 1.0},
        {"covariance/top_200": 1.0},
        {"covariance/top_0.02": "text"},
        {"dynamics/by_accuracy": "text"},
    ],
    ids=str,
)
def test_columns_that_hold_something_else_are_left_out(run, tmp_path: Path, hostile: dict[str, Any]) -> None:
    folder = write_run(tmp_path / "run", [hostile] * 4 + [{}] * 8)  # the whole first third of the run
    shown = run("dynamics", str(folder))
    assert shown.code == 0 and "Traceback" not in shown.err and "Pearson" in shown.out
    document = json.loads(run("dynamics", str(folder), "--json").out)
    left_out = "dynamics/covariance_pg" in hostile or "dynamics/entropy" in str(hostile)
    assert document["agreement"]["pg"]["updates"] == 12 - 4 * left_out
    assert all(set(part["top"]) == {"0.02"} for part in document["covariance"])
