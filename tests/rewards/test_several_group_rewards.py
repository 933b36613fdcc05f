"""Two rewards that look at groups in one run: each has its own columns, and one alone has the names it always had."""

from __future__ import annotations

import math
from typing import Any

import pyarrow.parquet as pq
import pytest
from trl_helpers import Recorded, make_trainer

from entropilot.methods.empo import EMPO
from entropilot.methods.majority import Majority
from entropilot.metrics import definitions
from entropilot.recording.probe import Probe
from entropilot.rewards.groups import GroupReward, named_group_rewards


def reward(rule: Any, modulo: int, name: str) -> GroupReward:
    return GroupReward(rule, judge="exact", extract=lambda text: str(len(text) % modulo), name=name)


def trained(out: Any, rewards: list[Any]) -> tuple[Any, dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    probe = Probe(folder=out, tokens_every=1, on_row=lambda step, row: rows.append(row))
    settings = {"max_steps": 1}
    trainer = make_trainer(out, recorded=Recorded(), reward=rewards, observer=probe, settings=settings)
    trainer.train()
    return trainer, rows[0]


@pytest.mark.parametrize("names", [("empo", "majority"), ("same", "same")])
def test_every_group_reward_is_recorded(tmp_path, names):
    """Lengths modulo 2 and modulo 5 make other clusters; alone, each would record what it records here."""
    first, second = reward(EMPO(), 2, names[0]), reward(Majority(), 5, names[1])
    trainer, row = trained(tmp_path / "both", [first, second])
    labels = [names[0], names[1] if names[0] != names[1] else "same_2"]
    assert list(named_group_rewards(trainer.reward_funcs)) == labels
    for label, modulo, rule in zip(labels, (2, 5), (EMPO(), Majority()), strict=True):
        _, alone = trained(tmp_path / label, [reward(rule, modulo, label)])
        expected = {name: value for name, value in alone.items() if name.startswith("semantic/")}
        prefix = f"semantic/{label}/"
        assert {k.replace(prefix, "semantic/"): v for k, v in row.items() if k.startswith(prefix)} == expected
        assert len(expected) >= 6
        logged = trainer.state.log_history[0]
        assert logged[f"{prefix}entropy"] == pytest.approx(expected["semantic/entropy"]), "the trackers too"
    assert row[f"semantic/{labels[0]}/entropy"] != row[f"semantic/{labels[1]}/entropy"]
    table = pq.read_table(next((tmp_path / "both" / "tokens").iterdir())).to_pydict()
    assert table[f"answer/{labels[0]}"] != table[f"answer/{labels[1]}"]


def test_the_header_defines_the_columns():
    one, none = definitions(["empo"]), definitions()
    assert one == none and "semantic/entropy" in one
    both = definitions(["empo", "majority"])
    assert "semantic/entropy" not in both
    assert both["semantic/empo/entropy"]["definition"].startswith(
        "of the reward empo: mean over the rollout's groups"
    )
    assert both["semantic/majority/entropy"]["unit"] == "nats"
    assert both.keys() - none.keys() == {
        name.replace("semantic/", f"semantic/{reward}/")
        for name in none
        if name.startswith("semantic/")
        for reward in ("empo", "majority")
    }


def test_the_stop_rule_looks_at_the_first_of_them():
    probe = Probe(stop="warn")
    row = {"semantic/a/entropy": 0.2, "semantic/a/majority_share": 0.8, "entropy/policy_T1": 0.5}
    row["semantic/a/flip_rate"] = 0.3
    other = {"semantic/b/entropy": 0.9, "semantic/b/majority_share": 0.1, "semantic/b/flip_rate": 0.9}
    probe._stop(1, row | other)
    again = Probe()
    again.take_up([{"step": 1} | row], 1)
    assert probe.meanings == again.meanings == [(1, 0.2, 0.5, 0.8, 0.3)]
    del row["semantic/a/flip_rate"]  # the first visits
    probe._stop(5, row)
    assert math.isnan(probe.meanings[-1][-1])
