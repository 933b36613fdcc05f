"""Score completions with a TRL trainer's model: at another temperature, and without dropout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from trl.trainer.utils import add_fused_lm_head


def dropout_of(model: nn.Module) -> float:
    """Return the largest dropout probability that is at work in a model while it trains; 0 without dropout."""
    largest = 0.0
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            largest = max(largest, module.p)
        else:  # transformers' attention keeps its probability as a number: attention_dropout, dropout, attn_pdrop
            values = [value for name, value in vars(module).items() if "drop" in name.lower()]
            numbers = [value for value in values if isinstance(value, float) and 0.0 < value < 1.0]
            largest = max([largest, *numbers])
    return largest


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Within this block the model is in evaluation mode; afterwards every module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def at_temperature(trainer: Any, temperature: float) -> Iterator[None]:
    """Within this block, score at another temperature than the one that is trained at."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    fused, fp32 = model.forward, trainer.args.cast_lm_head_to_fp32
    add_fused_lm_head(model, temperature, cast_lm_head_to_fp32=fp32, outputs=("log_probs", "entropy"))
    try:
        yield
    finally:
        model.forward = fused


def batch_of(
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    padding: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """Return prompts padded on the left and completions padded on the right, with their masks, under TRL's names."""

    def padded(rows: Sequence[Sequence[int]], left: bool) -> tuple[Tensor, Tensor]:
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), padding, device=device)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            part = slice(width - len(row), width) if left else slice(0, len(row))
            ids[place, part], mask[place, part] = torch.tensor(row, device=device), 1
        return ids, mask

    prompts, prompt_mask = padded(prompt_ids, True)
    completions, completion_mask = padded(completion_ids, False)
    return {
        "prompt_ids": prompts,
        "prompt_mask": prompt_mask,
        "completion_ids": completions,
        "completion_mask": completion_mask,
    }


def mean_entropies(trainer: Any, prompts: Any, completion_ids: list[list[int]]) -> list[float]:
    """Return the mean token entropy of this rank's completions at the policy that wrote them, nats.

    From TRL's pass for the old log-probs where it ran one, else from a pass of its own.
    """
    entropy = next((entropies for _, entropies in trainer._scored or [] if entropies is not None), None)
    if entropy is None:
        prompt_ids, _, _ = trainer._tokenize_prompts(prompts)
        _, entropy = trainer.score(
            batch_of(prompt_ids, completion_ids, trainer._tokenizer.pad_token_id, trainer.accelerator.device)
        )
    lengths = torch.tensor([len(ids) for ids in completion_ids], device=entropy.device)
    counted = torch.arange(entropy.shape[1], device=entropy.device) < lengths.unsqueeze(1)
    total = torch.where(counted, entropy.float(), 0.0).sum(1)
    return (total / lengths.clamp(min=1)).tolist()
