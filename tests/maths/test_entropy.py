"""Entropies against torch.distributions and by hand; first-order changes against the exact tabular update."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from entropilot.maths.entropy import policy_entropy, token_entropy

F64 = torch.float64


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.9475370), (0.5, 0.4554286)])
def test_token_entropy_is_the_published_vector(temperature, expected, near):
    # z = 2, 1, 0, −1: H = log Z − Σ p·z/T, Z = Σ e^(z/T); witnessed with math alone.
    z = [v / temperature for v in (2.0, 1.0, 0.0, -1.0)]
    total = sum(map(math.exp, z))
    witness = math.log(total) - sum(math.exp(v) / total * v for v in z)
    assert round(witness, 7) == expected
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=F64)
    near(token_entropy(logits, temperature), witness, f"H of (2, 1, 0, −1) at T = {temperature}")


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 50)])
def test_token_entropy_is_that_of_torch_distributions(temperature, shape, near):
    logits = 4 * torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    witness = torch.distributions.Categorical(logits=logits / temperature).entropy()
    near(token_entropy(logits, temperature), witness, f"entropy at T = {temperature}", atol=1e-14)


def test_a_banned_token_counts_for_nothing(near):
    logits = torch.tensor([[1.0, -math.inf, 0.2, -0.7]], dtype=F64, requires_grad=True)
    kept = torch.tensor([[1.0, 0.2, -0.7]], dtype=F64, requires_grad=True)
    near(token_entropy(logits), token_entropy(kept), "a logit of −inf must leave the entropy of the others")
    (gradient,) = torch.autograd.grad(token_entropy(logits).sum(), logits)
    (expected,) = torch.autograd.grad(token_entropy(kept).sum(), kept)
    assert gradient.isfinite().all(), "a logit of −inf made the gradient infinite or NaN"
    assert gradient[0, 1] == 0, "a banned token must not be pushed"
    near(gradient[:, [0, 2, 3]], expected, "a banned token moved the gradient of the others")


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_gradient_of_token_entropy(temperature, near):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(token_entropy(logits, temperature).sum(), logits)
    logp = [v / temperature for v in (2.0, 1.0, 0.0, -1.0)]
    logp = [v - math.log(sum(map(math.exp, logp))) for v in logp]
    entropy = -sum(math.exp(v) * v for v in logp)
    witness = [[-math.exp(v) * (v + entropy) / temperature for v in logp]]  # ∂H/∂z = −p·(log p + H)/T
    near(gradient, witness, f"∂H/∂z at T = {temperature}")
    assert torch.autograd.gradcheck(lambda z: token_entropy(z, temperature), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_raised(dtype):
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(2)).to(dtype)
    entropy = token_entropy(logits)
    assert entropy.dtype is torch.float32, "entropy of half-precision logits must be computed in float32"
    torch.testing.assert_close(entropy, token_entropy(logits.float()))


def test_policy_entropy_is_the_mean_of_sequence_means(near):
    entropy = torch.tensor([[2.0, 4.0, math.nan], [1.0, 1.0, 4.0], [math.nan] * 3], dtype=F64)
    mask = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    total, count = policy_entropy(entropy, mask)
    # (2 + 4)/2 = 3 and (1 + 1 + 4)/3 = 2; their mean is 2.5. The token mean would be 12/5 = 2.4.
    near(total, 5.0, "the sum of sequence means")
    assert count.item() == 2, "a row without a token is no sequence"
    near(total / count, 2.5, "Eq. 5 weighs sequences alike; 2.4 would be the token mean")


def test_policy_entropy_of_two_ranks_adds_up(near):
    generator = torch.Generator().manual_seed(3)
    entropy = torch.rand(7, 11, dtype=F64, generator=generator)
    mask = torch.arange(11) < torch.randint(0, 12, (7, 1), generator=generator)
    total, count = policy_entropy(entropy, mask)
    halves = [policy_entropy(e, m) for e, m in zip(entropy.split(3), mask.split(3), strict=True)]
    near(sum(h[0] for h in halves), total, "sums of the parts must add up to the sum of the whole")
    assert sum(h[1] for h in halves) == count, "counts of the parts must add up to the count of the whole"


def test_policy_entropy_of_half_precision_is_float32():
    total, _ = policy_entropy(torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(2, 3, dtype=torch.bool))
    assert total.dtype is torch.float32, "a sum over ranks must not be rounded to half precision"


def _numpy_entropy(z: np.ndarray) -> float:
    p = np.exp(z - z.max())
    p /= p.sum()
    return float(-(p * np.log(p)).sum())
