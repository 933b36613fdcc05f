"""Compute the token covariance of log-prob and advantage, and choose tokens by it.

Every selector works on the valid tokens in row order, so its choice does not depend on padding, on how a batch
was cut, or on the device layout; the counts are explicit.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from entropilot.maths.tokens import full_precision, masked_mean

# The shares of Table 1 in arXiv:2505.22617.
TABLE_SHARES = (2e-4, 2e-3, 2e-2, 2e-1, 5e-1, 1.0)
# `select_restrain`: the most tokens that are sorted, so that its time grows as their number does; how far the edge of the
# choice may lie from where a sample of about as many says, four standard errors in its ranks; and the rounds after which
# all that is left is sorted after all: every sample has misled then.
_SORTED, _MARGIN, _ROUNDS = 4096, 128, 8
QUADRANTS = ("likely_good", "likely_bad", "rare_good", "rare_bad")


def token_covariance(
    logp: Float[Tensor, "b t"], advantages: Float[Tensor, "b *t"], mask: Tensor
) -> Float[Tensor, "b t"]:
    """Return Cov(y_t) = (log π(y_t) − mean log π)·(A_t − mean A), means over the mask (arXiv:2505.22617, Eq. 10).

    Args:
        logp: log-probs of the sampled tokens, nats, (b, t).
        advantages: (b, t), or (b,) and (b, 1), broadcast over the row.
        mask: (b, t), true (or non-zero) where a token counts.

    Returns:
        (b, t) without a graph, 0 outside the mask. Its mean over the mask is the covariance that drives the
        entropy (Theorem 2): ΔH ≈ −η·mean. A token whose log-prob is not finite (−inf: the policy gives it no
        probability) is left out of both means and gets 0; one such token would make every covariance NaN.
    """
    logp = full_precision(logp.detach())
    mask = mask.bool() & logp.isfinite()
    advantages = full_precision(advantages.detach())
    if advantages.ndim == 1:
        advantages = advantages.unsqueeze(1)
    advantages = advantages.expand(logp.shape)
    product = (logp - masked_mean(logp, mask)) * (advantages - masked_mean(advantages, mask))
    return torch.where(mask, product, product.new_zeros(()))


def _valid(covariance: Tensor, mask: Tensor) -> Tensor:
    """Return the covariances in one row, −inf where a cell is no token: cheaper than compacting them."""
    return torch.where(mask, covariance, covariance.new_full((), -torch.inf)).flatten()


def _mark_largest(flat: Tensor, edge: Tensor, count: int, mask: Tensor) -> Tensor:
    """Mark the `count` largest cells of `flat`, of which `edge` is the smallest, in the shape of the mask.

    Among equals at the edge those that come first in row order are taken. topk leaves that open, and equals are
    common (two identical completions of a group), so the choice would hang on padding or on the device.
    """
    places = (flat >= edge).nonzero().squeeze(1)
    above = flat[places] > edge
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[places[above]] = True
    chosen[places[~above][: count - int(above.count_nonzero())]] = True
    return chosen.view_as(mask)


def quota(fraction: float, tokens: int) -> int:
    """Return how many tokens a fraction means: max(1, ⌊fraction·N⌋), and 0 where there is no token.

    At least one, as in the authors' and verl's code.
    """
    return max(1, int(fraction * tokens)) if tokens else 0


def select_top(
    covariance: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"], fraction: float
) -> Bool[Tensor, "b t"]:
    """Choose the `quota(fraction, N)` valid tokens of largest signed covariance (KL-Cov, Eq. 13)."""
    count = quota(fraction, int(mask.count_nonzero()))
    if count == 0:
        return torch.zeros_like(mask)
    flat = _valid(covariance, mask)
    return _mark_largest(flat, flat.topk(count).values[-1], count, mask)


def select_window(
    covariance: Float[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    fraction: float,
    low: float,
    high: float,
    generator: torch.Generator,
    excluded: Bool[Tensor, "b t"] | None = None,
) -> Bool[Tensor, "b t"]:
    """Choose uniformly among the valid tokens with low < covariance < high (Clip-Cov, Eq. 11).

    Args:
        covariance: as `token_covariance` returns it.
        mask: valid tokens; the quota is a share of these, candidates or not, as in the authors' code.
        fraction: share of the valid tokens; at most `quota(fraction, N)` are chosen.
        low: lower bound, exclusive.
        high: upper bound, exclusive.
        generator: source of the keys. One key is drawn for every valid token in row order, so the same
            generator state chooses the same tokens whatever the padding is.
        excluded: tokens that can't be candidates (those that PPO already clips).
    """
    candidate = mask & (covariance > low) & (covariance < high)
    if excluded is not None:
        candidate &= ~excluded
    positions = candidate.flatten().nonzero().squeeze(1)
    tokens = int(mask.count_nonzero())
    keys = torch.rand(tokens, generator=generator, device=generator.device).to(mask.device)
    chosen = torch.zeros_like(mask).flatten()
    count = min(quota(fraction, tokens), positions.numel())
    if count:
        # Only the candidates are ranked; they are few. A token's key is that of its rank among the valid ones.
        rank = mask.flatten().cumsum(0, dtype=torch.int32)[positions] - 1
        chosen[positions[keys[rank].topk(count, sorted=False).indices]] = True
    return chosen.view_as(mask)


def select_restrain(
    covariance: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"], share: float
) -> Bool[Tensor, "b t"]:
    """Choose the smallest set of largest covariances with Σ_chosen ≥ share·Σ_all (ours, not the paper's).

    Sums are signed, so the share may exceed 1; share = 1 leaves no net covariance on the tokens that stay free.
    Nothing is chosen where Σ_all ≤ 0. Tokens of covariance ≤ 0 are never chosen: where all the positive ones
    together do not reach the target, they are the choice. The setting means the same at 8,000 tokens and
    at 4 million, which a fraction does not.
    """
    flat = _valid(covariance, mask)
    total = torch.where(mask, covariance, covariance.new_zeros(())).sum(dtype=torch.float64)
    if not total > 0:
        return torch.zeros_like(mask)
    target = share * total
    # The edge of the choice lies in `rest`; `count` tokens above it, all of them chosen, hold `held`.
    rest, count, held = flat[flat > 0], 0, target.new_zeros(())
    for _ in range(_ROUNDS):
        if rest.numel() <= _SORTED:
            break
        # A sample says between which two values the edge should lie. Whether it does, the sums tell.
        sample = rest[:: rest.numel() // _SORTED].sort(descending=True).values
        weight = rest.sum(dtype=torch.float64) / sample.sum(dtype=torch.float64)
        near = int((held + weight * sample.cumsum(0, dtype=torch.float64) < target).count_nonzero())
        high, low = sample[max(near - _MARGIN, 0)], sample[min(near + _MARGIN, len(sample) - 1)]
        for part in (rest > high, (rest <= high) & (rest >= low), rest < low):
            values = rest[part]
            reached = held + values.sum(dtype=torch.float64)
            if reached >= target:
                rest = values
                break
            count, held = count + values.numel(), reached
        else:
            return (flat > 0).view_as(mask)
    rest = rest.sort(descending=True).values
    last = min(int((held + rest.cumsum(0, dtype=torch.float64) < target).count_nonzero()), len(rest) - 1)
    return _mark_largest(flat, rest[last], count + last + 1, mask)


def covariance_table(
    covariance: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"], shares: tuple[float, ...] = TABLE_SHARES
) -> dict[float, float]:
    """Return the mean covariance of the top share of tokens, for every share (arXiv:2505.22617, Table 1)."""
    values = covariance[mask]
    tokens, means = values.numel(), dict.fromkeys(shares, covariance.new_zeros((), dtype=torch.float64))
    for share in sorted(shares, reverse=True) if tokens else ():
        count = quota(share, tokens)
        if count < len(values):  # every top set lies in the one before, so nothing is sorted whole
            values = values.topk(count, sorted=False).values
        means[share] = values.sum(dtype=torch.float64) / count
    return dict(zip(shares, torch.stack(list(means.values())).tolist(), strict=True))


def quadrant_covariance(
    logp: Float[Tensor, "b t"], advantages: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]
) -> dict[str, Tensor]:
    """Return Σ_quadrant Cov / N for the four quadrants of probability × advantage; they add up to the mean.

    A token is likely where its log-prob is above the mean over the mask, good where its advantage is above the
    mean. First-order ΔH of a quadrant is −η times its number: likely_good and rare_bad lower the
    entropy, rare_good and likely_bad raise it. A token whose log-prob is not finite is left out.
    """
    mask = mask & logp.isfinite()
    covariance = token_covariance(logp, advantages, mask)
    likely, good = logp > masked_mean(logp, mask), advantages > masked_mean(advantages, mask)
    members = (likely & good, likely & ~good, ~likely & good, ~likely & ~good)
    count = mask.sum().clamp(min=1)
    return {
        name: torch.where(member & mask, covariance, covariance.new_zeros(())).sum() / count
        for name, member in zip(QUADRANTS, members, strict=True)
    }


def response_covariance(
    logp: Float[Tensor, "b t"],
    advantages: Float[Tensor, " b"],
    mask: Bool[Tensor, "b t"],
    num_generations: int,
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Return (policy gradient, natural policy gradient) covariance per prompt: a prompt is a state, a response an action.

        Cov_{y∼π}(log π(y|x), π(y|x)·A(y, x))   and   Cov_{y∼π}(log π(y|x), A(y, x))

    with log π(y|x) the mean log-prob of the response's tokens and π(y|x) its exponential: what arXiv:2505.22617
    plots in Fig. 8 (Theorems 1 and 2). The expectation is the mean over the prompt's responses, each of which
    weighs 1/g, as in `token_covariance`.

    Args:
        logp: log-probs of the sampled tokens at the policy that sampled them, nats; rows of a prompt lie together.
        advantages: one per response.
        mask: tokens that count; a response without any is an action of log-prob 0.
        num_generations: g, responses per prompt; b = p·g.
    """
    logp, advantages = full_precision(logp.detach()), full_precision(advantages.detach())
    per_response = logp.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)
    action, advantage = per_response.view(-1, num_generations), advantages.view(-1, num_generations)

    def with_log_prob(x: Tensor) -> Tensor:
        return ((action - action.mean(1, keepdim=True)) * (x - x.mean(1, keepdim=True))).mean(1)

    return with_log_prob(action.exp() * advantage), with_log_prob(advantage)
