"""The plain PPO surrogate: T1 by hand, its gradient, its clip, and rubbish in the padding."""

from __future__ import annotations

import inspect
import math
from math import exp

import pytest
import torch

from entropilot.maths.surrogate import is_ppo_clipped
from entropilot.maths.tokens import TokenBatch
from entropilot.methods import ClipCov, KLCov
from entropilot.methods.policy_loss import policy_loss

F64 = torch.float64
# ratio of T1, padding left out: e^0.1, 1 | e^0.3, 1, e^−0.4
FREE = [-1.5 * exp(0.1), -1.5, 0.5 * exp(0.3), 0.5, 0.5 * exp(-0.4)]  # −A·ratio
# ε = 0.2: only (1,2) is clipped: ratio 0.67 < 0.8 and A < 0. e^0.3 > 1.2 has A < 0 too, and stays free.
CLIPPED = [*FREE[:4], 0.5 * 0.8]


def gradient_of(batch: TokenBatch, **kwargs) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(policy_loss(batch, **kwargs), batch.logp)
    return gradient


@pytest.mark.parametrize("padding", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("low", "high", "tokens", "free", "spec"),
    [
        (None, None, FREE, [1, 1, 1, 1, 1], -0.3295334),
        (1.0, 1.0, FREE, [1, 1, 1, 1, 1], -0.3295334),
        (0.2, 0.2, CLIPPED, [1, 1, 1, 1, 0], -0.3165654),
        (0.2, None, CLIPPED, [1, 1, 1, 1, 0], -0.3165654),
        (None, 0.2, FREE, [1, 1, 1, 1, 1], -0.3295334),
        # ε_high = 0.05: (0,0) has A > 0 and ratio e^0.1 > 1.05.
        (None, 0.05, [-1.5 * 1.05, *FREE[1:]], [0, 1, 1, 1, 1], None),
    ],
)
def test_ppo_of_t1(t1, near, padding, low, high, tokens, free, spec):
    witness = sum(tokens) / 5
    assert spec is None or round(witness, 7) == spec
    batch = t1(padding)
    loss = policy_loss(batch, clip_low=low, clip_high=high)
    near(loss, witness, f"PPO with clip {low}/{high}: mean of max(−ratio·A, −clip(ratio)·A)")
    # ∂/∂log π of −A·ratio is itself; a clipped token has none.
    expected = torch.zeros(2, 3, dtype=F64)
    expected[batch.mask] = torch.tensor(
        [f * value / 5 for f, value in zip(free, FREE, strict=True)], dtype=F64
    )
    near(
        gradient_of(batch, clip_low=low, clip_high=high), expected, f"gradient of PPO with clip {low}/{high}"
    )
    clipped = is_ppo_clipped(batch, low, high)
    assert clipped[batch.mask].tolist() == [not f for f in free], "which tokens PPO clips"
    assert not clipped[~batch.mask].any(), "padding is never clipped"


@pytest.mark.parametrize("low_high", [(None, None), (0.2, 0.2), (1.0, 1.0)])
def test_gradcheck(t1, low_high):
    batch = t1()

    def loss(logp: torch.Tensor) -> torch.Tensor:
        again = TokenBatch(batch.old_logp, logp, batch.advantages, batch.mask)
        return policy_loss(again, clip_low=low_high[0], clip_high=low_high[1])

    assert torch.autograd.gradcheck(loss, batch.logp)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("token_mean", sum(FREE) / 5),
        ("sequence_mean", (sum(FREE[:2]) / 2 + sum(FREE[2:]) / 3) / 2),
        ("sequence_sum", sum(FREE) / 2),
        ("constant", sum(FREE) / (2 * 7)),
    ],
)
def test_reductions_of_t1(t1, near, reduction, expected):
    near(policy_loss(t1(), reduction=reduction, max_length=7), expected, reduction)


def test_whole_batch_is_its_micro_batches(t1, near):
    """token_mean: parts of 2 and 3 tokens weigh 2/5 and 3/5."""
    batch = t1()
    parts = [
        TokenBatch(batch.old_logp[[i]], batch.logp[[i]], batch.advantages[[i]], batch.mask[[i]])
        for i in (0, 1)
    ]
    total = sum(policy_loss(part) * part.mask.sum() / 5 for part in parts)
    near(total, policy_loss(batch), "the parts must add up to the whole")
    (gradient,) = torch.autograd.grad(total, batch.logp)
    near(gradient, gradient_of(batch), "the gradients of the parts must add up to the gradient of the whole")


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        # Clip-Cov's window at T1 and ε = 1: (0,0) drops out (tests/methods/test_clip_cov.py); with 0.2, (1,2) is clipped.
        ({}, (sum(FREE) - FREE[0]) / 5),
        ({"clip_low": 0.2}, (sum(CLIPPED) - FREE[0]) / 5),
        ({"clip_low": 0.2, "clip_high": 0.2}, (sum(CLIPPED) - FREE[0]) / 5),
    ],
)
def test_a_clip_that_is_given_overrides_the_clip_of_the_method(t1, near, clip, expected):
    method = ClipCov(cov_low=1.25, cov_high=5.0)  # one candidate: 1.32
    loss = policy_loss(t1(), method=method, generator=torch.Generator(), **clip)
    near(loss, expected, f"Clip-Cov with {clip or 'its own clip'}")


