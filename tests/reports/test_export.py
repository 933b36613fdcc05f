"""Charts of a report as files for a paper."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from entropilot.errors import UserError
from entropilot.records import Run
from entropilot.reports.page.export import export


def test_every_metric_as_csv(tmp_path: Path, make_run) -> None:
    runs = [make_run(tmp_path / "a", "=cmd", tokens=False), make_run(tmp_path / "b", "b", tokens=False)]
    written = export(runs, tmp_path / "out", "csv")
    names = {path.name for path in written}
    assert {"entropy_policy_T1.csv", "validation_accuracy.csv", "seconds_step.csv"} <= names
    with (tmp_path / "out" / "entropy_policy_T1.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "'=cmd", "b"]  # no formula for a spreadsheet
    assert float(rows[1][1]) == 1.2 - 0.05 and rows[21] == ["21", "", ""]


@pytest.mark.parametrize(("kind", "begin"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_pictures(tmp_path: Path, make_run, kind: str, begin: bytes) -> None:
    pytest.importorskip("matplotlib")
    runs = [make_run(tmp_path / str(i), name, tokens=False) for i, name in enumerate(("$x^", "<b>", "$x^"))]
    written = export(runs, tmp_path / "out", kind, "method")  # type: ignore[arg-type]
    assert [path.name for path in written] == [
        f"{name}.{kind}" for name in ("entropy_policy_T1", "reward_mean", "validation_accuracy")
    ]
    assert all(path.read_bytes().startswith(begin) and path.stat().st_size > 3000 for path in written)


def test_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to export"):
        export([Run(tmp_path, {}, [{"step": 1, "loss": 0.1}])], tmp_path, "svg")
