"""The trainer: what it leaves alone to the bit, what it sets, what it refuses, and its advantages."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from trl import GRPOTrainer
from trl_helpers import (
    Gradients,
    Recorded,
    Spied,
    distance,
    letters,
    make_trainer,
    parameters,
    problems,
    score,
    tiny_model,
)

from entropilot.engines.trl.checks import refuse_early_update_scope, refuse_on_policy
from entropilot.engines.trl.trainer import EntropyGRPOTrainer
from entropilot.errors import UserError
from entropilot.methods import ClipCov, KLCov
from entropilot.recording.probe import Probe, Validation

# 10 updates over two rollouts of 4 passes × 2 iterations, with AdamW; the completions are sampled.
SEVERAL = {"num_iterations": 2, "max_steps": 10}


def history(trainer: Any) -> list[tuple[float, ...]]:
    """Return what TRL itself logged of every step, exactly."""
    names = ("loss", "grad_norm", "entropy")
    return [tuple(row[name] for name in names) for row in trainer.state.log_history if "loss" in row]


def run(out: Path, cls: type = EntropyGRPOTrainer, validate: int | None = None, **kwargs: Any) -> Any:
    """Train; with `validate`, watched by a probe that measures every so many rollouts (0 is never)."""
    if validate is not None:
        probe = Probe()
        if validate:
            rows = [{"prompt": "1+2="}, {"prompt": "30+4="}]
            probe.validation = Validation(
                rows, letters, every=validate, samples=2, max_new_tokens=5, temperature=1.0
            )
        kwargs |= {"observer": probe, "callbacks": [probe]}
    trainer = make_trainer(out, cls=cls, **({"settings": SEVERAL} | kwargs))
    trainer.train()
    return trainer


# --- to the bit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "validates"),
    [
        (SEVERAL, (None, 1)),
        (SEVERAL | {"temperature": 0.7}, (0,)),
        (SEVERAL | {"eval_strategy": "steps", "eval_steps": 4, "per_device_eval_batch_size": 4}, (1,)),
        ({"gradient_accumulation_steps": 4, "max_steps": 5}, (None, 1)),
    ],
    ids=["off-policy", "T = 0.7", "evaluated", "on-policy"],
)
def test_without_a_method_it_is_grpo_to_the_bit(tmp_path, settings, validates):
    """No method: with or without an observer, validating or not, losses and weights are TRL's own."""
    plain = run(tmp_path, GRPOTrainer, settings=settings, eval_dataset=problems(2))
    expected = parameters(plain)
    assert distance(parameters(SimpleNamespace(model=tiny_model())), expected) > 1e-3, "nothing was learned"
    for validate in validates:
        ours = run(tmp_path, validate=validate, settings=settings, eval_dataset=problems(2))
        assert history(ours) == history(plain)
        assert torch.equal(parameters(ours), expected), f"validate={validate} changed the training"


def test_validation_does_not_change_a_training_with_a_method(tmp_path):
    weights = [
        parameters(run(tmp_path, validate=every, method=KLCov(fraction=0.04))) for every in (0, 1, 3, None)
    ]
    assert all(torch.equal(weights[0], other) for other in weights[1:])


def test_kl_cov_with_coef_zero_is_the_control_without_a_clip(tmp_path):
    """Bit-equal to GRPOTrainer whose clip is out of reach; with the published β it is not."""
    control = run(tmp_path, GRPOTrainer, settings=SEVERAL | {"epsilon": 1e9})
    ours = run(tmp_path, method=KLCov(coef=0.0))
    assert ours.clip == {"low": math.inf, "high": math.inf, "source": "method"}
    assert history(ours) == history(control)
    assert torch.equal(parameters(ours), parameters(control))
    clipped = run(tmp_path, GRPOTrainer)
    assert not torch.equal(parameters(clipped), parameters(control)), "the clip is at work in this training"
    steered = run(tmp_path, method=KLCov(fraction=0.04))
    assert not torch.equal(parameters(steered), parameters(control)), "so is the penalty"


def test_the_first_update_of_every_rollout_has_no_penalty(tmp_path):
    """Whatever β is, up to the first update of a rollout the gradient is the control's, to the bit."""
    updates = []
    for coef in (0.0, 1000.0):
        gradients = Gradients()
        settings = {"steps_per_generation": 1, "num_iterations": 2, "per_device_train_batch_size": 16}
        trainer = make_trainer(
            tmp_path,
            recorded=Recorded(),
            callbacks=[gradients],
            method=KLCov(fraction=0.04, coef=coef),
            settings=settings | {"max_steps": 2},
        )
        trainer.train()
        updates.append(gradients.updates)
    assert torch.equal(updates[0][0], updates[1][0])
    assert distance(updates[1][1], updates[0][1]) > 0.1, "in the second update it acts"


