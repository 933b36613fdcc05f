"""The public functions do what the command line does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import entropilot
from entropilot.records import RunWriter


def test_answers_are_clustered_by_a_judge_s_name() -> None:
    """Shares 2/4, 1/4, 1/4: H = 1.5 ln 2. A missing answer is a cluster of its own."""
    (one,) = entropilot.cluster([["4", " 4", "5", None]], judge="exact")
    assert (one.labels, one.sizes) == ([0, 0, 1, 2], [2, 1, 1])
    assert one.semantic_entropy == pytest.approx(1.5 * math.log(2))
    with pytest.raises(entropilot.UserError, match="There is no judge named 'nobody'"):
        entropilot.cluster([["1"]], judge="nobody")


def test_a_forecast_takes_a_folder_a_reading_or_a_run(tmp_path: Path) -> None:
    """R = 0.9 − 0.2·exp(H), H falling by 0.02 a step from 0.6."""
    writer = RunWriter(tmp_path, {"name": "law"})
    for step in range(1, 21):
        h = 0.6 - 0.02 * step
        writer.row(step, {"entropy/policy_T1": h, "validation/accuracy": 0.9 - 0.2 * math.exp(h)})
    writer.close()
    folder = entropilot.forecast(tmp_path, last_step=25)
    assert folder.last_step == 25
    for log in (entropilot.read(tmp_path), entropilot.read_run(tmp_path)):
        assert entropilot.forecast(log, last_step=25).performance == folder.performance
    # Without a step to forecast, the first 15 % stand against the run's own end.
    assert entropilot.forecast(tmp_path).last_step == 20


def test_a_model_is_evaluated() -> None:
    pytest.importorskip("torch")
    result = entropilot.evaluate("sandbox", problems=4, max_tokens=40)["results"][0]
    assert result["problems"] == 4 and result["accuracy"] in (0.0, 0.25, 0.5, 0.75, 1.0)
