"""Where the trainer runs: adapters, a reference model, bf16, and what it says when a loss is not finite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import TrainerCallback
from trl_helpers import Recorded, make_trainer, parameters, tiny_model

from entropilot.engines.trl.trainer import NonFiniteLossError
from entropilot.methods import ClipCov, KLCov
from entropilot.recording.probe import Probe

LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "init_lora_weights": False}


@pytest.mark.parametrize("scope", ["rollout", "update"])
def test_lora_trains_and_the_base_stays(tmp_path, scope):
    def state(trainer: Any) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}

    probe = Probe()
    trainer = make_trainer(
        tmp_path,
        recorded=Recorded(),
        method=KLCov(fraction=0.04, scope=scope),
        peft_config=LoraConfig(**LORA),
        observer=probe,
        callbacks=[probe],
        settings={"temperature": 0.7, "max_steps": 4},
    )
    before, head = state(trainer), trainer.model.get_base_model().forward
    trainer.train()
    assert trainer.model.get_base_model().forward is head, (
        "at_temperature must put the base model's head back"
    )
    after = state(trainer)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "lora_" in name}
    penalties = [row["penalty"] for row in trainer.state.log_history if "penalty" in row]
    assert penalties[0] == 0.0 and max(penalties) > 0


def test_dropout_of_an_adapter_is_not_disturbed(tmp_path):
    """On-policy the probe adds a pass over the rollout; it must not consume the dropout's random numbers."""
    weights = []
    for watched in (False, True):
        probe = Probe()
        trainer = make_trainer(
            tmp_path,
            peft_config=LoraConfig(**LORA, lora_dropout=0.5),
            settings={"gradient_accumulation_steps": 4, "max_steps": 3},
            observer=probe if watched else None,
            callbacks=[probe] if watched else [],
        )
        trainer.train()
        weights.append(parameters(trainer))
    assert torch.equal(*weights)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_beside_a_reference_model(tmp_path, accumulation):
    """beta > 0: the reference has a head without entropies, and on-policy it is the first model that TRL scores with."""
    tiny_model().save_pretrained(tmp_path / "model")
    model = type(tiny_model()).from_pretrained(tmp_path / "model")
    probe = Probe()
    trainer = make_trainer(
        tmp_path,
        model=model,
        recorded=Recorded(),
        method=ClipCov(fraction=0.04, cov_low=0.05),
        observer=probe,
        callbacks=[probe],
        settings={"beta": 0.1, "gradient_accumulation_steps": accumulation, "max_steps": 2},
    )
    trainer.train()
    rows = trainer.state.log_history
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-6) and rows[1]["kl"] > 1e-4
    assert rows[0]["chosen/tokens"] >= 1


@pytest.mark.parametrize(
    "method", [KLCov(fraction=0.04), ClipCov(fraction=0.04, cov_low=0.05, scope="update")]
)
def test_bf16_autocast(tmp_path, method):
    """Under autocast on a CPU; sums and covariances are in float32."""
    seen = []

    class Watch(Probe):
        def on_micro_batch(self, trainer: Any, seen_now: Any) -> None:
            seen.append(seen_now)
            super().on_micro_batch(trainer, seen_now)

    probe = Watch()
    settings = {"bf16": True, "temperature": 0.7}
    trainer = make_trainer(
        tmp_path, recorded=Recorded(), method=method, observer=probe, callbacks=[probe], settings=settings
    )
    trainer.train()
    assert trainer.accelerator.mixed_precision == "bf16"
    rows = trainer.state.log_history[:-1]
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert sum(row.get("chosen/tokens", 0) for row in rows) >= 1
    assert {found.batch.logp.dtype for found in seen} == {torch.float32}


class Spoil(TrainerCallback):
    """Spoils something after the first step, so that the second is not finite."""

    def __init__(self, how: Any) -> None:
        self.how, self.trainer = how, None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.how(self.trainer)


def spoil_weights(trainer: Any) -> None:
    trainer.model.get_input_embeddings().weight.data[50] = math.nan


def spoil_column(name: str, value: float) -> Any:
    def spoil(trainer: Any) -> None:
        for part in trainer._buffered_inputs:
            part[name] = torch.full_like(part[name], value)

    return spoil


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        (spoil_weights, "the log-probs of the policy"),
        (spoil_column("old_per_token_logps", math.nan), "the log-probs of the rollout"),
        (spoil_column("advantages", math.inf), "the advantages"),
        (spoil_column("old_per_token_logps", -1000.0), "the probability ratio (it overflowed)"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, how, cause):
    callback = Spoil(how)
    trainer = make_trainer(tmp_path, recorded=Recorded(), method=KLCov(), callbacks=[callback])
    callback.trainer = trainer
    with pytest.raises(NonFiniteLossError) as error:
        trainer.train()
    assert "The loss of step 2 is not finite" in str(error.value)
    assert cause in str(error.value)
    assert trainer.state.global_step == 1
