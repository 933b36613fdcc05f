"""Gaussian log-density and KL against vector T5, scipy's density and numerical integration."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import integrate, stats

from entropilot.maths.gaussian import gaussian_entropy, gaussian_kl, gaussian_logp

F64 = torch.float64


def test_t5_by_hand(near):
    kl = gaussian_kl(
        torch.tensor([[0.5, -0.2]], dtype=F64),
        torch.tensor([[0.3, 0.3]], dtype=F64),
        torch.tensor([[0.1, 0.0]], dtype=F64),
        torch.tensor([[1.0, 1.0]], dtype=F64),
    )
    # 2·[ln(1/0.3) + 0.09/2 − ½] + (0.16 + 0.04)/2
    near(kl, [2 * (math.log(1 / 0.3) + 0.045 - 0.5) + 0.1], "KL of T5")
    assert round(kl.item(), 7) == 1.5979456


def test_the_direction_of_the_kl(near):
    one, other = (torch.tensor([[x]], dtype=F64) for x in (0.3, 1.0))
    zero = torch.zeros(1, 1, dtype=F64)
    near(gaussian_kl(zero, one, zero, other), [math.log(1 / 0.3) + 0.045 - 0.5], "narrow ‖ wide")
    near(gaussian_kl(zero, other, zero, one), [math.log(0.3) + 1 / 0.18 - 0.5], "wide ‖ narrow")


def test_logp_is_scipys(near):
    rng = np.random.default_rng(0)
    value, mean, std = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.uniform(0.1, 2, size=(5, 3))
    expected = stats.norm.logpdf(value, mean, std).sum(-1)
    near(gaussian_logp(*(torch.as_tensor(x) for x in (value, mean, std))), expected, "log-density")


def test_kl_is_the_integral(near):
    m_b, s_b, m, s = 0.4, 0.3, -0.2, 0.7
    density = stats.norm(m_b, s_b)
    value, _ = integrate.quad(
        lambda x: density.pdf(x) * (density.logpdf(x) - stats.norm.logpdf(x, m, s)), -4, 4, epsabs=1e-13
    )
    found = gaussian_kl(*(torch.tensor([[x]], dtype=F64) for x in (m_b, s_b, m, s)))
    near(found, [value], "KL by quadrature", rtol=1e-8)


def test_entropy_is_scipys(near):
    near(
        gaussian_entropy(torch.tensor([[0.3, 2.0]], dtype=F64)),
        [stats.norm(0, 0.3).entropy() + stats.norm(0, 2.0).entropy()],
        "entropy",
    )


def test_kl_is_zero_only_at_itself():
    mean, std = torch.tensor([[0.3, -1.0]], dtype=F64), torch.tensor([[0.5, 2.0]], dtype=F64)
    assert gaussian_kl(mean, std, mean, std).abs().item() < 1e-15
    assert gaussian_kl(mean, std, mean + 1e-3, std).item() > 0
    assert gaussian_kl(mean, std, mean, std * 1.01).item() > 0


def test_a_std_of_one_number_is_broadcast(near):
    mean = torch.randn(2, 3, 4, dtype=F64)
    std = torch.full((1, 1, 1), 0.3, dtype=F64)
    near(gaussian_logp(mean, mean, std), gaussian_logp(mean, mean, std.expand(2, 3, 4)), "one std for all")


def test_half_precision_is_raised():
    mean = torch.zeros(1, 2, dtype=torch.bfloat16)
    assert gaussian_logp(mean, mean, mean + 1).dtype == torch.float32
    assert gaussian_kl(mean, mean + 1, mean, mean + 1).dtype == torch.float32


def test_gradcheck():
    parts = [torch.rand(2, 3, dtype=F64) + 0.2 for _ in range(4)]
    assert torch.autograd.gradcheck(gaussian_kl, [x.requires_grad_() for x in parts])
    assert torch.autograd.gradcheck(gaussian_logp, parts[:3])
