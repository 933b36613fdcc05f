"""Calibrated intervals: by hand from given constants, within their range, and of the table in the package."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from entropilot.law.calibration import (
    Allowed,
    Constants,
    allowed_range,
    constants_for,
    entropy_interval,
    performance_interval,
    table,
)
from entropilot.law.rivals import recent

CONSTANTS = Constants(0.15, 0.9, 0.1, (-1.0, 2.0), (math.log(0.5), math.log(3)))


def test_performance_by_hand() -> None:
    # Standard deviation 0.1, unit 1, floor 0.1: a scale of 0.2, so 0.5 − 0.2 to 0.5 + 0.4.
    values = np.array([0.4, 0.6])
    assert performance_interval(0.5, values, allowed_range(values, False), CONSTANTS) == pytest.approx(
        (0.3, 0.9)
    )
    assert performance_interval(0.8, values, allowed_range(values, False), CONSTANTS).high == 1.0
    # A rise that all runs made does not exclude that nothing changes.
    risen = CONSTANTS._replace(performance=(0.5, 1.0))
    assert performance_interval(0.5, values, allowed_range(values, False), risen).low == 0.5


def test_what_r_can_be() -> None:
    assert allowed_range(np.array([0.2, 0.9]), False) == Allowed(0, 1, 1)
    assert allowed_range(np.array([-1.0, 3.0]), False) == Allowed(-5, 7, 4)
    assert allowed_range(np.array([2.0, 2.0]), False) == Allowed(0, 4, 2)
    assert allowed_range(np.array([0.2, 1.2]), True) == Allowed(0, 1.2, 1.2)


def test_entropy_by_hand() -> None:
    # (0.19 + 0.01)·½ − 0.01 = 0.09 and ·3 − 0.01 = 0.59.
    assert entropy_interval(0.19, CONSTANTS) == pytest.approx((0.09, 0.59))
    assert entropy_interval(0.001, CONSTANTS).low == 0.0
    assert entropy_interval(12.0, CONSTANTS).high == 12.5
    assert entropy_interval(2.0, CONSTANTS, most=math.log(10)).high == math.log(10)


def test_the_table_in_the_package() -> None:
    assert [row.share for row in table()] == [0.15, 0.3, 0.5]
    for row in table():
        assert row.held is not None and 0.8 < row.held <= 1
        for low, high in (row.performance, row.entropy):
            assert low < 0 < high
    assert [constants_for(share).share for share in (0.05, 0.15, 0.29, 0.3, 0.49, 0.9)] == [
        0.15,
        0.15,
        0.15,
        0.3,
        0.3,
        0.5,
    ]
    assert constants_for(0.1499).held is None and constants_for(0.1499)[2:] == table()[0][2:]


@pytest.mark.slow(seconds=30)
def test_the_table_and_its_page_are_what_the_study_makes(data_dir, tmp_path, monkeypatch, capsys) -> None:
    from experiments.forecast_calibration import __main__ as study

    monkeypatch.setattr(study, "TABLE", tmp_path / "calibration.json")
    monkeypatch.setenv("ENTROPILOT_DATA", str(data_dir))
    monkeypatch.setattr("sys.argv", ["forecast_calibration", "--write"])
    study.main()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    page = (Path(__file__).parents[2] / "docs/results/real_runs.md").read_text(encoding="utf-8")
    assert sorted(printed) == sorted(line for line in page.splitlines() if line.startswith("|"))
    made = json.loads((tmp_path / "calibration.json").read_text())
    for row, own in zip(made["rows"], table(), strict=True):
        assert (row["share"], row["floor"]) == (own.share, own.floor)
        assert row["performance"] == pytest.approx(own.performance, rel=1e-3)
        assert row["entropy"] == pytest.approx(own.entropy, rel=1e-3)
        assert row["held"] == pytest.approx(own.held, abs=0.011)


def test_public_runs_keep_to_the_intervals(data_dir) -> None:
    # The constants are quantiles over sources; all 98 runs were part of them, so this is no test of a forecast.
    from experiments.forecast_calibration.cases import load

    inside = []
    for run in load(data_dir):
        known = np.isfinite(run.reward)
        cut = known & (run.steps - run.steps[0] <= 0.15 * (run.steps[-1] - run.steps[0]))
        values = run.reward[cut] if cut.any() else run.reward[known][:1]
        allowed = allowed_range(values, False)
        low, high = performance_interval(recent(values), values, allowed, constants_for(0.15))
        inside.append(low <= run.reward[known][-1] <= high)
    assert len(inside) == 98 and 0.8 < np.mean(inside) < 1


def test_a_study_by_hand() -> None:
    from experiments.forecast_calibration.procedure import interval_score, quantile
    from experiments.forecast_calibration.tables import median_over_sources, over_sources

    values, weight = np.array([3.0, 1.0, 2.0]), np.array([0.5, 0.25, 0.25])
    assert [quantile(values, weight, level) for level in (0.2, 0.25, 0.3, 0.5, 0.51, 1)] == [1, 1, 2, 2, 3, 3]
    # 40 = 2/0.05 for each unit outside.
    assert interval_score(0.9, 0.2, 0.8) == pytest.approx(0.6 + 4)
    assert interval_score(0.5, 0.2, 0.8) == pytest.approx(0.6)
    assert over_sources(np.ones(5), list("aabbc")) == (1.0, 1.0)
    low, high = over_sources(np.array([1, 1, 1, 0]), list("aaab"))
    assert (low, high) == (0.0, 1.0)
    assert median_over_sources([1.0, 1.0, 5.0], list("aab")) == (1.0, 5.0)


def made_up_cases(targets_of: dict[str, float]) -> list:
    """Return three runs of each of six sources; a linear trend is right in all, but by `targets_of` in one."""
    from experiments.forecast_calibration.cases import SHARES, Case

    rng, made = np.random.default_rng(0), []
    for source in "abcdef":
        for _ in range(3):
            first, rise = rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.5)
            for share in SHARES:
                values = first + rise * np.linspace(0, share, 20) + 0.01 * rng.standard_normal(20)
                now, end = recent(values), first + rise + 0.01 * rng.standard_normal()
                predictions = {
                    "no change": now,
                    "linear in log step": end + 0.02 * rng.standard_normal(),
                    "law": now,
                }
                made.append(
                    Case(
                        source, share, "reward/mean", values, allowed_range(values, False), predictions,
                        "linear in log step", targets_of.get(source, end), {"no change": 0.5}, 0.4,
                    )
                )  # fmt: skip
    return made


def test_nothing_is_chosen_by_the_source_that_is_held_out() -> None:
    from experiments.forecast_calibration.procedure import STILL, Study, be_still, required

    studies = [Study(made_up_cases(targets)) for targets in ({}, {"a": 0.0})]
    tables = [study.held_out(study.sources, study.choose) for study in studies]
    of_a, others = (
        [[(row.choice, *vars(row).values())[2:] for row in rows if (row.case.source == "a") is own] for rows in tables]
        for own in (True, False)
    )  # fmt: skip
    assert [row[1:] for row in of_a[0]] == [row[1:] for row in of_a[1]]
    assert [row[1:] for row in others[0]] != [row[1:] for row in others[1]]
    assert all(row.choice.name in ("linear in log step", "best on the prefix's own end") for row in tables[0])
    still = studies[0].held_out(studies[0].sources, be_still)
    assert {row.choice for row in still} == {STILL} and not any(row.speaks for row in still)
    met = required(tables[0], still, 0.15)
    assert (met.runs, met.spoken, met.sources, met.met) == (18, 18, 6, True) and met.gain < -0.05
    assert not required(still, tables[0], 0.15).met
