"""Advantage methods and controllers in TRL's trainer: whose advantages train, what is kept, recorded and refused."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from trl import GRPOTrainer
from trl_helpers import Gradients, Recorded, Spied, chosen_of, distance, make_trainer, parameters

from entropilot.engines.trl.acting import MEMORY
from entropilot.engines.trl.columns import ELIGIBLE
from entropilot.errors import UserError
from entropilot.methods import ClipCov, KLCov
from entropilot.methods.advantage_method import Estimate
from entropilot.methods.entrocraft import Entrocraft
from entropilot.methods.entropy_target import EntropyTarget
from entropilot.methods.qae import QAE
from entropilot.methods.repo import REPO
from entropilot.methods.stare import STARE
from entropilot.methods.w_reinforce import WReinforce
from entropilot.recording.probe import Probe


@dataclass(frozen=True)
class Plain:
    """The estimator's own advantages, of either shape."""

    per_token: ClassVar[bool] = True
    from_rewards: ClassVar[bool] = False
    tokens: bool = False

    def estimate(self, batch: Any) -> Estimate:
        if not self.tokens:
            return Estimate(batch.advantages)
        return Estimate(batch.advantages.unsqueeze(1).expand(batch.mask.shape).clone())


def trained(out: Path, cls: type = Spied, **kwargs: Any) -> Any:
    trainer = make_trainer(out, cls=cls, recorded=Recorded(), **kwargs)
    trainer.train()
    return trainer


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_a_rule_that_changes_nothing_trains_as_trl_does(tmp_path, tokens, loss_type):
    """Bit for bit, also where the same advantages come per token."""
    settings = {"loss_type": loss_type}
    ours = trained(tmp_path, method=Plain(tokens=tokens), settings=settings)
    assert ours.passes[0]["advantages"].ndim == 1 + tokens
    trl = trained(tmp_path, cls=GRPOTrainer, settings=settings)
    none = trained(tmp_path, method=None, settings=settings)
    assert torch.equal(parameters(none), parameters(trl))
    assert torch.equal(parameters(ours), parameters(trl))


def test_the_rule_s_advantages_train_and_decide_who_is_eligible(tmp_path):
    """Recorded's last group has equal rewards (0.5): out under GRPO, but all of it is wrong to W-REINFORCE."""
    trainer = trained(
        tmp_path, method=[WReinforce(weight=0.25), KLCov(fraction=1.0, allow_large_fraction=True)]
    )
    advantages = torch.cat([seen["advantages"] for seen in trainer.passes])
    assert set(advantages.tolist()) == {0.25, -1.0}
    assert torch.cat([seen[ELIGIBLE] for seen in trainer.passes]).all()
    # The log of completions holds the rollout, in the sampler's order.
    rewards = list(Recorded().rows(0, 16)[1])
    assert list(trainer._logs["advantages"]) == [0.25 if value > 0.5 else -1.0 for value in rewards]


def test_qae_with_clip_cov_chooses_by_the_new_advantages(tmp_path):
    window = ClipCov(fraction=0.2, cov_low=0.01, cov_high=9.0, allow_large_fraction=True)
    both, alone = (trained(tmp_path / str(i), method=m) for i, m in enumerate(([QAE(), window], window)))
    assert len(chosen_of(both.passes)) >= 2
    assert chosen_of(both.passes) != chosen_of(alone.passes)
    expected = QAE().estimate(_batch(Recorded().rows(0, 16)[1])).advantages
    seen = torch.cat([seen["advantages"] for seen in both.passes])
    assert sorted(seen.tolist()) == pytest.approx(sorted(expected.tolist()))


def _batch(rewards: list[float]) -> Any:
    from entropilot.methods.advantage_method import RewardBatch

    zeros = torch.zeros(len(rewards), 1)
    return RewardBatch(
        torch.tensor(rewards), 4, torch.zeros(len(rewards)), zeros, torch.ones_like(zeros).bool(), zeros
    )


def test_stare_multiplies_the_gradient_of_the_chosen_tokens(tmp_path):
    """Half of A > 0 with W = 3 in one update: the gradient moves by twice the gradient of these tokens alone."""
    settings = {"steps_per_generation": 1, "per_device_train_batch_size": 16, "max_steps": 1}
    updates = {}
    for weight in (1.0, 3.0, 5.0):
        gradients = Gradients()
        method = STARE(fraction=0.5, weight_up=weight, target=None)
        trained(tmp_path / str(weight), method=method, settings=settings, callbacks=[gradients])
        (updates[weight],) = gradients.updates
    one, three, five = (updates[weight] for weight in (1.0, 3.0, 5.0))
    assert distance(three, one) > 0.05
    # Linear in the weight: 3 lies half way between 1 and 5.
    assert distance(2 * three, one + five) < 1e-6


