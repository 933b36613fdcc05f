"""Against TRL's own `_compute_loss`, for its 8 losses at both importance levels: what a method may change, and by how much.

The log-prob wrapper of TRL is replaced by a leaf tensor in float64, so that a gradient is one number per token.
The witness of the weights is autograd through TRL's body; nothing here imports `loss_weights` or `token_weights`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from trl import GRPOTrainer
from trl_helpers import LOSS_TYPES, distance, make_trainer

from entropilot.engines.trl.trainer import ELIGIBLE, SELECTED, EntropyGRPOTrainer
from entropilot.maths.tokens import TokenBatch
from entropilot.methods import ClipCov, KLCov, Steering

F64 = torch.float64
LEVELS = ("token", "sequence")
ROWS, WIDTH, COEF = 4, 16, 0.7
PARTS = 4  # steps_per_generation
# Every effective setting of TRL that multiplies a token's loss.
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tool mask": {"tool_mask": True},
    "top entropy": {"top_entropy_quantile": 0.5},
    "off-policy mask, old log-probs": {"off_policy_mask_threshold": 0.05},
    "off-policy mask, sampler's": {"off_policy_mask_threshold": 0.05, "sampler": True},
    "sampler's ratio per row": {"ratio": (ROWS, 1)},
    "sampler's ratio per token": {"ratio": (ROWS, WIDTH)},
    "all of them": {
        "tool_mask": True,
        "top_entropy_quantile": 0.6,
        "off_policy_mask_threshold": 0.05,
        "sampler": True,
        "ratio": (ROWS, WIDTH),
    },
}


def make_inputs(setting: dict[str, Any]) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Return a micro-batch under TRL's names, its log-probs and its entropies; ratios from 0.3 to 2.5."""
    generator = torch.Generator().manual_seed(3)

    def uniform(low: float, high: float, shape: tuple[int, ...] = (ROWS, WIDTH)) -> Tensor:
        return low + (high - low) * torch.rand(shape, dtype=F64, generator=generator)

    logps = uniform(-4.0, -0.1)
    old = logps - uniform(0.3, 2.5).log()
    old[3] = logps[3] + uniform(0.2, 1.0)[3]  # A < 0 and far from old: what the off-policy mask drops
    mask = (torch.arange(WIDTH) < torch.tensor([[16], [7], [12], [3]])).long()
    inputs: dict[str, Any] = {
        "prompt_ids": torch.ones(ROWS, 2, dtype=torch.long),
        "prompt_mask": torch.ones(ROWS, 2, dtype=torch.long),
        "completion_ids": torch.randint(6, 100, (ROWS, WIDTH), generator=generator),
        "completion_mask": mask,
        "advantages": torch.tensor([1.3, -0.8, 0.4, -1.1], dtype=F64),
        "old_per_token_logps": old,
        "num_items_in_batch": torch.tensor(61.0, dtype=F64),
        ELIGIBLE: torch.ones(ROWS, dtype=torch.bool),
        SELECTED: (uniform(0, 1) < 0.5) & mask.bool(),
    }
    if setting.get("tool_mask"):
        inputs["tool_mask"] = torch.ones(ROWS, WIDTH, dtype=torch.long)
        inputs["tool_mask"][0, 2:5] = 0
        inputs[SELECTED] &= inputs["tool_mask"].bool()
    if setting.get("sampler"):
        sampler = inputs["sampling_per_token_logps"] = old + uniform(-0.6, 0.6)
        sampler[1], sampler[3] = logps[1] + 0.5, logps[3] - 0.5  # it drops row 1 and keeps row 3, unlike old
    if "ratio" in setting:
        inputs["importance_sampling_ratio"] = uniform(0.5, 1.5, setting["ratio"])
    return inputs, logps, uniform(0.1, 3.0)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> EntropyGRPOTrainer:
    """One trainer for all cases; `prepare` sets what a case is about."""
    settings = {"steps_per_generation": PARTS, "num_iterations": 2}
    return make_trainer(tmp_path_factory.mktemp("losses"), method=KLCov(coef=COEF), settings=settings)


