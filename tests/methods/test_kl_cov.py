"""KL-Cov: the formula by hand, its gradient, its inertness on-policy, and the same numbers when cut."""

from __future__ import annotations

import math
from dataclasses import replace
from math import exp

import pytest
import torch

from entropilot.maths.tokens import TokenBatch, reduce_tokens
from entropilot.methods import KLCov
from entropilot.methods.policy_loss import policy_loss

F64 = torch.float64
# T1 (tests/conftest.py): Cov 1.32, −0.96 | −0.16, −0.80, 1.20; log-ratio 0.1, 0 | 0.3, 0, −0.4; −A·ratio:
FREE = [-1.5 * exp(0.1), -1.5, 0.5 * exp(0.3), 0.5, 0.5 * exp(-0.4)]
DRIFT = [0.1, 0.0, 0.3, 0.0, 0.4]  # |log π − log π_old|
SIGN = [1, 0, 1, 0, -1]
TOP = [0, 4, 2, 3, 1]  # by signed covariance, largest first


def loss_and_gradient(batch: TokenBatch, method: KLCov, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
    loss = policy_loss(batch, method=method, generator=torch.Generator(), **kwargs)
    return loss, torch.autograd.grad(loss, batch.logp)[0]


def random_batch(rows: int = 6, length: int = 40, seed: int = 0) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    logp = -3 * torch.rand(rows, length, dtype=F64, generator=generator)
    old = logp + 0.2 * torch.randn(rows, length, dtype=F64, generator=generator)
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)
    advantages = torch.randn(rows, dtype=F64, generator=generator)
    return TokenBatch(old, logp.requires_grad_(), advantages, mask)