@pytest.mark.parametrize(
    "method",
    [
        [EntropyTarget(target={0: "1.2×start", 8: "0.8×start"}), STARE(fraction=0.5)],
        [EntropyTarget(target="1.1×start"), KLCov(restrain=0.9)],
        REPO(zeta=0.1),
        STARE(adaptive=True, target=5.0),
        [Entrocraft(low=1.0, high=9.0), ClipCov(restrain=0.9)],
    ],
    ids=["target, stare", "target, kl_cov", "repo", "stare", "entrocraft, clip_cov"],
)
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path, method):
    """Two rollouts of four updates; from between them, and from the middle of the second."""
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 8, "learning_rate": 2e-3}
    whole = make_trainer(tmp_path / "whole", recorded=Recorded(), method=method, settings=settings)
    whole.crash_safe = True  # as `entropilot train` sets it: a checkpoint keeps the samples of its rollout
    whole.train()
    assert whole.state.stateful_callbacks[MEMORY]["after"], "nothing is remembered, so nothing is tested"
    for step in (4, 6):
        out, name = tmp_path / f"cut{step}", f"checkpoint-{step}"
        shutil.copytree(tmp_path / "whole" / name, out / name)
        recorded = Recorded()
        recorded.calls = 1
        resumed = make_trainer(out, cls=Spied, recorded=recorded, method=method, settings=settings)
        resumed.take_up(out / name)
        resumed.train(resume_from_checkpoint=str(out / name))
        assert resumed.state.stateful_callbacks[MEMORY] == whole.state.stateful_callbacks[MEMORY]
        assert torch.equal(parameters(resumed), parameters(whole)), f"resumed after update {step}"


def test_without_its_memory_a_resumed_run_would_differ(tmp_path):
    """The test above can fail: ζ begins anew without what the checkpoint holds."""
    settings = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    whole = trained(tmp_path, method=REPO(zeta=0.1), settings=settings)
    memory = whole.state.stateful_callbacks[MEMORY]["after"]["advantage"]
    assert memory["zeta"] != 0.1


def test_what_was_adapted_is_in_the_records(tmp_path):
    rows: list[dict[str, Any]] = []
    method = [EntropyTarget(target=0.5), Entrocraft()]
    trained(
        tmp_path,
        method=method,
        observer=Probe(on_row=lambda step, row: rows.append({"step": step} | row)),
        settings={"max_steps": 5},
    )
    firsts = [row for row in rows if "reward/mean" in row]
    assert [row["step"] for row in firsts] == [1, 5]
    for row in firsts:
        assert row["adapted/entropy_target"] == 0.5
        assert row["adapted/band_low"] == pytest.approx(0.475) and row["adapted/band_high"] == pytest.approx(
            0.525
        )
        assert row["adapted/sign"] == 1.0, "the tiny model is far above half a nat"
        assert row["adapted/left_out"] > 0
    assert firsts[0]["adapted/start"] == firsts[1]["adapted/start"] == firsts[0]["entropy/policy_T1"]
    assert all("adapted/sign" not in row for row in rows[1:4])


def test_without_an_observer_trl_s_log_has_them(tmp_path):
    trainer = trained(tmp_path, method=REPO(), settings={"max_steps": 2})
    assert trainer.state.log_history[0]["adapted/zeta"] == 0.01
    assert "adapted/clamped" in trainer.state.log_history[0]


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        (REPO(), {"importance_sampling_level": "sequence"}, "set importance_sampling_level to token."),
        (
            QAE(),
            {"multi_objective_aggregation": "normalize_then_sum"},
            "QAE needs one reward per completion; set multi_objective_aggregation to sum_then_normalize.",
        ),
    ],
)
def test_what_trl_leaves_no_room_for_is_refused(tmp_path, method, settings, said):
    with pytest.raises(UserError) as error:
        make_trainer(tmp_path, method=method, settings=settings)
    assert said in str(error.value)


def test_two_ways_from_rewards_to_advantages_are_refused(tmp_path):
    with pytest.raises(
        UserError, match="QAE and advantage_estimator='rloo' both turn rewards into advantages"
    ):
        make_trainer(tmp_path, method=QAE(), advantage_estimator="rloo")
    assert make_trainer(tmp_path, method=REPO(), advantage_estimator="rloo").stack.advantage == REPO()


def test_nothing_acts_in_evaluation(tmp_path):
    trainer = make_trainer(tmp_path, method=[EntropyTarget(), STARE()], settings={"max_steps": 1})
    trainer.train()
    before = dict(trainer.state.stateful_callbacks[MEMORY]["after"]["controller"])
    trainer.model.eval()
    prompts = [dict(row) for row in trainer.train_dataset.select([0] * 4)]
    output = trainer._generate_and_score_completions(prompts)
    assert output["advantages"].ndim == 1
    assert trainer.state.stateful_callbacks[MEMORY]["after"]["controller"] == before
