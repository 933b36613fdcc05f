"""What a choice over all ranks gathers: the right rows, and no byte twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from entropilot.engines.trl.choosing import gathered_batch
from entropilot.engines.trl.columns import ELIGIBLE, GROUP, SPAN

# Two rows of this rank; the other one has the same.
LOGP = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]])
INPUTS = {
    "completion_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
    "tool_mask": torch.tensor([[1, 0, 1], [1, 1, 1]]),
    "advantages": torch.tensor([0.5, -0.5]),
    ELIGIBLE: torch.tensor([True, False]),
    GROUP: torch.tensor([3, 4]),
}


class TwoRanks:
    """A trainer whose other rank holds the same rows; counts what arrives."""

    def __init__(self) -> None:
        self.bytes = 0

    def _gathered(self, values: Tensor) -> Tensor:
        assert values.dtype != torch.bool, "accelerate pads a bool to int64"
        both = torch.cat([values, values])
        self.bytes += both.nbytes
        return both


def test_the_rows_of_all_ranks() -> None:
    trainer: Any = TwoRanks()
    batch, eligible = gathered_batch(trainer, INPUTS, LOGP, LOGP - 0.25, -LOGP)
    assert torch.equal(batch.logp, torch.cat([LOGP, LOGP]))
    assert torch.equal(batch.old_logp, torch.cat([LOGP, LOGP]) - 0.25)
    assert torch.equal(batch.entropy, -torch.cat([LOGP, LOGP]))
    mask = [[True, False, False], [True, True, True]]  # completion × tool
    assert batch.mask.tolist() == mask * 2
    assert eligible.tolist() == [mask[0], [False] * 3] * 2
    assert batch.advantages[:, 0].tolist() == [0.5, -0.5] * 2 and batch.group.tolist() == [3, 4] * 2
    assert batch.span is None


def test_nine_bytes_a_position() -> None:
    trainer: Any = TwoRanks()
    batch, _ = gathered_batch(trainer, INPUTS, LOGP, LOGP, -LOGP)
    assert batch.old_logp is batch.logp
    # Log-prob and entropy in float32 and a byte of mask; per row an advantage, a byte, and the group's number.
    assert trainer.bytes == 12 * (4 + 4 + 1) + 4 * (4 + 1 + 8)
    trainer.bytes = 0
    span = {SPAN: torch.tensor([[True, False, False], [False, True, False]])}
    batch, _ = gathered_batch(trainer, INPUTS | span, LOGP, LOGP, -LOGP)
    assert trainer.bytes == 12 * 10 + 4 * 13 and batch.span.tolist() == span[SPAN].tolist() * 2
