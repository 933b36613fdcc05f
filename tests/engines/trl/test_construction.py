"""What the trainer takes, says and refuses when it is made, before anything is generated."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer
from trl_helpers import make_config, make_trainer

from entropilot.engines.trl.checks import describe_clip, settle_clip
from entropilot.engines.trl.trainer import EntropyGRPOTrainer
from entropilot.errors import UserError
from entropilot.methods import ClipCov, KLCov


def test_a_method_by_its_name_is_the_papers(tmp_path):
    assert make_trainer(tmp_path, method="kl_cov").method == KLCov()
    assert make_trainer(tmp_path, method="clip_cov").method == ClipCov()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "klcov"}, r"'klcov' does not exist; choose none, clip_cov, kl_cov"),
        ({"method": KLCov}, r"method=KLCov is a class; write method=KLCov\(\)"),
        ({"method": 0.2}, r"method=0.2 is no token method .*give KLCov\(\), ClipCov\(\), or None"),
        (
            {"advantage_estimator": "rlo"},
            r"advantage_estimator='rlo' does not exist; choose one of grpo, rloo, reinforce\+\+, reinf",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, settings, message):
    monkeypatch.setattr(GRPOTrainer, "__init__", lambda *_, **__: pytest.fail("TRL was asked first"))
    with pytest.raises(UserError, match=message):
        EntropyGRPOTrainer(model="nowhere/nothing", args=make_config(tmp_path), **settings)


# --- the clip: whose it is, and TRL's delta ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ({}, "method"),
        ({"epsilon": float("0.2")}, "user"),  # equal to TRL's default, but written
        ({"epsilon_high": 0.2}, "user"),
        ({"epsilon": 0.3}, "user"),
    ],
)
def test_an_epsilon_that_was_written_stays(tmp_path, settings, source):
    method, clip = settle_clip(KLCov(), make_config(tmp_path, **settings))
    assert clip["source"] == source
    assert method.clip_low == (None if source == "method" else settings.get("epsilon", 0.2))


def test_trls_default_is_what_we_take_it_for():
    assert GRPOConfig.epsilon == 0.2 and GRPOConfig.delta is None


def test_a_plain_namespace_is_judged_by_its_value():
    """`doctor` may ask with anything that has the attributes."""
    args = SimpleNamespace(loss_type="dapo", epsilon=0.2, epsilon_high=None)
    assert settle_clip(KLCov(), args)[1]["source"] == "method"


@pytest.mark.parametrize(
    ("method", "settings", "refused"),
    [
        (
            KLCov(),
            {"delta": 2.0},
            r"delta = 2 .*KLCov sets no PPO clip above.*epsilon_high below 1\), or remove",
        ),
        (ClipCov(), {"delta": 1.5}, r"delta = 1\.5 .*ClipCov sets a PPO clip of 1 above"),
        (ClipCov(), {"delta": 2.0}, r"delta = 2 bounds the ratio"),
        (ClipCov(), {"delta": 2.5}, None),
        (ClipCov(clip_high=0.28), {"delta": 1.5}, None),
        (KLCov(), {"delta": 2.0, "epsilon_high": 0.28}, None),
        (KLCov(), {"delta": 2.0, "loss_type": "cispo"}, None),  # TRL has no delta there
        (None, {"delta": 2.0}, None),
    ],
)
def test_a_delta_that_the_methods_clip_would_silence_is_refused(tmp_path, method, settings, refused):
    if refused is None:
        make_trainer(tmp_path, method=method, settings=settings)
        return
    with pytest.raises(UserError, match=refused):
        make_trainer(tmp_path, method=method, settings=settings)


@pytest.mark.parametrize("high", [0.28, 0.9])
def test_delta_bounds_what_it_bounds_in_trl(tmp_path, monkeypatch, high):
    """Ratio 20, A = −1, delta 2: loss 2 and gradient 0, with a method as without."""
    losses = []
    for cls, extra in ((GRPOTrainer, {}), (EntropyGRPOTrainer, {"method": KLCov(coef=0.0)})):
        settings = {"delta": 2.0, "epsilon": 0.2, "epsilon_high": high, "loss_type": "dr_grpo"}
        trainer = make_trainer(tmp_path, cls=cls, settings=settings, **extra)
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        logp = torch.full((1, 8), math.log(20.0)).requires_grad_()
        wrapper = lambda *_, logp=logp, **__: (logp, torch.ones(1, 8), None)  # noqa: E731
        monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", wrapper)
        ones = torch.ones(1, 8, dtype=torch.long)
        inputs: dict[str, Any] = dict.fromkeys(("prompt_ids", "prompt_mask", "completion_ids"), ones)
        inputs |= {"completion_mask": ones, "advantages": torch.tensor([-1.0])}
        inputs |= {"old_per_token_logps": torch.zeros(1, 8), "num_items_in_batch": torch.tensor(8.0)}
        inputs |= {"entropilot_selected": ones.bool(), "entropilot_eligible": torch.ones(1).bool()}
        loss = trainer.compute_loss(trainer.model, inputs)
        (gradient,) = torch.autograd.grad(loss, logp)
        losses.append((loss.item(), gradient.abs().sum().item()))
    assert losses[0] == losses[1] == (pytest.approx(2.0), 0.0)


@pytest.mark.parametrize(
    ("method", "settings", "line", "level"),
    [
        (
            KLCov(),
            {},
            "PPO clip: none (set by KLCov; write epsilon to keep a clip of your own).",
            logging.WARNING,
        ),
        (
            ClipCov(clip_low=0.2, clip_high=0.28),
            {},
            "PPO clip: ratio at least 0.8 where A < 0, ratio at most 1.28 where A > 0 (set by ClipCov; write epsilon "
            "to keep a clip of your own).",
            logging.WARNING,
        ),
        (
            KLCov(),
            {"epsilon": 0.3},
            "PPO clip: ratio at least 0.7 where A < 0, ratio at most 1.3 where A > 0 (set by epsilon and epsilon_high).",
            logging.INFO,
        ),
        (KLCov(), {"loss_type": "sapo"}, "PPO clip: none (loss_type sapo has no PPO clip).", logging.INFO),
        (
            None,
            {},
            "PPO clip: ratio at least 0.8 where A < 0, ratio at most 1.2 where A > 0 (TRL's default).",
            logging.INFO,
        ),
    ],
)
def test_the_clip_is_said_in_one_line_at_start(tmp_path, caplog, method, settings, line, level):
    with caplog.at_level(logging.INFO, logger="entropilot"):
        trainer = make_trainer(tmp_path, method=method, settings=settings)
    said = [record for record in caplog.records if record.message.startswith("PPO clip")]
    assert [(record.levelno, record.message) for record in said] == [(level, line)]
    assert f"PPO clip: {describe_clip(trainer.method, trainer.clip)}." == line