def prepare(trainer: Any, loss_type: str, level: str, setting: dict[str, Any], accumulation: int = 1) -> None:
    trainer.loss_type, trainer.importance_sampling_level = loss_type, level
    trainer.current_gradient_accumulation_steps = accumulation
    trainer.top_entropy_quantile = setting.get("top_entropy_quantile", 1.0)
    trainer.off_policy_mask_threshold = setting.get("off_policy_mask_threshold")
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = "ratio" in setting
    trainer.epsilon_low = trainer.epsilon_high = float("inf")
    trainer.beta = 0.0
    trainer.state.global_step, trainer._rollout_began_at = 5, 4  # not the first update of its rollout
    trainer.model.train()


def gradient_of(
    loss: Any, trainer: Any, inputs: dict[str, Any], logps: Tensor, entropies: Tensor, monkeypatch: Any
) -> Tensor:
    """Return ∂loss/∂(what TRL's wrapper returns); `loss` is an unbound `compute_loss` or `_compute_loss`."""
    leaf = logps.clone().requires_grad_()
    wrapper = lambda *args, **kwargs: (leaf, entropies, None)  # noqa: E731
    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", wrapper)
    value = loss(trainer, trainer.model, dict(inputs))
    (gradient,) = torch.autograd.grad(value, leaf)
    return gradient


def weight_in_trl(
    trainer: Any, inputs: dict[str, Any], logps: Tensor, entropies: Tensor, monkeypatch: Any
) -> Tensor:
    """Return w (b, t), the weight of `per_token_loss[t]`, by autograd through the advantages.

    Every loss of TRL is −w_t·g_t·A_t with a g_t that does not depend on A: ∂loss/∂A_t = −w_t·g_t. TRL takes
    advantages of shape (b, t), so that one of them belongs to one token. g is written out here, without a clip.
    """
    mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
    log_ratio = logps - inputs["old_per_token_logps"]
    advantages = inputs["advantages"].unsqueeze(1)
    if trainer.importance_sampling_level == "sequence":
        ratio = ((log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)).exp()
    else:
        ratio = log_ratio.exp()
    if trainer.loss_type == "sapo":
        args = trainer.args
        tau = torch.where(advantages > 0, args.sapo_temperature_pos, args.sapo_temperature_neg)
        slope = torch.sigmoid(tau * (ratio - 1)) * 4 / tau
    elif trainer.loss_type == "cispo":
        slope = ratio * logps
    elif trainer.loss_type == "vespo":
        correction = inputs.get("importance_sampling_ratio")
        slope = trainer.get_gamma_weights(advantages, log_ratio, mask, correction) * logps
    else:
        slope = ratio
    leaf = advantages.expand(ROWS, WIDTH).clone().requires_grad_()
    wrapper = lambda *args, **kwargs: (logps, entropies, None)  # noqa: E731
    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", wrapper)
    value = GRPOTrainer._compute_loss(trainer, trainer.model, inputs | {"advantages": leaf})
    (gradient,) = torch.autograd.grad(value, leaf)
    assert (slope != 0).all()
    return -gradient / slope


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_penalty_weighs_as_much_as_trls_own_loss(
    trainer, monkeypatch, setting, accumulation, loss_type, level
):
    """KL-Cov's part of the gradient is β·sign(log-ratio)·w_t, with TRL's own w_t."""
    prepare(trainer, loss_type, level, SETTINGS[setting], accumulation)
    inputs, *tensors = make_inputs(SETTINGS[setting])
    ours = gradient_of(EntropyGRPOTrainer.compute_loss, trainer, inputs, *tensors, monkeypatch)
    theirs = gradient_of(GRPOTrainer._compute_loss, trainer, inputs, *tensors, monkeypatch)
    weight = weight_in_trl(trainer, inputs, *tensors, monkeypatch)
    sign = (tensors[0] - inputs["old_per_token_logps"]).sign()
    expected = torch.where(inputs[SELECTED], COEF * sign * weight, 0.0)
    torch.testing.assert_close(ours - theirs, expected, rtol=1e-9, atol=1e-12)
    assert (expected != 0).sum() >= 3, "too few tokens are penalised to tell anything"
    if setting == "all of them" or setting.startswith(("top", "off")):
        dropped = inputs[SELECTED] & (weight == 0)
        assert dropped.any(), "no chosen token is masked by TRL, so the mask is not tested"


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_clip_cov_stops_the_chosen_tokens_and_no_other(trainer, monkeypatch, loss_type, level, beta):
    """Exactly 0 on the chosen tokens, their reference KL included; the rest as without the method."""
    method = ClipCov(clip_low=0.4, clip_high=0.6)
    monkeypatch.setattr(trainer, "method", method)
    prepare(trainer, loss_type, level, {})
    trainer.epsilon_low, trainer.epsilon_high, trainer.beta = method.clip_low, method.clip_high, beta
    inputs, logps, entropies = make_inputs({})
    inputs["ref_per_token_logps"] = logps - 0.2
    ours = gradient_of(EntropyGRPOTrainer.compute_loss, trainer, inputs, logps, entropies, monkeypatch)
    theirs = gradient_of(GRPOTrainer._compute_loss, trainer, inputs, logps, entropies, monkeypatch)
    chosen = inputs[SELECTED]
    assert (theirs[chosen] != 0).any(), "the chosen tokens had no gradient to lose"
    assert (ours[chosen] == 0).all(), "a chosen token still has a gradient"
    assert (theirs[~chosen] != 0).any()
    torch.testing.assert_close(ours[~chosen], theirs[~chosen], rtol=1e-6, atol=0.0)


