"""The studies of the law, its theory and entropy minimisation on the sandbox: what they measure, store and print."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from study_helpers import written

from entropilot.control.bench.tables import paired_table, success_table
from entropilot.errors import UserError
from entropilot.files import append_row
from experiments import control_rows, dynamics, estimators, one_shot


def test_what_is_measured_of_a_run_that_obeys_the_law(tmp_path: Path) -> None:
    """R = −0.5·exp(H) + 1.4 throughout: its a, b, ceiling, and its course."""
    entropies = [0.5 * math.exp(-step / 15) for step in range(60)]
    rows = [{"entropy/policy_T1": h, "validation/accuracy": 1.4 - 0.5 * math.exp(h)} for h in entropies]
    row = estimators.measure(written(tmp_path / "run", rows))
    found = [row[name] for name in ("a", "b", "ceiling", "R at H = 0.2", "R²", "forecast RMSE")]
    assert found == pytest.approx([0.5, 1.4, 0.9, 1.4 - 0.5 * math.exp(0.2), 1, 0], abs=1e-6)
    assert row["acc end"] == pytest.approx(sum(1.4 - 0.5 * math.exp(h) for h in entropies[-5:]) / 5)
    assert row["no change RMSE"] > 0.05
    step, entropy, accuracy = row["course"][-1]
    assert (step, entropy, accuracy) == (60, entropies[-1], rows[-1]["validation/accuracy"])


def test_estimators_are_compared_seed_by_seed() -> None:
    def run(seed: int, a: float) -> dict[str, Any]:
        return {"seed": seed} | dict.fromkeys(estimators.COLUMNS, 1.0) | {"a": a}

    found = {"grpo": [run(1, 0.5), run(2, 0.7)], "rloo": [run(1, 0.6), run(2, 0.8)]}
    means = {name: cells for name, *cells in estimators.over_seeds(found)}
    # t(0.975, 1) = 12.706; the standard deviation of 0.5 and 0.7 over √2 is 0.1
    assert means["a"] == ["0.600 ± 1.271", "0.700 ± 1.271"]
    assert {name: cells for name, *cells in estimators.against_grpo(found)}["a"] == ["0.100 ± 0.000"]


def test_the_covariance_beside_the_fall_of_entropy(tmp_path: Path) -> None:
    """Entropy falls by 0.5 times the covariance under one rule; under the other the sign is wrong."""
    rows, entropy = [], 0.5
    for step in range(20):
        covariance = 0.01 * (2 + 7 * step % 20 / 10)  # none twice
        after = entropy - 0.5 * covariance
        levels = [[0.5, 3, 0.1 * (1 + step), 0.2], [0.75, 1, 0.3, 0.4]]
        rows.append(
            {
                "dynamics/covariance_pg": covariance,
                "dynamics/covariance_npg": -covariance,
                "dynamics/entropy_before": entropy,
                "dynamics/entropy_after": after,
                "dynamics/by_accuracy": levels,
            }
        )
        entropy = after
    run = {"seed": 1} | dynamics.measure(written(tmp_path / "run", rows))
    table = dynamics.agreements({"adam": [run], "sgd": [run]})
    assert table[1] == ["adam", "Cov(log π, π·A)", "1.00", "1.00", "1.00", "100 %", "0.500"]
    assert table[2] == ["adam", "Cov(log π, A)", "-1.00", "-1.00", "-1.00", "0 %", "-0.500"]
    assert run["pg"]["entropy"] == [0.5, pytest.approx(entropy)]
    # Over twenty rollouts the mean of 0.1, 0.2 … 2.0.
    assert dynamics.difficulty({"adam": [run]})[1:] == [
        ["adam", "0.500", "60", "1.050", "0.200"],
        ["adam", "0.750", "20", "0.300", "0.400"],
    ]


@pytest.fixture
def without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of the one-shot study that are names, and whose accuracy is a number by name and seed."""
    names = [f"em {n}" for n in one_shot.CHECKPOINTS]
    names += ["em 10, 16 prompts", "em 10, random prompt", "grpo", "em 10, then grpo", "grpo, then em 10"]
    names += [*(f"T {t:g}" for t in one_shot.TEMPERATURES), "format only"]

    def train_all(out: Path, seed: int) -> dict[str, Path]:
        return {name: Path(f"{name}-{seed}") for name in names}

    def measured(model: Path | str, result: Path, **settings: Any) -> dict[str, Any]:
        accuracy = {"sandbox": 0.5, "grpo-1": 0.9, "grpo-2": 0.8, "em 10-1": 0.6, "em 10-2": 0.7}.get(
            str(model), 0.55
        )
        values = {
            "accuracy": accuracy,
            "pass": {"16": 1.0},
            "majority": 1.0,
            "semantic entropy": 1.0,
            "length": 9.0,
        }
        return {f"{t:g}": values for t in settings.get("temperatures", (0, 1))}

    def shift(out: Path, seed: int, models: dict[str, Path]) -> dict[str, dict[str, float]]:
        return {name: dict.fromkeys(one_shot.STATISTICS, float(seed)) for name in ("base", *one_shot.LOGITS)}

    monkeypatch.setattr(one_shot, "train_all", train_all)
    monkeypatch.setattr(one_shot, "measured", measured)
    monkeypatch.setattr(one_shot, "logit_shift", shift)


