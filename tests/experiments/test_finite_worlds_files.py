"""Files of the finite worlds and of drawer: a row is taken for these seeds and settings only, and a torn line is none."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

from entropilot.control.learning import online as loops
from entropilot.files import read_rows
from experiments import drawer as drawers
from experiments.finite_worlds import conditions as studies
from experiments.finite_worlds import tables


@pytest.fixture
def asked(monkeypatch):
    """Count what is made; the numbers are the seeds."""
    found = []

    def run_condition(condition, seeds, tuning, learners=studies.LEARNERS):
        found.append((condition, tuple(seeds), learners))
        regret = {learner: [float(seed) for seed in seeds] for learner in learners}
        condition = studies.asdict(condition)
        return {"condition": condition, "seeds": seeds, "stop": {}, "regret": regret, "last": regret}

    monkeypatch.setattr(studies, "run_condition", run_condition)
    return found


def test_a_study_row_of_other_seeds_is_not_taken(asked, tmp_path, capsys):
    out = tmp_path / "study.jsonl"
    tables.study(3, "bias 2", out)
    tables.study(3, "bias 2", out)
    assert len(asked) == 1, "what the file holds is not made again"
    capsys.readouterr()
    tables.study(24, "bias 2", out)
    assert len(asked) == 2 and len(asked[1][1]) == 24
    assert "| 11.500 |" in capsys.readouterr().out, "the mean of seeds 0 to 23"
    tables.study(3, "bias 2", out)
    assert len(asked) == 2, "both are kept"


def test_a_study_row_of_other_settings_or_learners_is_not_taken(asked, monkeypatch, tmp_path):
    out = tmp_path / "study.jsonl"
    tables.study(2, "1600 segments", out)
    changed = {"1600 segments": studies.Condition(segments=1600, lam=0.5)}
    monkeypatch.setattr(studies, "conditions", lambda: changed)
    tables.study(2, "1600 segments", out)
    assert [condition.lam for condition, *_ in asked] == [1.0, 0.5]
    condition = changed["1600 segments"]
    row = tables.made(out, "1600 segments", condition, [0, 1], studies.WITH_EXPECTATION)
    assert list(row["regret"]) == list(studies.WITH_EXPECTATION) and len(asked) == 3


def test_a_torn_line_is_no_row(asked, tmp_path):
    out = tmp_path / "study.jsonl"
    tables.study(3, "bias 2", out)
    whole = out.read_text()
    out.write_text(whole + whole[: len(whole) // 2])
    tables.study(3, "bias 2", out)
    assert len(asked) == 1
    tables.study(3, "bias 0", out)  # no condition is called so
    tables.study(3, "unbiased", out)
    tables.study(3, "unbiased", out)
    assert len(asked) == 2, "the row after a torn line stands on a line of its own"
    assert [row["name"] for row in read_rows(out)] == ["bias 2", "unbiased authors"]
    json.loads(out.read_text().splitlines()[-1])


def test_a_drawer_run_of_other_settings_is_not_taken(monkeypatch, tmp_path):
    made = []

    def loop(task, settings, rounds):
        made.append((settings.method, settings.seed, settings.steps))
        row = {"queries": 1, "environment_steps": 1, "success": 0.5}
        return [row] * rounds

    monkeypatch.setattr(loops, "online_metaworld", loop)
    out = tmp_path / "drawer.jsonl"
    drawers.drawer(2, out, rounds=2)
    assert len(made) == 6
    out.write_text(out.read_text() + '{"task": "drawer-op')
    drawers.drawer(2, out, rounds=2)
    assert len(made) == 6
    drawers.drawer(1, out, rounds=3)
    assert len(made) == 9
    monkeypatch.setitem(drawers.LOOP, "steps", 7)
    drawers.drawer(1, out, rounds=2)
    assert len(made) == 12 and made[-1][2] == 7
