"""Rows of docs/results/law_coverage.md, simulated again: the tables' seeds follow from the row."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("law_benchmark", ROOT / "benchmarks/law.py")
assert SPEC is not None and SPEC.loader is not None
law = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(law)

pytestmark = pytest.mark.slow


def lines_under(heading: str) -> list[str]:
    text = (ROOT / "docs/results/law_coverage.md").read_text(encoding="utf-8")
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0].splitlines()


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def test_the_chosen_interval() -> None:
    found, warned = law.cell(1000, {"": law.chosen}, 60, 0.6, "AR(1)", 0.0, 1 / 6)
    assert line(law.chosen_row(60, 0.6, "AR(1)", found[""], warned)) in lines_under("The table")


def test_elsewhere() -> None:
    row = law.elsewhere_row(1000, n=60, phi=0.6, h_noise=0.1)
    assert line(row) in lines_under("Elsewhere"), "the row that shows what noise of H does"


def test_forecasts_in_time() -> None:
    row = law.forecast_row(200, 60, 0.15, "exponential to a floor")
    assert line(row) in lines_under("Forecasts in time"), "the row whose R is held least often"