def test_rows_of_the_one_shot_study(
    without_training: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "rows.json"
    arguments = ["--out", str(tmp_path / "out"), "--seeds", "1", "2", "--store", str(store)]
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    one_shot.main()
    kept = json.loads(store.read_text())
    assert [row["seed"] for row in kept["models"]["em 10"]] == [1, 2]
    assert [row["avg@16"] for row in kept["models"]["em 10"]] == [0.6, 0.7]
    assert kept["temperatures"]["T 0.5"][0] == {"seed": 1, "0": 0.55, "0.25": 0.55, "0.5": 0.55, "1": 0.55}
    assert kept["logits"]["grpo"][1]["skewness"] == 2
    (base,) = kept["base"]["models"]
    differences = {name: cells for name, *cells in one_shot.paired(base, kept["models"])}
    # EM 10 less the base: 0.1 and 0.2; less GRPO: −0.3 and −0.1, whose half interval is 12.706 times 0.1.
    assert differences["em 10 − base"][1] == "+0.150 ± 0.635"
    assert differences["em 10 − grpo"][1] == "-0.200 ± 1.271"
    said = capsys.readouterr().out
    for rows in (one_shot.over_seeds(base, kept["models"]), one_shot.of_logits(kept["logits"])):
        assert all(cell in said for row in rows for cell in row)


def test_rows_of_a_bench_are_kept_by_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tables come out the same from the kept rows; texts, as of a machine's folders, are not kept."""
    bench, store = tmp_path / "control_core", tmp_path / "control.json"
    cell = {"task": "door-open", "kind": "hom", "label": "script", "behaviour": 0.4, "clone": 0.5}
    success = {"cpl": (0.5, 0.7), "ppl": (0.75, 0.75)}
    rows = [
        cell
        | {
            "seed": seed,
            "method": method,
            "success": values[seed],
            "curve": [[10, values[seed]]],
            "folder": "/x",
        }
        for method, values in success.items()
        for seed in (0, 1)
    ]
    for row in rows:
        append_row(bench / "results.jsonl", row)
    monkeypatch.setattr("sys.argv", ["study", str(bench), "--store", str(store)])
    control_rows.main()
    said = capsys.readouterr().out
    assert success_table(rows) in said and paired_table(rows) in said
    assert "+15 ± 127 (2)" in said  # differences of 25 and 5 points: 12.706 · 10
    kept = json.loads(store.read_text())["control_core"]["door-open, hom, script, ppl"]
    assert kept[1] == {"seed": 1, "success": 0.75, "clone": 0.5, "behaviour": 0.4, "curve": [[10, 0.75]]}
    monkeypatch.setattr("sys.argv", ["study", str(tmp_path / "nothing")])
    with pytest.raises(UserError, match="nothing holds no finished run of a bench"):
        control_rows.main()
