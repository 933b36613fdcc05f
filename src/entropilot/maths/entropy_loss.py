"""Entropy of softmax(W h + b) as a loss, tile of tokens by tile of tokens: logits of shape (n, v) never exist."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from entropilot.maths.tokens import full_precision

TILE = 256  # tokens; 64 takes a quarter of the buffers, but reads and writes the gradient of W four times as often


class _TiledEntropy(torch.autograd.Function):
    """Σ_t w_t·H_t with ∂H/∂z_v = −(1/T)·p_v·(log p_v + H), taken while the tile's p is at hand."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        w: Tensor,
        temperature: float,
        tile: int,
    ) -> tuple[Tensor, Tensor]:
        head, x = full_precision(weight), full_precision(hidden)
        shift = None if bias is None else full_precision(bias)
        wanted = ctx.needs_input_grad
        gradients = [
            torch.zeros_like(value) if value is not None and want else None
            for value, want in zip((x, head, shift), wanted, strict=False)
        ]
        grad_x, grad_head, grad_shift = gradients
        entropy = x.new_empty(len(x))
        for start in range(0, len(x), tile):
            rows = slice(start, start + tile)
            z = x[rows] @ head.T if shift is None else torch.addmm(shift, x[rows], head.T)
            z = z.div_(temperature).clamp_(min=-1e30)  # a banned token (−inf) contributes 0·(−1e30), not NaN
            p = z.sub_(z.logsumexp(-1, keepdim=True)).exp()  # from here on z holds log p
            entropy[rows] = -z.mul_(p).sum(-1)  # and now p log p
            if not any(wanted[:3]):
                continue
            g = z.addcmul_(p, entropy[rows, None]).mul_(-w[rows, None] / temperature)
            if grad_x is not None:
                torch.mm(g, head, out=grad_x[rows])
            if grad_head is not None:
                grad_head.addmm_(g.T, x[rows])
            if grad_shift is not None:
                grad_shift += g.sum(0)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [None if value is None else value.dtype for value in (hidden, weight, bias)]
        ctx.mark_non_differentiable(entropy)
        return w @ entropy, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return (*(None if g is None else (g * upstream[0]).to(dtype) for g, dtype in pairs), None, None, None)


def entropy_loss(
    hidden: Float[Tensor, "*b h"],
    weight: Float[Tensor, "v h"],
    bias: Float[Tensor, "v"] | None = None,
    *,
    temperature: float = 1.0,
    token_weights: Float[Tensor, "*b"] | None = None,
    tile: int = TILE,
) -> tuple[Float[Tensor, ""], Float[Tensor, "*b"]]:
    """Return (Σ_t w_t·H_t, H): the entropy, nats, of softmax((W h_t + b) / temperature) over the full vocabulary.

        ∂H/∂z_v = −(1/T)·p_v·(log p_v + H)                    z = W h + b,  p = softmax(z/T)

    The gradient of the first output in hidden, weight and bias is computed in the forward pass, where no graph is
    wanted nothing is; H carries none. Memory beside the gradients: two buffers of tile × v. Half precision is raised
    to float32, with one copy of the head; float64 stays. Models that scale or cap their logits need that done here too:
    inside an engine use its fused head, which knows them.

    Args:
        hidden: what goes into the head at the position that predicts token t.
        weight: of the head.
        bias: of the head.
        temperature: T.
        token_weights: w; default 1 / tokens, the token mean. A token of weight 0 adds nothing, whatever finite value
            its hidden state has.
        tile: tokens per tile.

    Raises:
        ValueError: a temperature or a tile that is not positive.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"entropy_loss: temperature={temperature} must be positive; the paper's is 0.5.")
    if tile < 1:
        raise ValueError(f"entropy_loss: tile={tile} must be at least 1 token; {TILE} is a good size.")
    flat = hidden.reshape(-1, hidden.shape[-1])
    if token_weights is None:
        w = full_precision(flat.new_ones(())).expand(len(flat)) / max(1, len(flat))
    else:
        w = token_weights.reshape(-1).to(full_precision(flat.new_ones(())).dtype)
    loss, entropy = _TiledEntropy.apply(flat, weight, bias, w.detach(), temperature, tile)  # type: ignore[misc]
    return loss, entropy.reshape(hidden.shape[:-1])
