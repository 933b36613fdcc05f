"""Which groups are eligible: those whose advantages are not all 0, whatever their rewards add up to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trl_helpers import Recorded, Spied, make_trainer, score

from entropilot.engines.trl.trainer import ELIGIBLE
from entropilot.methods import KLCov


def everything(**settings: Any) -> KLCov:
    return KLCov(fraction=1.0, allow_large_fraction=True, **settings)


def opposed(score: list[float], **_: Any) -> list[float]:
    """Add up to 1 with the recorded score, so that the sum tells no completion from another."""
    return [1.0 - value for value in score]


def trained(out: Any, **kwargs: Any) -> tuple[list[float], list[bool]]:
    trainer = make_trainer(out, cls=Spied, recorded=Recorded(), method=everything(), **kwargs)
    trainer.train()
    advantages = torch.cat([seen["advantages"] for seen in trainer.passes]).tolist()
    return advantages, torch.cat([seen[ELIGIBLE] for seen in trainer.passes]).tolist()


def test_rewards_that_add_up_to_the_same_are_eligible_where_each_is_normalised(tmp_path):
    """normalize_then_sum with weights 1 and 0.5: the sum of rewards differs by half, the advantages by ±0.5 of one."""
    settings = {"multi_objective_aggregation": "normalize_then_sum", "reward_weights": [1.0, 0.5]}
    advantages, eligible = trained(tmp_path, reward=[score, opposed], settings=settings)
    assert any(eligible) and max(map(abs, advantages)) > 0.1
    # Groups without a difference in either reward stay out: Recorded's last group.
    assert eligible.count(False) >= 4
    for value, allowed in zip(advantages, eligible, strict=True):
        assert allowed or abs(value) < 1e-6  # rounding


def test_opposed_rewards_of_equal_sum(tmp_path):
    """A third reward breaks the tie of the normalised sum while the raw sum is 1 for everybody: ±A, and all eligible."""

    def first(score: list[float], **_: Any) -> list[float]:
        return [float(value > 0.4) for value in score]

    def second(score: list[float], **_: Any) -> list[float]:
        return [float(value > 0.9) for value in score]

    def third(score: list[float], **_: Any) -> list[float]:
        return [2.0 - (value > 0.4) - (value > 0.9) for value in score]

    settings = {"multi_objective_aggregation": "normalize_then_sum"}
    advantages, eligible = trained(tmp_path, reward=[first, second, third], settings=settings)
    driven = [allowed for value, allowed in zip(advantages, eligible, strict=True) if abs(value) > 1e-2]
    assert driven and all(driven), "rewards add up to 2 everywhere, but their normalised sum trains"


@pytest.mark.parametrize("estimator", ["grpo", "reinforce++"])
def test_a_group_of_equal_rewards(tmp_path, estimator):
    """Recorded's last group has 0.5 throughout: no advantage within the group, one against the batch."""
    advantages, eligible = trained(tmp_path, advantage_estimator=estimator)
    barred = sum(not allowed for allowed in eligible)
    zero = sum(value == 0 for value in advantages)
    if estimator == "reinforce++":
        assert (barred, zero) == (0, 0), "every completion has an advantage, so every one may be chosen"
    else:
        assert barred >= 4
