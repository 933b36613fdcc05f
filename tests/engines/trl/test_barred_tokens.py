"""Clip-Cov leaves out the tokens that TRL's loss has clipped, and no token that still has a gradient.

The witness is autograd through TRL's own `_compute_loss`, on the log-probs of the very pass.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from trl import GRPOTrainer
from trl_helpers import LOSS_TYPES, make_trainer

from entropilot.engines.trl.columns import ELIGIBLE
from entropilot.engines.trl.trainer import EntropyGRPOTrainer
from entropilot.methods import ClipCov

CLIP, ROWS, WIDTH = 0.2, 4, 12


def inputs_of(spread: float) -> tuple[dict[str, Any], Tensor]:
    """Return a micro-batch with log-ratios of a few tenths, of both signs of the advantage."""
    generator = torch.Generator().manual_seed(5)
    logps = -0.2 - 3 * torch.rand(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    drift = spread * torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    drift += torch.tensor([[0.3], [-0.4], [0.05], [-0.05]], dtype=torch.float64)
    mask = (torch.arange(WIDTH) < torch.tensor([[12], [7], [10], [4]])).long()
    ones = torch.ones(ROWS, 2, dtype=torch.long)
    return {
        "prompt_ids": ones,
        "prompt_mask": ones,
        "completion_ids": torch.ones(ROWS, WIDTH, dtype=torch.long),
        "completion_mask": mask,
        "advantages": torch.tensor([1.0, -1.0, 1.5, -0.5], dtype=torch.float64),
        "old_per_token_logps": logps - drift,
        "num_items_in_batch": torch.tensor(33.0, dtype=torch.float64),
        ELIGIBLE: torch.ones(ROWS, dtype=torch.bool),
    }, logps


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> EntropyGRPOTrainer:
    method = ClipCov(
        fraction=1.0, allow_large_fraction=True, cov_low=-99.0, cov_high=99.0, scope="microbatch"
    )
    settings = {"epsilon": CLIP, "num_iterations": 2}
    return make_trainer(tmp_path_factory.mktemp("barred"), method=method, settings=settings)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize("delta", [None, 1.3])
def test_chosen_is_what_has_a_gradient(trainer, monkeypatch, loss_type, level, delta):
    """The whole window and every token of it: chosen are exactly the tokens with a gradient in TRL's loss."""
    clipped_loss = loss_type in ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
    trainer.loss_type, trainer.importance_sampling_level = loss_type, level
    trainer.args.delta = delta if clipped_loss else None
    low, high = (CLIP, CLIP) if clipped_loss else (None, None)
    monkeypatch.setattr(trainer, "clip", {"low": low, "high": high, "source": "user"})
    trainer.current_gradient_accumulation_steps = 1
    trainer.state.global_step, trainer._rollout_began_at = 5, 4
    trainer.model.train()
    inputs, logps = inputs_of(0.3)
    leaf = logps.clone().requires_grad_()
    wrapper = lambda *_, **__: (leaf, torch.ones_like(leaf), None)  # noqa: E731
    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", wrapper)
    (gradient,) = torch.autograd.grad(GRPOTrainer._compute_loss(trainer, trainer.model, dict(inputs)), leaf)
    chosen: list[Tensor] = []
    choose = trainer._choose
    monkeypatch.setattr(trainer, "_choose", lambda *args: chosen.append(choose(*args)) or chosen[-1])
    trainer.compute_loss(trainer.model, dict(inputs))
    assert torch.equal(chosen[0], gradient != 0)
    mask = inputs["completion_mask"].bool()
    free, barred = (mask & (gradient != 0)).sum(), (mask & (gradient == 0)).sum()
    assert free > 0 and (barred > 0) == clipped_loss, "some tokens are clipped, or nothing is tested"
