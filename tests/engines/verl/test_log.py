"""verl's file logger, read while it grows: what `fit` and the live page see of a job that is going on."""

from __future__ import annotations

import json
import math

import pytest

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]


def test_a_growing_log_is_read_at_any_moment(tmp_path, monkeypatch, run) -> None:
    """R = 1 − 0.5·exp(H) exactly, so the ceiling at H = 0 is 0.5; a torn line in between costs nothing."""
    tracking = pytest.importorskip("verl.utils.tracking")
    path = tmp_path / "job.jsonl"
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(path))
    logger = tracking.Tracking("entropilot", "job", "file", config={})
    for step in range(1, 13):
        entropy = 0.6 * math.exp(-step / 6)
        values = {"actor/entropy": entropy, "val-core/math/acc/mean@4": 1 - 0.5 * math.exp(entropy)}
        logger.log({**values, "actor/chosen/tokens": 40.0 + step, "training/global_step": step}, step)
        if step in (8, 12):
            whole = path.read_bytes()
            path.write_bytes(whole + b'{"step": 99, "data": {"actor/entr')  # as a reader may catch it
            shown = run("fit", str(path), "--json")
            path.write_bytes(whole)
            assert shown.code == 0, shown.err
            (fit,) = json.loads(shown.out)
            assert (fit["framework"], fit["n"]) == ("verl", step)
            assert fit["ceiling"] == pytest.approx(0.5, rel=1e-9)
    logger.finish()