@dataclass(frozen=True)
class Reweighted:
    """A method that multiplies the gradient of every token by a weight of its own, 0 and 1 among them."""

    weight: Tensor
    clip_low: float | None = 0.4
    clip_high: float | None = 0.6
    scope: str = "rollout"
    count_zero_groups: bool = False
    draws: ClassVar[bool] = False
    needs_stale_logp: ClassVar[bool] = False

    def select(self, batch: TokenBatch, generator: torch.Generator) -> Tensor:
        return batch.mask

    def steer(self, batch: TokenBatch, selected: Tensor) -> Steering:
        return Steering(reweight=self.weight)


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_reweighted_token_has_that_share_of_its_gradient(trainer, monkeypatch, loss_type, level, beta):
    """∂loss/∂log π(a_t) is w_t times TRL's, token by token, and the loss has TRL's value to the last digit."""
    generator = torch.Generator().manual_seed(8)
    weight = 2.5 * torch.rand(ROWS, WIDTH, dtype=F64, generator=generator)
    weight[:, ::5], weight[:, 1::5] = 0.0, 1.0
    method = Reweighted(weight)
    monkeypatch.setattr(trainer, "method", method)
    prepare(trainer, loss_type, level, {})
    trainer.epsilon_low, trainer.epsilon_high, trainer.beta = method.clip_low, method.clip_high, beta
    inputs, logps, entropies = make_inputs({})
    inputs["ref_per_token_logps"] = logps - 0.2
    ours = gradient_of(EntropyGRPOTrainer.compute_loss, trainer, inputs, logps, entropies, monkeypatch)
    theirs = gradient_of(GRPOTrainer._compute_loss, trainer, inputs, logps, entropies, monkeypatch)
    torch.testing.assert_close(ours, weight * theirs, rtol=1e-12, atol=0.0)
    assert (theirs != 0).sum() > 10 and (ours != theirs).any()
    wrapper = lambda *args, **kwargs: (logps.clone().requires_grad_(), entropies, None)  # noqa: E731
    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", wrapper)
    value = GRPOTrainer._compute_loss(trainer, trainer.model, dict(inputs))
    assert torch.equal(trainer.compute_loss(trainer.model, dict(inputs)), value)


def test_zeroing_the_advantages_would_not_do(trainer, monkeypatch):
    """The control: at sequence level an edit of the advantages leaves the chosen tokens a gradient."""
    prepare(trainer, "grpo", "sequence", {})
    inputs, *tensors = make_inputs({})
    edited = inputs | {"advantages": inputs["advantages"].unsqueeze(1) * ~inputs[SELECTED]}
    gradient = gradient_of(GRPOTrainer._compute_loss, trainer, edited, *tensors, monkeypatch)
    assert (gradient[inputs[SELECTED]] != 0).any()


@pytest.mark.parametrize("method", [KLCov(coef=COEF), ClipCov()])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_in_evaluation_the_loss_is_trls(trainer, monkeypatch, loss_type, method):
    """Nothing is chosen, nothing is penalised or stopped, and no random number is drawn."""
    monkeypatch.setattr(trainer, "method", method)
    prepare(trainer, loss_type, "token", {})
    inputs, *tensors = make_inputs({})
    trainer.model.eval()
    state = torch.get_rng_state()
    ours = gradient_of(EntropyGRPOTrainer.compute_loss, trainer, inputs, *tensors, monkeypatch)
    theirs = gradient_of(GRPOTrainer._compute_loss, trainer, inputs, *tensors, monkeypatch)
    assert torch.equal(ours, theirs)
    assert torch.equal(torch.get_rng_state(), state)
    trainer.model.train()
    steered = gradient_of(EntropyGRPOTrainer.compute_loss, trainer, inputs, *tensors, monkeypatch)
    assert not torch.equal(steered, theirs), "the same micro-batch is steered in training"