# --- what is set and refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "args", "low", "high", "source"),
    [
        (KLCov(), {}, math.inf, math.inf, "method"),
        (ClipCov(), {}, 1.0, 1.0, "method"),
        (ClipCov(clip_high=0.28), {}, 1.0, 0.28, "method"),
        (KLCov(), {"epsilon": 0.1}, 0.1, 0.1, "user"),
        (KLCov(), {"epsilon_high": 0.28}, 0.2, 0.28, "user"),
        (None, {}, 0.2, 0.2, "TRL default"),
        (None, {"epsilon": 0.1, "epsilon_high": 0.3}, 0.1, 0.3, "user"),
        *[(ClipCov(), {"loss_type": name}, 1.0, 1.0, "method") for name in ("bnpo", "dr_grpo", "luspo")],
        *[
            (KLCov(), {"loss_type": name}, None, None, f"loss_type {name} has no PPO clip")
            for name in ("cispo", "sapo", "vespo")
        ],
    ],
)
def test_whose_clip_is_in_force(tmp_path, method, args, low, high, source):
    trainer = make_trainer(tmp_path, method=method, settings=args)
    assert trainer.clip == {"low": low, "high": high, "source": source}
    untouched = (args.get("epsilon", 0.2), args.get("epsilon_high", args.get("epsilon", 0.2)))
    assert (trainer.epsilon_low, trainer.epsilon_high) == (untouched if low is None else (low, high))
    assert (trainer.args.epsilon, trainer.args.epsilon_high) == (
        args.get("epsilon", 0.2),
        args.get("epsilon_high"),
    )
    if source == "user" and method is not None:
        assert (trainer.method.clip_low, trainer.method.clip_high) == (low, high), "it also bars tokens"
    else:
        assert trainer.method is method


def settings_of(accumulation: int, passes: int, iterations: int) -> Any:
    names = ("gradient_accumulation_steps", "steps_per_generation", "num_iterations")
    return SimpleNamespace(**dict(zip(names, (accumulation, passes, iterations), strict=True)))


@pytest.mark.parametrize("shape", [(8, 8, 1), (4, 2, 2), (8, 4, 1)])
def test_kl_cov_on_policy_is_refused(shape):
    with pytest.raises(
        UserError, match="KL-Cov needs stale log-probs: with steps_per_generation = "
    ) as refusal:
        refuse_on_policy(KLCov(), settings_of(*shape))
    assert f"set steps_per_generation to {2 * shape[0]} or more, or num_iterations to 2" in str(refusal.value)


@pytest.mark.parametrize("shape", [(4, 8, 1), (8, 8, 2), (2, 3, 1)])
def test_kl_cov_off_policy_is_not_refused(shape):
    refuse_on_policy(KLCov(), settings_of(*shape))


def test_kl_cov_on_policy_is_refused_by_the_trainer(tmp_path):
    """The words of the house: what was set, why it cannot work, what to set."""
    settings = {"gradient_accumulation_steps": 4, "steps_per_generation": 4}
    with pytest.raises(UserError) as refusal:
        make_trainer(tmp_path, method=KLCov(), settings=settings)
    assert str(refusal.value) == (
        "KL-Cov needs stale log-probs: with steps_per_generation = 4, num_iterations = 1 and "
        "gradient_accumulation_steps = 4 there is one update per rollout, so the log-ratio is always 0; "
        "set steps_per_generation to 8 or more, or num_iterations to 2."
    )


def test_clip_cov_works_on_policy(tmp_path):
    """It acts on the gradient of the one update; the plain trainer steps elsewhere."""
    settings = {"gradient_accumulation_steps": 4, "max_steps": 2}
    method = ClipCov(fraction=0.04, cov_low=0.05)
    ours = run(tmp_path, method=method, recorded=Recorded(), settings=settings)
    control = run(tmp_path, recorded=Recorded(), settings=settings)
    assert ours.state.log_history[0]["chosen/tokens"] >= 1
    assert not torch.equal(parameters(ours), parameters(control))


@pytest.mark.parametrize(
    ("shape", "refused"),
    [
        ((4, 4, 1), False),
        ((2, 4, 1), False),
        ((2, 3, 2), False),  # passes 0 1 | 2 0 | 1 2 of one rollout
        ((4, 2, 1), True),
        ((2, 3, 1), True),  # the second update holds pass 2 and pass 0 of the next rollout
        ((3, 4, 2), True),
    ],
)
def test_an_update_that_reaches_into_the_next_rollout(shape, refused):
    for scope in ("rollout", "microbatch"):
        refuse_early_update_scope(KLCov(scope=scope), settings_of(*shape))
    if not refused:
        return refuse_early_update_scope(KLCov(scope="update"), settings_of(*shape))
    with pytest.raises(
        UserError, match=f"use scope=rollout, or set steps_per_generation to a multiple of {shape[0]}"
    ):
        refuse_early_update_scope(KLCov(scope="update"), settings_of(*shape))


