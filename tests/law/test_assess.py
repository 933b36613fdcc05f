"""One verdict per run: the command line, the table, the page, the forecast and the live law say the same."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from entropilot.cli.main import app
from entropilot.law.assess import assess, assess_run
from entropilot.law.diagnosis import diagnose
from entropilot.law.law import fit_law
from entropilot.records import RunWriter, read_run
from entropilot.reports.table import format_table, summarise

ACCURACY, REWARD = "validation/accuracy", "reward/mean"


def kinds() -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Runs of every kind: the metric of R, H and R at 60 steps."""
    rng = np.random.default_rng(5)
    t = np.arange(60.0)
    h = 0.1 + 1.1 * np.exp(-t / 12)
    flat_h = 0.3 + 0.01 * rng.random(60)
    noise = 0.01 * rng.standard_normal(60)
    wander = 0.05 * np.cumsum(rng.standard_normal(60)) / 4
    law = 0.9 - 0.2 * np.exp(h)
    return {
        "lawful": (ACCURACY, h, law + noise),
        "of the training reward": (REWARD, h, law + noise),
        "wrong sign": (ACCURACY, h, 0.2 + 0.1 * np.exp(h) + noise),
        "drifting": (ACCURACY, h, law + 0.2 * t / 60 + noise),
        "narrow entropy": (ACCURACY, flat_h, 0.5 + noise),
        "constant": (ACCURACY, h, np.full(60, 0.5)),
        "impossible ceiling": (ACCURACY, h, 1.4 - 0.3 * np.exp(h) + 0.1 * noise),
        "no relation": (ACCURACY, h, 0.5 + 5 * noise),
        "few points": (ACCURACY, h[:6], (law + noise)[:6]),
        "rising entropy": (ACCURACY, h[::-1].copy(), 0.8 - 0.2 * np.exp(h[::-1]) + noise),
        "wandering": (ACCURACY, h, law + wander),
        "sigmoid": (ACCURACY, h, 0.3 + 0.4 / (1 + np.exp(-(t - 35) / 4)) + noise),
    }


def write(folder: Path, metric: str, h: np.ndarray, r: np.ndarray, uneven: bool = False) -> Path:
    writer = RunWriter(folder, {"name": "run"})
    for i, (entropy, performance) in enumerate(zip(h, r, strict=True)):
        step = 1 + (i * i if uneven else i)
        writer.row(step, {"entropy/policy_T1": float(entropy), metric: float(performance)})
    writer.end("finished")
    writer.close()
    return folder


@pytest.mark.parametrize(
    ("kind", "uneven"),
    [*((kind, False) for kind in kinds()), *((kind, True) for kind in ("drifting", "sigmoid", "few points"))],
)
def test_every_command_says_the_same_of_a_run(kind: str, uneven: bool, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    metric, h, r = kinds()[kind]
    folder = write(tmp_path / "run", metric, h, r, uneven)
    runner = CliRunner()
    fitted = runner.invoke(app, ["fit", str(folder), "--json"])
    verdict = json.loads(fitted.stdout)[0]["verdict"]
    run = read_run(folder)
    assert assess_run(run).assessment.verdict == verdict
    assert summarise(run)["verdict"] == verdict
    assert format_table([run]).splitlines()[-1] == f"run: {verdict}"
    page = tmp_path / "page.html"
    assert runner.invoke(app, ["report", str(folder), "--out", str(page)]).exit_code == 0
    said = html.unescape(page.read_text())
    # In the page the verdict is a sentence of its own, or follows the ceiling.
    assert verdict in said or verdict[0].upper() + verdict[1:] in said
    if len(h) >= 8:
        ahead = runner.invoke(
            app, ["forecast", str(folder), "--prefix", "1", "--last-step", "9000", "--json"]
        )
        assert json.loads(ahead.stdout)["verdict"] == verdict


def test_the_kinds_differ() -> None:
    grades = {}
    for kind, (metric, h, r) in kinds().items():
        grades[kind] = assess(fit_law(h, r), performance_name=metric).grade
    assert grades == {
        "lawful": "good",
        "of the training reward": "good",
        "wrong sign": "fails",
        "drifting": "rough",
        "narrow entropy": grades["narrow entropy"],
        "constant": "none",
        "impossible ceiling": "impossible",
        "no relation": grades["no relation"],
        "few points": "untrusted",
        "rising entropy": "good",
        "wandering": grades["wandering"],
        "sigmoid": grades["sigmoid"],
    }
    assert {grades["narrow entropy"], grades["no relation"]} <= {"untrusted", "fails"}
    assert {grades["wandering"], grades["sigmoid"]} <= {"untrusted", "rough"}


def test_the_real_steps_are_used(synthetic) -> None:
    # R drifts by 0.2 per 100 steps at equal entropy. Half of the points lie in the first tenth of the steps, so what
    # looks like a straight drift over the steps is a bent one over the number of the point.
    steps = np.concatenate([np.arange(60), 60 + 10 * np.arange(60)]).astype(float)
    h = synthetic.course(120)
    r = 0.9 - 0.2 * np.exp(h) + 0.3 * steps / steps[-1] + 0.01 * np.random.default_rng(0).standard_normal(120)
    fit = fit_law(h, r, steps=steps)
    own, even = (dict(diagnose(each))["trend"] for each in (fit, fit_law(h, r)))
    drift = [float(re.search(r"rose by ([\d.]+)", words)[1]) for words in (own, even)]
    assert abs(drift[0] - 0.3) < 0.02 < abs(drift[1] - 0.3)
    assert assess(fit) == assess(fit_law(h, r), steps)


def test_steps_follow_the_points_that_are_used() -> None:
    h, r = [0.1, math.nan, 0.3, 0.4, 0.6], [0.5, 0.4, 0.3, 0.1, 0.0]
    fit = fit_law(h, r, [1, 1, 0, 1, 1], steps=[1, 2, 5, 9, 12])
    assert fit.line.steps.tolist() == [1, 9, 12]


def test_a_ceiling_that_entropy_cannot_tell_is_not_trusted() -> None:
    rng = np.random.default_rng(0)
    h = rng.uniform(0.30, 0.32, 60)
    result = assess(fit_law(h, 0.8 - 0.2 * np.exp(h) + 0.02 * rng.standard_normal(60)))
    assert result.grade in ("untrusted", "fails") and not result.trusted