@pytest.mark.parametrize("method", [KLCov(), KLCov(scope="update"), ClipCov(scope="microbatch")])
def test_a_whole_evaluation_is_trls(tmp_path, monkeypatch, method):
    """Through `trainer.evaluate()`, sampling included: the same loss, and the same random state afterwards."""
    monkeypatch.setattr(type(method), "select", lambda *args: pytest.fail("a token was chosen in evaluation"))
    found = []
    for cls, extra in ((GRPOTrainer, {}), (EntropyGRPOTrainer, {"method": method})):
        # The user's own clip holds for both, so that the losses can be compared.
        settings = {"epsilon": 0.3, "num_iterations": 2, "per_device_eval_batch_size": 4}
        trainer = make_trainer(tmp_path, cls=cls, settings=settings, **extra)
        torch.manual_seed(11)
        metrics = trainer.evaluate(trainer.train_dataset.select(range(4)))
        found.append((metrics["eval_loss"], metrics["eval_reward"], torch.get_rng_state()))
        assert not trainer._metrics["train"]
    assert found[0][:2] == found[1][:2]
    assert torch.equal(found[0][2], found[1][2])


def test_the_first_update_of_a_rollout_has_no_penalty(trainer, monkeypatch):
    """Rounding noise between two passes of the same weights must not become a drift: |x|' is ±1 next to 0."""
    prepare(trainer, "grpo", "token", {})
    trainer.state.global_step = trainer._rollout_began_at
    inputs, logps, entropies = make_inputs({})
    noise = 1e-7 * torch.randn(logps.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    inputs["old_per_token_logps"] = logps + noise
    ours = gradient_of(EntropyGRPOTrainer.compute_loss, trainer, inputs, logps, entropies, monkeypatch)
    theirs = gradient_of(GRPOTrainer._compute_loss, trainer, inputs, logps, entropies, monkeypatch)
    assert torch.equal(ours, theirs)
    trainer.state.global_step += 1
    later = gradient_of(EntropyGRPOTrainer.compute_loss, trainer, inputs, logps, entropies, monkeypatch)
    assert distance(later, theirs) > 1e-3, "in the next update the penalty acts"


def test_the_penalty_is_added_to_the_loss(trainer, monkeypatch):
    """Its value too: Σ w_t·β·|log-ratio| over the chosen; for dr_grpo w = 1/(rows·max_completion_length)."""
    prepare(trainer, "dr_grpo", "token", {})
    inputs, logps, entropies = make_inputs({})
    wrapper = lambda *args, **kwargs: (logps.clone().requires_grad_(), entropies, None)  # noqa: E731
    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", wrapper)
    ours = trainer.compute_loss(trainer.model, dict(inputs))
    theirs = GRPOTrainer._compute_loss(trainer, trainer.model, dict(inputs))
    drift = (logps - inputs["old_per_token_logps"]).abs()[inputs[SELECTED]]
    expected = COEF * drift.sum() / (ROWS * trainer.max_completion_length)
    torch.testing.assert_close(ours - theirs, expected, rtol=1e-9, atol=1e-12)


def test_advantages_per_token_are_understood(trainer, monkeypatch):
    """TRL takes advantages of shape (b, t) from a subclass; the masks that depend on them do so too."""
    prepare(trainer, "grpo", "token", SETTINGS["off-policy mask, sampler's"])
    inputs, *tensors = make_inputs(SETTINGS["off-policy mask, sampler's"])
    per_row = gradient_of(EntropyGRPOTrainer.compute_loss, trainer, inputs, *tensors, monkeypatch)
    inputs["advantages"] = inputs["advantages"].unsqueeze(1).expand(ROWS, WIDTH).clone()
    per_token = gradient_of(EntropyGRPOTrainer.compute_loss, trainer, inputs, *tensors, monkeypatch)
    torch.testing.assert_close(per_token, per_row, rtol=1e-12, atol=0.0)