@pytest.mark.parametrize("padding", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("coef", [0.0, 0.1, 1.0, 2.5])
@pytest.mark.parametrize(
    ("fraction", "count"), [(2e-4, 1), (2e-3, 1), (0.2, 1), (0.4, 2), (0.6, 3), (0.99, 4), (1.0, 5)]
)
def test_t1_by_hand(t1, near, padding, coef, fraction, count):
    batch = t1(padding)
    method = KLCov(fraction=fraction, coef=coef, allow_large_fraction=True)
    selected = method.select(batch, torch.Generator())
    assert selected[batch.mask].nonzero().squeeze(1).tolist() == sorted(TOP[:count]), (
        "the tokens of largest signed covariance are chosen, max(1, ⌊k·N⌋) of them"
    )
    assert not selected[~batch.mask].any(), "padding was chosen"
    loss, gradient = loss_and_gradient(batch, method)
    taken = [i in TOP[:count] for i in range(5)]
    terms = [f + coef * d * c for f, d, c in zip(FREE, DRIFT, taken, strict=True)]
    near(loss, sum(terms) / 5, "the penalty +β·|log π − log π_old| is added on the chosen tokens")
    # ∂(−A·ratio) = −A·ratio; ∂|log-ratio| = its sign, 0 at 0.
    slopes = [f + coef * s * c for f, s, c in zip(FREE, SIGN, taken, strict=True)]
    expected = torch.zeros(2, 3, dtype=F64)
    expected[batch.mask] = torch.tensor(slopes, dtype=F64) / 5
    near(gradient, expected, "gradient (−A·ratio + β·sign(log-ratio))/N: the penalty must pull back to π_old")


def test_t1_is_the_value_of_the_spec(t1):
    loss = policy_loss(t1(), method=KLCov())
    assert round(loss.item(), 7) == -0.3095334, "T1: one token, (0,0), adds 0.1/5 to −0.3295334"


def test_gradcheck(t1):
    batch = t1()
    # Away from log π = log π_old, where |x| has no derivative: choose (0,0) and (1,2).
    selected = torch.tensor([[True, False, False], [False, False, True]])

    def loss(logp: torch.Tensor) -> torch.Tensor:
        again = TokenBatch(batch.old_logp, logp, batch.advantages, batch.mask)
        return policy_loss(again, method=KLCov(coef=0.7), selected=selected)

    assert torch.autograd.gradcheck(loss, batch.logp)


def test_steer_adds_the_penalty_and_detaches_nothing(t1, near):
    batch = t1(math.nan)
    steering = KLCov(coef=2.0).steer(batch, torch.tensor([[True, True, False], [False, False, True]]))
    assert steering.detach is None, "KL-Cov keeps every gradient"
    near(
        steering.extra, [[0.2, 0.0, 0.0], [0.0, 0.0, 0.8]], "β·|log-ratio| on the chosen tokens, 0 elsewhere"
    )
    (gradient,) = torch.autograd.grad(steering.extra.sum(), batch.logp)
    near(gradient, [[2.0, 0.0, 0.0], [0.0, 0.0, -2.0]], "β·sign(log-ratio), and 0 where it is exactly 0")


def test_it_is_inert_while_the_policy_has_not_moved(t1, near):
    batch = t1()
    still = replace(batch, old_logp=batch.logp.detach().clone())
    method = KLCov(fraction=1.0, coef=100.0, allow_large_fraction=True)
    loss, gradient = loss_and_gradient(still, method)
    near(loss, policy_loss(still), "log-ratio 0: the penalty is 0")
    near(gradient, torch.autograd.grad(policy_loss(still), still.logp)[0], "|x|' = 0 at 0: no gradient")


def test_the_penalty_is_symmetric_in_the_direction_of_the_drift(t1, near):
    batch = t1()
    mirrored = replace(batch, old_logp=2 * batch.logp.detach() - batch.old_logp)
    selected = batch.mask
    extra = KLCov().steer(batch, selected).extra
    near(
        KLCov().steer(mirrored, selected).extra, extra, "|−x| = |x|: an absolute log-ratio, not a signed one"
    )


def test_coef_zero_is_plain_policy_gradient_without_a_clip(near):
    batch = random_batch()
    loss, gradient = loss_and_gradient(batch, KLCov(coef=0.0))
    near(loss, policy_loss(batch), "β = 0 must be the no-clip control")
    near(
        gradient, torch.autograd.grad(policy_loss(batch), batch.logp)[0], "β = 0 must not touch the gradient"
    )


def test_the_published_method_does_not_clip(t1, near):
    assert (KLCov().clip_low, KLCov().clip_high) == (None, None)
    loss, _ = loss_and_gradient(t1(), replace(KLCov(coef=0.0), clip_low=0.2, clip_high=0.2))
    near(loss, (sum(FREE[:4]) + 0.4) / 5, "a clip that is set is used: (1,2) is held at ratio 0.8")


@pytest.mark.parametrize("method", [KLCov(), KLCov(restrain=1.0)])
def test_choosing_uses_no_randomness(method):
    batch = random_batch()
    generator = torch.Generator().manual_seed(5)
    before, everywhere = generator.get_state(), torch.get_rng_state()
    first = method.select(batch, generator)
    assert torch.equal(generator.get_state(), before), "KL-Cov consumed the generator"
    assert torch.equal(torch.get_rng_state(), everywhere), "KL-Cov consumed global random state"
    assert torch.equal(first, method.select(batch, torch.Generator().manual_seed(6))), (
        "the choice is not random"
    )


@pytest.mark.parametrize(
    ("share", "tokens"), [(0.5, [0]), (1.0, [0]), (2.0, [0]), (3.0, [0, 4]), (9.0, [0, 4])]
)
def test_restrain_of_t1(t1, share, tokens):
    batch = t1(math.nan)
    selected = KLCov(restrain=share).select(batch, torch.Generator())
    assert selected[batch.mask].nonzero().squeeze(1).tolist() == tokens, (
        f"the smallest top set that holds {share} of the net covariance 0.6"
    )


@pytest.mark.parametrize("method", [KLCov(fraction=0.04), KLCov(restrain=1.0)])
def test_whole_is_micro_batches_when_the_choice_is_made_once(method, near):
    """Scope rollout: select over the whole batch, steer on each part, divide by the tokens of the whole."""
    batch = random_batch()
    selected = method.select(batch.detach(), torch.Generator())
    assert selected.sum() > 1
    whole, gradient = loss_and_gradient(batch, method, selected=selected)
    total = 0.0
    for rows in ([0], [1, 2], [3, 4, 5]):
        part = TokenBatch(batch.old_logp[rows], batch.logp[rows], batch.advantages[rows], batch.mask[rows])
        per_token = -part.advantages * (part.logp - part.old_logp).exp()
        per_token = per_token + method.steer(part, selected[rows]).extra
        total = total + reduce_tokens(per_token, part.mask, tokens=batch.mask.sum())
    near(total, whole, "the loss depends on how the batch is cut")
    near(torch.autograd.grad(total, batch.logp)[0], gradient, "the gradient depends on how the batch is cut")


def test_padding_and_order_of_columns_do_not_change_the_choice():
    batch = random_batch()
    wide = [torch.nn.functional.pad(x, (3, 5), value=math.nan) for x in (batch.old_logp, batch.logp)]
    advantages = torch.nn.functional.pad(batch.advantages, (3, 5), value=math.nan)
    padded = TokenBatch(*wide, advantages, torch.nn.functional.pad(batch.mask, (3, 5)))
    for method in (KLCov(fraction=0.04), KLCov(restrain=1.0)):
        selected = method.select(padded, torch.Generator())
        assert torch.equal(selected[:, 3:-5], method.select(batch, torch.Generator())), (
            "padding moved the choice"
        )
        assert not (selected & ~padded.mask).any(), "padding was chosen"
