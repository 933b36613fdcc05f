"""Put prompts and completions, given as lists of token numbers, into the tensors that an engine scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from entropilot.engine_view import EngineView


def padded(
    engine: EngineView, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """Return what `EngineView.score` takes: prompts padded on the left, completions on the right, and their masks."""
    inputs: dict[str, Tensor] = {}
    for name, ids, side in (("prompt", prompts, "left"), ("completion", completions, "right")):
        rows = [torch.tensor(row, device=engine.device) for row in ids]
        inputs[f"{name}_ids"] = pad_sequence(
            rows, True, float(engine.tokenizer.pad_token_id), padding_side=side
        )
        ones = [torch.ones_like(row) for row in rows]
        inputs[f"{name}_mask"] = pad_sequence(ones, True, 0.0, padding_side=side)
    return inputs
