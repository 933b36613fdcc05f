"""The rates of false alarms that findings tell, against the study that made them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest


def test_the_rates_are_what_the_study_makes(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments import finding_rates as study

    stored = json.loads(study.TABLE.read_text())
    monkeypatch.setattr(study, "TABLE", tmp_path / "rates.json")
    monkeypatch.setenv("ENTROPILOT_DATA", str(data_dir))
    monkeypatch.setattr("sys.argv", ["finding_rates", "--write"])
    # What speaks while a run goes on is printed beside the rates, and takes most of the time.
    monkeypatch.setattr(study, "LiveFindings", lambda: SimpleNamespace(add=lambda step, row: []))
    study.main()
    assert json.loads(study.TABLE.read_text()) == stored
    assert "59 of 98 runs are healthy." in capsys.readouterr().out
