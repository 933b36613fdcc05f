"""The tiled entropy loss: T3 by hand with its gradient, gradcheck, and a plain twin over odd shapes."""

from __future__ import annotations

import math
from math import exp, log

import pytest
import torch

from entropilot.maths.entropy_loss import entropy_loss

F64 = torch.float64
LOGITS = [2.0, 1.0, 0.0, -1.0]


def by_hand(temperature: float) -> tuple[float, list[float]]:
    """H and dH/dz of T3's logits, with nothing but the standard library."""
    z = [value / temperature for value in LOGITS]
    normaliser = sum(map(exp, z))
    p = [exp(value) / normaliser for value in z]
    h = -sum(q * log(q) for q in p)
    return h, [-q * (log(q) + h) / temperature for q in p]


@pytest.mark.parametrize(
    ("temperature", "rounded", "slopes"),
    [
        (1.0, 0.9475370, [-0.326688, 0.116701, 0.130076, 0.079911]),
        (0.5, 0.4554286, [-0.536879, 0.395577, 0.116904, 0.024397]),
    ],
)
def test_t3_by_hand(near, temperature, rounded, slopes):
    # An identity head: the hidden state is the logits, so its gradient is dH/dz.
    hidden = torch.tensor([LOGITS], dtype=F64, requires_grad=True)
    loss, entropy = entropy_loss(hidden, torch.eye(4, dtype=F64), temperature=temperature)
    (gradient,) = torch.autograd.grad(loss, hidden)
    h, dh = by_hand(temperature)
    assert math.isclose(h, rounded, abs_tol=5e-8), "the hand-worked number disagrees with the recorded T3"
    assert all(math.isclose(a, b, abs_tol=6e-7) for a, b in zip(dh, slopes, strict=True))
    near(loss, h, "H of T3")
    near(entropy, [h], "H per token")
    near(gradient[0], dh, "dH/dz of T3: −(1/T) p (log p + H)")
    assert not entropy.requires_grad, "the entropies per token must carry no graph"


