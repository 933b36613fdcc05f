"""Choose tokens over an optimiser mini-batch of all data-parallel ranks, and hand them to the loss."""

from __future__ import annotations

import zlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from entropilot.maths.covariance import token_covariance
from entropilot.maths.tokens import TokenBatch, full_precision, masked_mean
from entropilot.methods.token_method import Method


@dataclass(frozen=True)
class Choice:
    """Hold what the engine hands to the loss of one micro-batch.

    Attributes:
        selected: tokens chosen over the optimiser mini-batch of all ranks, (b, t).
        fresh: the weights are those of the old log-probs, so that a drift could only be rounding noise.
    """

    selected: Tensor
    fresh: bool


# verl's loss signature has no room for a mask, and its `ppo_loss` drops every field that it does not know.
CHOICE: ContextVar[Choice | None] = ContextVar("entropilot_choice", default=None)


@dataclass(frozen=True)
class MiniBatch:
    """This rank's part of an optimiser mini-batch.

    Attributes:
        old_logp: log π_old(a_t), nats, (b, t).
        logp: the log-probs to choose by, nats, (b, t): π_old's, or those of the current policy.
        advantages: (b, t).
        mask: (b, t), true where a token counts.
        groups: the prompt's id of every row, b of them; None where they are not known.
    """

    old_logp: Tensor
    logp: Tensor
    advantages: Tensor
    mask: Tensor
    groups: list[Any] | None


def choose(
    part: MiniBatch, method: Method, seed: int, process_group: Any = None
) -> tuple[Tensor, dict[str, float]]:
    """Return the chosen tokens of this rank, (b, t), and what to log of the choice of all ranks.

    Only tokens that count travel, packed row by row and rank after rank, so the choice depends neither on padding nor
    on how the mini-batch is cut. Ranks that hold its rows in another order draw other tokens where a method draws.

    Args:
        part: this rank's rows.
        method: the method that chooses.
        seed: the same on all ranks; a method that draws takes its random numbers from it.
        process_group: the data-parallel group; None where there is one rank.
    """
    mask = part.mask.bool()
    lengths = mask.sum(1)
    signal = ((part.advantages != 0) & mask).any(1)
    rows = torch.stack([lengths, _group_keys(part, process_group), signal.long()], 1)
    columns = [full_precision(x)[mask] for x in (part.old_logp, part.logp, part.advantages)]
    tokens = torch.stack(columns, 1)
    all_rows, first = _gather(rows, process_group)
    all_tokens, _ = _gather(tokens, process_group)
    lengths_all, keys, signals = all_rows.unbind(1)
    packed = torch.arange(int(lengths_all.max()), device=mask.device) < lengths_all[:, None]
    old_logp, logp, advantages = (_unpacked(column, packed) for column in all_tokens.unbind(1))
    eligible = packed
    if not method.count_zero_groups:
        eligible = packed & _any_of_group(keys, signals)[:, None]
    batch = TokenBatch(old_logp=old_logp, logp=logp, advantages=advantages, mask=eligible)
    generator = torch.Generator(device=mask.device).manual_seed(seed)
    chosen = method.select(batch, generator)
    here = slice(first, first + len(mask))
    selected = torch.zeros_like(mask)
    selected[mask] = chosen[here][packed[here]]
    covariance = masked_mean(token_covariance(logp, advantages, eligible), eligible)
    numbers = torch.stack([chosen.sum().to(covariance), eligible.sum().to(covariance), covariance]).tolist()
    return selected, dict(zip(("chosen/tokens", "chosen/eligible", "covariance/mean"), numbers, strict=True))


def _unpacked(column: Tensor, packed: Tensor) -> Tensor:
    values = column.new_zeros(packed.shape)
    values[packed] = column
    return values


def _group_keys(part: MiniBatch, process_group: Any) -> Tensor:
    """Return a number per row, (b,), that is equal for rows of one prompt; rows of unknown prompts stand alone."""
    device = part.mask.device
    if part.groups is not None:
        return torch.tensor([zlib.crc32(str(group).encode()) for group in part.groups], device=device)
    rank = 0 if process_group is None else dist.get_rank(process_group)
    return torch.arange(len(part.mask), device=device) + (rank << 32)


def _any_of_group(keys: Tensor, signals: Tensor) -> Tensor:
    """Return, per row, whether any row with its key has a signal."""
    _, index = keys.unique(return_inverse=True)
    return torch.zeros_like(signals).index_reduce(0, index, signals, "amax")[index].bool()


def _gather(part: Tensor, process_group: Any) -> tuple[Tensor, int]:
    """Return the rows of all ranks, rank after rank, and where this rank's begin; ranks may differ in their number."""
    world = 1 if process_group is None else dist.get_world_size(process_group)
    if world == 1:
        return part, 0
    counts = [torch.zeros(1, dtype=torch.long, device=part.device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([len(part)], device=part.device), group=process_group)
    sizes = torch.cat(counts).tolist()
    padded = part.new_zeros((max(sizes), *part.shape[1:]))
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded, group=process_group)
    whole = torch.cat([rows[:size] for rows, size in zip(parts, sizes, strict=True)])
    return whole, sum(sizes[: dist.get_rank(process_group)])
