"""Clip-Cov: the formula by hand for both draws, its gradient, its candidates, its randomness, and cuts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from math import exp

import pytest
import torch

from entropilot.maths.tokens import TokenBatch, reduce_tokens
from entropilot.methods import ClipCov
from entropilot.methods.policy_loss import policy_loss

F64 = torch.float64
# T1 (tests/conftest.py): Cov 1.32, −0.96 | −0.16, −0.80, 1.20; −A·ratio:
FREE = [-1.5 * exp(0.1), -1.5, 0.5 * exp(0.3), 0.5, 0.5 * exp(-0.4)]
HELD = [*FREE[:4], 0.5 * 0.8]  # ε = 0.2: (1,2) is held at ratio 0.8 and has no gradient
WINDOW = ClipCov(cov_low=0.5, cov_high=5.0)  # candidates of T1: (0,0) and (1,2)
TIGHT = replace(WINDOW, clip_low=0.2, clip_high=0.2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def at(*tokens: int) -> torch.Tensor:
    """Mark tokens of T1 by their number among the valid ones."""
    selected = torch.zeros(2, 3, dtype=torch.bool)
    for token in tokens:
        selected[(0, token) if token < 2 else (1, token - 2)] = True
    return selected


def numbers(selected: torch.Tensor, batch: TokenBatch) -> list[int]:
    assert not (selected & ~batch.mask).any(), "padding was chosen"
    return selected[batch.mask].nonzero().squeeze(1).tolist()


def random_batch(rows: int = 6, length: int = 40, seed: int = 0) -> TokenBatch:
    generator = seeded(seed)
    logp = -3 * torch.rand(rows, length, dtype=F64, generator=generator)
    old = logp + 0.3 * torch.randn(rows, length, dtype=F64, generator=generator)
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)
    advantages = torch.randn(rows, dtype=F64, generator=generator)
    return TokenBatch(old, logp.requires_grad_(), advantages, mask)


@pytest.mark.parametrize("padding", [None, math.nan, math.inf])
@pytest.mark.parametrize(
    ("method", "drawn", "spec"),
    [
        (WINDOW, (0,), 0.0020179),
        (WINDOW, (4,), -0.3965654),
        (WINDOW, (), -0.3295334),
        (WINDOW, (0, 4), None),
        (TIGHT, (0,), 0.0149859),
        (TIGHT, (), -0.3165654),
    ],
)
def test_t1_by_hand(t1, near, method, drawn, spec, padding):
    tokens = HELD if method is TIGHT else FREE
    kept = [0.0 if i in drawn else value for i, value in enumerate(tokens)]
    witness = sum(kept) / 5
    assert spec is None or round(witness, 7) == spec
    batch = t1(padding)
    loss = policy_loss(batch, method=method, selected=at(*drawn))
    near(loss, witness, "a chosen token contributes 0 and stays in the denominator N = 5")
    free = [0.0 if i in drawn or (method is TIGHT and i == 4) else value for i, value in enumerate(FREE)]
    expected = torch.zeros(2, 3, dtype=F64)
    expected[batch.mask] = torch.tensor(free, dtype=F64) / 5
    (gradient,) = torch.autograd.grad(loss, batch.logp)
    near(gradient, expected, "a chosen token has no gradient, every other one keeps −A·ratio/N")


def test_gradcheck(t1):
    batch = t1()

    def loss(logp: torch.Tensor) -> torch.Tensor:
        again = TokenBatch(batch.old_logp, logp, batch.advantages, batch.mask)
        return policy_loss(again, method=TIGHT, selected=at(0))

    assert torch.autograd.gradcheck(loss, batch.logp)


def test_both_candidates_of_t1_are_drawn_and_no_other(t1):
    batch = t1(math.nan)
    draws = Counter(tuple(numbers(WINDOW.select(batch, seeded(s)), batch)) for s in range(400))
    assert set(draws) == {(0,), (4,)}, f"window (0.5, 5): one token, (0,0) or (1,2), got {draws}"
    assert abs(draws[(0,)] - 200) < 33, f"a fair draw of 400 lies within 3.3 σ of 200, got {draws}"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0, 4]),
        ({"clip_low": 0.2, "clip_high": 0.2}, [0]),  # (1,2) is PPO-clipped already
        ({"clip_low": 0.2}, [0]),
        ({"clip_high": 0.05}, [4]),  # (0,0): A > 0, ratio 1.105 > 1.05
        ({"clip_low": None, "clip_high": None}, [0, 4]),
        ({"cov_low": 1.25}, [0]),
        ({"cov_high": 1.25}, [4]),
        ({"cov_low": -0.9}, [0, 2, 3, 4]),
        ({"cov_low": -5.0, "cov_high": -0.5}, [1, 3]),
        ({"cov_low": 2.0}, []),
    ],
)
def test_candidates_of_t1(t1, settings, expected):
    """With fraction = 1 every candidate is chosen."""
    method = replace(WINDOW, fraction=1.0, allow_large_fraction=True, **settings)
    batch = t1(math.nan)
    assert numbers(method.select(batch, seeded()), batch) == expected, (
        "candidates lie inside the window and are not clipped by PPO"
    )


def test_t1_with_a_tight_clip_has_one_candidate(t1, near):
    for seed in range(10):
        loss = policy_loss(t1(), method=TIGHT, generator=seeded(seed))
        near(loss, (sum(HELD) - FREE[0]) / 5, "ε = 0.2 leaves (0,0) alone to be drawn")


def test_steer_detaches_and_adds_nothing(t1):
    steering = WINDOW.steer(t1(), at(0))
    assert torch.equal(steering.detach, at(0)) and steering.extra is None


def test_dropping_the_term_has_the_gradient_of_a_detached_log_prob(near):
    """What an engine does (detach log π) and what our loss does (term 0) must pull the same way."""
    batch = random_batch()
    selected = replace(WINDOW, fraction=0.04, cov_low=0.1).select(batch.detach(), seeded())
    assert selected.sum() > 1
    logp = torch.where(selected, batch.logp.detach(), batch.logp)
    detached = policy_loss(replace(batch, logp=logp), clip_low=1.0, clip_high=1.0)
    (expected,) = torch.autograd.grad(detached, batch.logp)
    (gradient,) = torch.autograd.grad(policy_loss(batch, method=WINDOW, selected=selected), batch.logp)
    near(gradient, expected, "a dropped term and a detached log-prob differ")


def test_same_generator_state_same_tokens():
    batch, method = random_batch(), replace(WINDOW, fraction=0.04, cov_low=0.1)
    generator, everywhere = seeded(3), torch.get_rng_state()
    first, second = method.select(batch, generator), method.select(batch, generator)
    assert torch.equal(first, method.select(batch, seeded(3))), "the same state must choose the same tokens"
    assert not torch.equal(first, second), "the next draw must differ: the generator did not advance"
    assert torch.equal(torch.get_rng_state(), everywhere), "global random state was consumed"
    wide = [torch.nn.functional.pad(x, (2, 9), value=math.nan) for x in (batch.old_logp, batch.logp)]
    advantages = torch.nn.functional.pad(batch.advantages, (2, 9), value=math.nan)
    padded = TokenBatch(*wide, advantages, torch.nn.functional.pad(batch.mask, (2, 9)))
    again = seeded(3)
    assert torch.equal(method.select(padded, again)[:, 2:-9], first), "padding moved the draw"
    assert torch.equal(method.select(padded, again)[:, 2:-9], second), "padding moved the draw after it"


@pytest.mark.parametrize("fraction", [2e-4, 0.01, 0.04, 0.5])
def test_count_is_the_quota_or_all_candidates(fraction):
    batch = random_batch(seed=1)
    method = replace(WINDOW, fraction=fraction, cov_low=0.3, allow_large_fraction=True)
    candidates = replace(method, fraction=1.0).select(batch, seeded())
    selected = method.select(batch, seeded())
    quota = max(1, math.floor(fraction * batch.mask.sum().item()))
    assert selected.sum() == min(quota, candidates.sum()), "min(max(1, ⌊r·N⌋), candidates) tokens are chosen"
    assert not (selected & ~candidates).any(), "a token was chosen that is no candidate"


def test_restrain_takes_the_top_set_without_a_draw(t1):
    generator = seeded(4)
    state = generator.get_state()
    batch = t1(math.nan)
    # All free tokens: Σ = 0.60, 3·Σ = 1.8 needs 1.32 + 1.20. With ε = 0.2, (1,2) is left out: Σ = −0.6.
    assert numbers(ClipCov(restrain=1.0).select(batch, generator), batch) == [0]
    assert numbers(ClipCov(restrain=3.0).select(batch, generator), batch) == [0, 4]
    clipped = ClipCov(restrain=1.0, clip_low=0.2, clip_high=0.2)
    assert numbers(clipped.select(batch, generator), batch) == [], (
        "the tokens that PPO leaves free have Σ ≤ 0"
    )
    assert torch.equal(generator.get_state(), state), "nothing is drawn under restrain"


@pytest.mark.parametrize("method", [replace(WINDOW, fraction=0.04, cov_low=0.1), ClipCov(restrain=1.0)])
def test_whole_is_micro_batches_when_the_choice_is_made_once(method, near):
    batch = random_batch()
    selected = method.select(batch.detach(), seeded())
    assert selected.sum() > 1
    whole = policy_loss(batch, method=method, selected=selected)
    total = 0.0
    for rows in ([0], [1, 2], [3, 4, 5]):
        part = TokenBatch(batch.old_logp[rows], batch.logp[rows], batch.advantages[rows], batch.mask[rows])
        ratio = (part.logp - part.old_logp).exp()
        per_token = torch.maximum(-part.advantages * ratio, -part.advantages * ratio.clamp(0.0, 2.0))
        per_token = per_token * ~method.steer(part, selected[rows]).detach
        total = total + reduce_tokens(per_token, part.mask, tokens=batch.mask.sum())
    near(total, whole, "the loss depends on how the batch is cut")
    (expected,) = torch.autograd.grad(whole, batch.logp)
    near(torch.autograd.grad(total, batch.logp)[0], expected, "the gradient depends on how the batch is cut")
