"""On a GPU: the choice is the CPU's, bf16 is near float32, and a training runs through.

`ENTROPILOT_GPU_TESTS=cpu` rehearses these tests where there is no GPU.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from trl_helpers import make_trainer, tiny_model

from entropilot import ClipCov, KLCov
from entropilot.maths.tokens import TokenBatch

DEVICE = os.environ.get("ENTROPILOT_GPU_TESTS", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(),
        reason="no GPU; ENTROPILOT_GPU_TESTS=cpu rehearses",
    ),
]


def batch(device: str) -> TokenBatch:
    """2^20 tokens of heavy-tailed covariance, a quarter of them padding; the same numbers on every device."""
    generator = torch.Generator().manual_seed(0)
    logp = -torch.empty(1024, 1024).exponential_(1.5, generator=generator)
    advantages = torch.randn(1024, generator=generator)
    mask = torch.rand(1024, 1024, generator=generator) < 0.75
    parts = [part.to(device) for part in (logp, logp, advantages, mask)]
    return TokenBatch(*parts)


@pytest.mark.parametrize("method", [KLCov(), KLCov(restrain=1.0)], ids=["top", "restrain"])
def test_the_choice_is_the_cpus(method: KLCov) -> None:
    # Means over a million tokens are added in another order, so tokens at the very edge may change places.
    here, there = (method.select(batch(d), torch.Generator(d)).cpu() for d in ("cpu", DEVICE))
    assert here.any() and (here ^ there).sum() <= 1e-4 * here.sum()


def test_clip_covs_draw_is_within_the_window_and_of_the_right_number() -> None:
    on_device = batch(DEVICE)
    chosen = ClipCov().select(on_device, torch.Generator(DEVICE).manual_seed(1))
    assert int(chosen.sum()) == int(2e-4 * int(on_device.mask.sum()))
    again = ClipCov().select(on_device, torch.Generator(DEVICE).manual_seed(1))
    assert torch.equal(chosen, again)


def test_bf16_is_near_float32() -> None:
    """Log-probs, and the gradient of KL-Cov's penalty on the same tokens, under autocast beside float32."""
    model = tiny_model().to(DEVICE)
    ids = torch.randint(3, 60, (16, 24), generator=torch.Generator().manual_seed(2)).to(DEVICE)
    stale = torch.full((16, 23), -4.0, device=DEVICE)
    advantages, mask = torch.linspace(-1, 1, 16, device=DEVICE), torch.ones(16, 23, device=DEVICE)

    def scored(half: bool) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=half):
            logits = model(ids).logits[:, :-1]
        logp = logits.float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        tokens = TokenBatch(stale, logp, advantages, mask)
        extra = KLCov().steer(tokens, torch.ones_like(mask).bool()).extra
        assert extra is not None
        (extra.mean() - (logp * tokens.advantages).mean()).backward()
        return logp.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    (exact, gradient), (rounded, other) = scored(False), scored(True)
    assert not torch.equal(exact, rounded), "autocast did nothing"
    assert (exact - rounded).abs().max() < 0.05  # bf16 keeps 8 bits, 0.4 %, of logits of a few units
    assert torch.nn.functional.cosine_similarity(gradient, other, dim=0) > 0.99


def test_a_training_in_bf16_runs_through(tmp_path: Any) -> None:
    settings = {"max_steps": 4, "use_cpu": DEVICE == "cpu", "bf16": DEVICE != "cpu"}
    trainer = make_trainer(tmp_path, method=KLCov(), settings=settings)
    before = torch.cat([p.detach().flatten().cpu().clone() for p in trainer.model.parameters()])
    trainer.train()
    after = torch.cat([p.detach().flatten().cpu() for p in trainer.model.parameters()])
    assert torch.isfinite(after).all() and not torch.equal(before, after)
