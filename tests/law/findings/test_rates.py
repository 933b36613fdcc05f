"""The rates of false alarms that findings tell, and the table of them, against the study that made them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_the_rates_are_what_the_study_makes(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments import finding_rates as study

    stored = json.loads(study.TABLE.read_text())
    monkeypatch.setattr(study, "TABLE", tmp_path / "rates.json")
    monkeypatch.setenv("ENTROPILOT_DATA", str(data_dir))
    monkeypatch.setattr("sys.argv", ["finding_rates", "--write"])
    study.main()
    assert json.loads(study.TABLE.read_text()) == stored
    printed = capsys.readouterr().out
    assert "59 of 98 runs are healthy." in printed
    page = (Path(__file__).parents[3] / "docs/how-to/diagnose-a-run.md").read_text(encoding="utf-8")
    assert printed[printed.index("|") :] in page
