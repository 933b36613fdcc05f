"""The table of methods: a new one needs an entry and nothing else, and every column that a run records is defined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from entropilot.control.learning.phase import Phase
from entropilot.control.learning.registry import LEARNERS, Learner, settings_from
from entropilot.control.learning.run import run
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.segments.labels import compare, fixed_pairs
from entropilot.control.segments.policies import load_policy
from entropilot.errors import UserError
from entropilot.records import read_run
from entropilot.reports.facts import facts

QUICK = TrainSettings(
    hidden=(8,),
    bc_steps=4,
    steps=4,
    bc_batch=16,
    batch=4,
    evaluate_every=2,
    evaluate_episodes=0,
    final_episodes=0,
    bf16=False,
)


@pytest.fixture
def data(make_segments):
    segments = make_segments(20, 6)
    return segments, compare(np.arange(20.0), *fixed_pairs(20, 10, np.random.default_rng(0)))


@pytest.mark.parametrize("method", LEARNERS)
def test_every_column_has_a_unit_and_a_definition(data, tmp_path, method, monkeypatch):
    monkeypatch.setattr("entropilot.control.learning.run.success_rate", lambda *_: 0.25)
    settings = replace(QUICK, method=method, evaluate_episodes=2, final_episodes=3)
    run("drawer-open", *data, settings, tmp_path)
    record = read_run(tmp_path)
    metrics = record.header["metrics"]
    for column in {name for row in record.rows for name in row} - {"step"}:
        assert metrics[column].keys() == {"unit", "definition"}, column
        assert all(isinstance(text, str) and text for text in metrics[column].values()), column
    assert "minus" in metrics["loss"]["definition"] and metrics["success"]["unit"] == "share"
    assert record.rows[-1]["episodes"] == 3 and record.rows[0]["success"] == 0.25


def test_a_report_shows_what_the_columns_mean(data, tmp_path):
    run("drawer-open", *data, replace(QUICK, method="cpl"), tmp_path)
    text = facts(read_run(tmp_path), "a run")
    _, table = text.split("What the metrics mean")
    rows = table.split("</table>")[0].split("<tr>")[2:]
    assert len(rows) == 6 and not any("–" in row for row in rows)
    assert '<td class="wrap">share</td>' in rows[2] and "ranked_right" in rows[2]


def test_a_policy_that_is_still_the_clone_is_not_evaluated(data, tmp_path, monkeypatch):
    """P-IQL's reward model takes updates 5 to 8 of 12; success is measured at 2, 4, 10 and 12."""
    monkeypatch.setattr("entropilot.control.learning.run.success_rate", lambda *_: 0.25)
    settings = replace(QUICK, method="piql", evaluate_episodes=1, final_episodes=1, piql={"reward_steps": 4})
    run("drawer-open", *data, settings, tmp_path)
    rows = read_run(tmp_path).rows
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in rows if "success" in row] == [2, 4, 10, 12]


class PullTowards(Phase):
    """A method from outside: it pulls the mean action towards 1."""

    def loss(self):
        gap = 1 - self.actor(self.data.inputs)
        return gap.square().mean(), {}


def test_a_method_needs_an_entry_and_nothing_else(data, tmp_path, monkeypatch):
    monkeypatch.setitem(LEARNERS, "pull", Learner(PullTowards, measures="minus nothing"))
    settings = settings_from(
        {"method": "pull", "hidden": [8], "bc_steps": 0, "steps": 200, "learning_rate": 0.01, "batch": 4}
        | {"evaluate_every": 0, "final_episodes": 0}
    )
    policy = load_policy(run("drawer-open", *data, settings, tmp_path))
    assert policy.mean(data[0].states).mean() > 0.9
    with pytest.raises(UserError, match="method 'push' does not exist; choose one of bc, sft, .*piql, pull"):
        settings_from({"method": "push"})


def test_settings_made_by_hand_are_checked_before_anything_is_written(data, tmp_path):
    for settings, message in (
        (replace(QUICK, method="push"), "does not exist"),
        (replace(QUICK, method="ppl", lam=2.0), r"lam=2\.0 must lie in"),
    ):
        with pytest.raises(UserError, match=message):
            run("drawer-open", *data, settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()