@pytest.mark.parametrize("method", [None, KLCov(fraction=0.04)])
def test_rewards_of_the_same_name_train(tmp_path, method):
    """As in TRL, which logs a mixture of the two columns but trains on both; here letters and 1 − letters/2."""

    def opposed(completions: list[str], **_: Any) -> list[float]:
        return [1 - value / 2 for value in letters(completions)]

    opposed.__name__ = "letters"
    ours, plain = (
        run(tmp_path, cls, reward=[letters, opposed], **extra)
        for cls, extra in ((EntropyGRPOTrainer, {"method": method}), (GRPOTrainer, {}))
    )
    assert torch.equal(ours._rewards[:, 1], 1 - ours._rewards[:, 0] / 2), "both columns are known"
    assert ours._rewards[:, 0].unique().numel() > 1
    if method is None:
        assert torch.equal(parameters(ours), parameters(plain))


def test_an_estimator_needs_one_reward(tmp_path):
    settings = {"multi_objective_aggregation": "normalize_then_sum"}
    with pytest.raises(UserError, match="set multi_objective_aggregation to sum_then_normalize"):
        make_trainer(tmp_path, advantage_estimator="rloo", settings=settings)


# --- estimators through the trainer -----------------------------------------------------------------------------


class Holes(Recorded):
    """One completion of every rollout is not scored."""

    def rows(self, call: int, count: int) -> tuple[list[list[int]], list[Any]]:
        ids, scores = super().rows(call, count)
        return ids, [None, *scores[1:]]


def numpy_advantages(rewards: np.ndarray, estimator: str) -> np.ndarray:
    groups = rewards.reshape(-1, 4)
    centred = groups - np.nanmean(groups, 1, keepdims=True)
    if estimator == "grpo":
        found = centred / (np.nanstd(groups, 1, ddof=1, keepdims=True) + 1e-4)
    elif estimator == "rloo":
        others = [
            [np.nanmean(np.delete(group, k)) if not np.isnan(group[k]) else np.nan for k in range(4)]
            for group in groups
        ]
        found = groups - np.array(others)
    elif estimator == "reinforce++":
        found = (groups - np.nanmean(rewards)) / (np.nanstd(rewards, ddof=1) + 1e-4)
    else:
        found = centred / (np.nanstd(centred, ddof=1) + 1e-4)
    return np.nan_to_num(found.flatten())


@pytest.mark.parametrize("method", [None, KLCov()])
@pytest.mark.parametrize("estimator", ["grpo", "rloo", "reinforce++", "reinforce++_baseline"])
def test_estimators_through_the_trainer(tmp_path, estimator, method):
    """Two rewards, one weighted by a half, one completion that only the second scored; the last group is flat."""

    def second(completions: list[str], **_: Any) -> list[float]:
        return [float(len(text) % 2) for text in completions]

    recorded = Holes()
    trainer = make_trainer(
        tmp_path,
        cls=Spied,
        recorded=recorded,
        reward=[score, second],
        method=method,
        advantage_estimator=estimator,
        settings={"reward_weights": [1.0, 0.5]},
    )
    trainer.train()
    ids, scores = Holes().rows(0, 16)
    decode = trainer.processing_class.decode
    lengths = [len(decode(row, skip_special_tokens=True)) % 2 for row in ids]
    rewards = np.array([0.0 if a is None else a for a in scores]) + 0.5 * np.array(lengths)
    expected = dict(zip(map(tuple, ids), numpy_advantages(rewards, estimator), strict=True))
    found = {}
    for seen in trainer.passes:
        rows = zip(seen["completion_ids"], seen["completion_mask"].bool(), seen["advantages"], strict=True)
        found |= {tuple(row[mask].tolist()): value.item() for row, mask, value in rows}
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("estimator", ["rloo", "reinforce++", "reinforce++_baseline"])
def test_a_completion_that_nothing_scored_has_no_advantage(tmp_path, estimator):
    trainer = make_trainer(tmp_path, cls=Spied, recorded=Holes(), advantage_estimator=estimator)
    trainer.train()
    _, scores = Holes().rows(0, 16)
    expected = numpy_advantages(np.array([np.nan if a is None else a for a in scores]), estimator)
    assert list(trainer._logs["advantages"]) == pytest.approx(expected, rel=1e-4, abs=1e-5), (
        "TRL's table of completions must show the advantages that were used"
    )
    found = sorted(torch.cat([seen["advantages"] for seen in trainer.passes]).tolist())
    assert found == pytest.approx(sorted(expected), rel=1e-4, abs=1e-5)
    assert expected[0] == 0.0