def case(tokens: int, hidden: int, vocabulary: int, bias: bool, seed: int = 0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()

    x, w = draw(tokens, hidden), draw(vocabulary, hidden)
    weights = torch.rand(tokens, generator=generator, dtype=dtype)
    return x, w, draw(vocabulary) if bias else None, weights


def plain(x, w, b, weights, temperature):
    """The direct way, sharing nothing with the implementation: all logits, a distribution object, autograd."""
    logits = x @ w.T if b is None else x @ w.T + b
    return (weights * torch.distributions.Categorical(logits=logits / temperature).entropy()).sum()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tile", [1, 3, 4, 100])
@pytest.mark.parametrize("temperature", [0.25, 1.0, 1.7])
def test_equals_all_logits_at_once(near, bias, tile, temperature):
    x, w, b, weights = case(10, 5, 7, bias)
    inputs = [value for value in (x, w, b) if value is not None]
    loss, _ = entropy_loss(x, w, b, temperature=temperature, token_weights=weights, tile=tile)
    expected = plain(x, w, b, weights, temperature)
    near(loss, expected, "Σ w·H", rtol=1e-10)
    for ours, theirs in zip(
        torch.autograd.grad(3 * loss, inputs), torch.autograd.grad(3 * expected, inputs), strict=True
    ):
        near(ours, theirs, "gradient with an upstream factor", rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("bias", [False, True])
def test_gradcheck(bias):
    x, w, b, weights = case(5, 3, 6, bias, seed=1)

    def loss(*inputs):
        return entropy_loss(*inputs, temperature=0.5, token_weights=weights, tile=2)[0]

    assert torch.autograd.gradcheck(loss, (x, w, b) if bias else (x, w))


def test_default_weights_are_the_token_mean_and_shapes_are_kept(near):
    x, w, _, _ = case(6, 4, 5, False)
    loss, entropy = entropy_loss(x.reshape(2, 3, 4), w, temperature=0.5)
    assert entropy.shape == (2, 3)
    near(loss, entropy.mean(), "token mean")
    near(loss, plain(x, w, None, torch.full((6,), 1 / 6, dtype=F64), 0.5), "token mean of the twin")


def test_only_what_needs_a_gradient_gets_one():
    x, w, b, weights = case(4, 3, 5, True)
    frozen = entropy_loss(x, w.detach(), b.detach(), token_weights=weights)[0]
    (alone,) = torch.autograd.grad(frozen, x)
    (together, *_) = torch.autograd.grad(entropy_loss(x, w, b, token_weights=weights)[0], (x, w, b))
    assert torch.equal(alone, together)
    head_only = entropy_loss(x.detach(), w, b.detach(), token_weights=weights)[0]
    assert torch.autograd.grad(head_only, w)[0].abs().sum() > 0
    with torch.no_grad():
        assert not entropy_loss(x, w, b)[0].requires_grad


def test_a_token_of_weight_zero_adds_nothing(near):
    x, w, _, weights = case(6, 4, 5, False)
    weights[2] = 0.0
    loss, _ = entropy_loss(x, w, token_weights=weights, tile=4)
    gradient, head = torch.autograd.grad(loss, (x, w))
    assert gradient[2].abs().max() == 0
    kept = [0, 1, 3, 4, 5]
    part, _ = entropy_loss(x[kept], w, token_weights=weights[kept])
    near(loss, part, "the loss without the token")
    near(head, torch.autograd.grad(part, w)[0], "the gradient of the head without it", atol=1e-14)


def test_banned_tokens_leave_no_nan(near):
    x, w, b, weights = case(3, 4, 5, True)
    with torch.no_grad():
        b[1] = -math.inf
    loss, entropy = entropy_loss(x, w, b, temperature=0.5, token_weights=weights)
    keep = [0, 2, 3, 4]
    near(loss, plain(x, w[keep], b[keep], weights, 0.5), "a token of probability 0 is as if it was not there")
    assert entropy.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (x, w)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_raised(dtype):
    x, w, b, weights = case(9, 16, 300, True, dtype=torch.float32)
    halves = [value.detach().to(dtype).requires_grad_() for value in (x, w, b)]
    raised = [value.detach().double().requires_grad_() for value in halves]
    loss, entropy = entropy_loss(*halves, temperature=0.5, token_weights=weights, tile=4)
    assert loss.dtype == entropy.dtype == torch.float32
    expected = plain(*raised, weights.double(), 0.5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5), "the sum was not taken in float32"
    for ours, theirs in zip(
        torch.autograd.grad(loss, halves), torch.autograd.grad(expected, raised), strict=True
    ):
        assert ours.dtype == dtype
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < 4 * torch.finfo(dtype).eps, "more than the rounding of the result"


def test_float32_holds_over_a_large_vocabulary():
    x, w, _, weights = case(64, 16, 30_000, False, dtype=torch.float32)
    loss, _ = entropy_loss(x, w, token_weights=weights)
    exact = plain(x.detach().double(), w.detach().double(), None, weights.double(), 1.0)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6), "a sum over the vocabulary that loses digits"


def test_no_tokens_is_zero_with_a_graph():
    w = torch.ones(5, 4, dtype=F64, requires_grad=True)
    loss, entropy = entropy_loss(torch.zeros(0, 4, dtype=F64), w)
    assert loss == 0 and entropy.shape == (0,)
    assert torch.autograd.grad(loss, w)[0].abs().max() == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperature_must_be_positive(temperature):
    x, w, _, _ = case(2, 3, 4, False)
    with pytest.raises(ValueError, match="temperature"):
        entropy_loss(x, w, temperature=temperature)


def test_a_tile_holds_a_token():
    x, w, _, _ = case(2, 3, 4, False)
    with pytest.raises(ValueError, match="tile"):
        entropy_loss(x, w, tile=0)


def test_all_logits_are_never_kept():
    """The largest tensor that forward and backward allocate is tile × v (or a gradient), far below tokens × v."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for value in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(value, torch.Tensor):
                    self.elements = max(self.elements, value.numel())
            return out

    x, w, _, weights = case(256, 4, 500, False)
    with Largest() as seen:
        loss, _ = entropy_loss(x, w, token_weights=weights, tile=16)
        torch.autograd.grad(loss, (x, w))
    assert seen.elements <= 16 * 500, "a tensor larger than tile × v was made"