def test_the_clip_in_force_decides_who_can_be_chosen(t1, near):
    method = ClipCov(cov_low=1.1, cov_high=1.25)  # one candidate, (1,2) with 1.20, which ε = 0.2 clips
    generator = torch.Generator()
    near(
        policy_loss(t1(), method=method, generator=generator),
        (sum(FREE) - FREE[4]) / 5,
        "ε = 1: it is chosen",
    )
    near(
        policy_loss(t1(), method=method, generator=generator, clip_low=0.2, clip_high=0.2),
        sum(CLIPPED) / 5,
        "ε = 0.2: PPO clips it, so that nothing is left to choose",
    )


def test_the_method_chooses_on_numbers_without_a_graph(t1):
    seen = []

    class Watch(KLCov):
        def select(self, batch, generator):
            seen.append(batch.logp.requires_grad)
            return super().select(batch, generator)

    policy_loss(t1(), method=Watch())
    assert seen == [False], "a choice must not build a graph"


def test_a_choice_made_before_is_used_as_it_is(t1, near):
    batch = t1()
    selected = torch.tensor([[False, True, False], [False, False, False]])
    near(
        policy_loss(batch, method=ClipCov(), selected=selected),
        (sum(FREE) - FREE[1]) / 5,
        "`selected` must replace the method's own choice",
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_precision_of_the_loss(t1, dtype):
    loss = policy_loss(t1(dtype=dtype))
    assert loss.dtype is (F64 if dtype is F64 else torch.float32), (
        "half is raised to float32, float64 is kept"
    )
    assert loss.shape == (), "the loss is a scalar"


def test_plain_is_the_default():
    defaults = {name: p.default for name, p in inspect.signature(policy_loss).parameters.items()}
    assert (defaults["clip_low"], defaults["clip_high"], defaults["method"]) == (None, None, None)
    assert defaults["reduction"] == "token_mean"


# --- what is clipped ------------------------------------------------------------------------------------------


def log_ratios(rows: list[list[float]], advantages: list[float]) -> TokenBatch:
    """Return a batch of these log-ratios; the last token of the first row is padding that holds NaN."""
    logp = torch.tensor(rows, dtype=F64)
    mask = torch.ones_like(logp, dtype=torch.bool)
    mask[0, -1] = False
    logp[0, -1] = math.nan
    return TokenBatch(torch.zeros_like(logp), logp, torch.tensor(advantages, dtype=F64), mask)


def test_at_sequence_level_a_row_is_clipped_as_a_whole():
    """ε = 0.2. Row 0: mean log-ratio (0.5 − 0.3)/2 = 0.1, e^0.1 < 1.2: free, though token 0 has e^0.5 > 1.2.
    Row 1: mean (0.1 + 0.1 + 0.7)/3 = 0.3, e^0.3 > 1.2: clipped, though two tokens have e^0.1 < 1.2."""
    batch = log_ratios([[0.5, -0.3, 0.0], [0.1, 0.1, 0.7]], [1.0, 1.0])
    token = [[True, False, False], [False, False, True]]
    assert is_ppo_clipped(batch, 0.2, 0.2).tolist() == token
    row = [[False, False, False], [True, True, True]]
    assert is_ppo_clipped(batch, 0.2, 0.2, level="sequence").tolist() == row


@pytest.mark.parametrize(
    ("high", "delta", "clipped"),
    [
        (0.2, None, [False] * 3),
        (0.2, 2.0, [False, False, True]),  # ratios 1.1, 1.6, 3.0 at A < 0
        (0.2, 1.5, [False, True, True]),
        (1.0, 1.5, [False, False, True]),  # max(clip, delta) bounds: TRL takes the larger of both losses
        (math.inf, 1.5, [False] * 3),
        (None, 1.5, [False] * 3),
    ],
)
def test_delta_clips_large_ratios_of_negative_advantages(high, delta, clipped):
    """The witness is the gradient of TRL's formula: −min(min(r, δ)·A, clip(r, 0.8, 1 + ε)·A)."""
    ratio = torch.tensor([[1.1, 1.6, 3.0]], dtype=F64)
    batch = TokenBatch(
        torch.zeros_like(ratio), ratio.log(), torch.tensor([-1.0], dtype=F64), torch.ones(1, 3)
    )
    assert is_ppo_clipped(batch, 0.2, high, delta=delta).tolist() == [clipped]
    leaf = ratio.clone().requires_grad_()
    bounded = leaf.clamp(max=math.inf if delta is None else delta)
    inside = leaf.clamp(0.8, math.inf if high is None else 1 + high)
    loss = -torch.minimum(-bounded, -inside).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert (gradient == 0).tolist() == [clipped]
