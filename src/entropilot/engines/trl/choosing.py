"""Gather what a method chooses from: the rollout, or the coming optimiser mini-batch, of all ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from entropilot.engines.trl.columns import ELIGIBLE, SPAN, loss_mask, of_rows
from entropilot.maths.tokens import TokenBatch


def gathered(accelerator: Any, values: Tensor) -> Tensor:
    """Return the rows of all ranks, rank after rank as the sampler laid them out, padded to the widest."""
    if accelerator.num_processes == 1:
        return values
    if values.ndim > 1:
        values = accelerator.pad_across_processes(values, dim=1)
    return accelerator.gather(values)


def gathered_batch(
    trainer: Any, inputs: dict[str, Any], logp: Tensor, old_logp: Tensor, entropy: Tensor
) -> tuple[TokenBatch, Tensor]:
    """Return the batch of all ranks, rank after rank as the sampler laid it out, and its eligible tokens."""
    same = old_logp is logp  # nothing travels twice: at 64 ranks every field is gigabytes
    logp, entropy = trainer._gathered(logp), trainer._gathered(entropy)
    old_logp = logp if same else trainer._gathered(old_logp)
    # As bytes: accelerate pads a bool to int64, on the ranks that need padding only, and the gather breaks.
    masks = {"mask": loss_mask(inputs)} | ({"span": inputs[SPAN]} if SPAN in inputs else {})
    masks = {name: trainer._gathered(mask.byte()).bool() for name, mask in masks.items()}
    eligible = masks["mask"] & trainer._gathered(inputs[ELIGIBLE].byte()).bool()[:, None]
    rows = {name: trainer._gathered(value) for name, value in of_rows(inputs).items() if name != "span"}
    advantages = trainer._gathered(inputs["advantages"])
    return TokenBatch(old_logp, logp, advantages, entropy=entropy, **masks, **rows), eligible


def choose_over_update(trainer: Any) -> dict[int, Tensor]:
    """Score the coming optimiser mini-batch of all ranks at the current weights and choose; return each part's share."""
    steps = range(trainer._step, trainer._step + trainer.current_gradient_accumulation_steps)
    parts = [trainer._buffered_inputs[step % trainer.args.steps_per_generation] for step in steps]
    wholes = []
    for part in parts:
        logp, entropy = trainer.score(part)
        wholes.append(gathered_batch(trainer, part, logp, part.get("old_per_token_logps", logp), entropy))
    width = max(batch.logp.shape[1] for batch, _ in wholes)

    def stack(tensors: list[Tensor]) -> Tensor:
        return torch.cat([pad(x, (0, width - x.shape[1])) for x in tensors])

    spans = [batch.span for batch, _ in wholes]
    candidates = TokenBatch(
        old_logp=stack([batch.old_logp for batch, _ in wholes]),
        logp=stack([batch.logp for batch, _ in wholes]),
        advantages=stack([batch.advantages for batch, _ in wholes]),
        mask=stack([eligible for _, eligible in wholes]),
        clipped=stack([trainer._clipped(batch) for batch, _ in wholes]),
        span=None if spans[0] is None else stack(spans),
        rewards=torch.cat([batch.rewards for batch, _ in wholes]),
        group=torch.cat([batch.group for batch, _ in wholes]),
    )
    chosen = trainer._choose(candidates, trainer.state.global_step)
    choice, first = {}, 0
    for step, part, (batch, _) in zip(steps, parts, wholes, strict=True):
        rows, width = part["completion_mask"].shape
        start = first + rows * trainer.accelerator.process_index
        choice[step] = chosen[start : start + rows, :width]
        first += len(batch.logp)
    return choice
