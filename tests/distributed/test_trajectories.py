"""20 updates on two gloo ranks go where they go on one process, with DDP and with FSDP2.

accelerate turns FSDP and DeepSpeed on only where there is an accelerator, so the worker cuts the model itself, with the
function of torch that accelerate calls. ZeRO can't be tried on a CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import Tensor

pytestmark = pytest.mark.distributed

WORKER = Path(__file__).with_name("trajectory_worker.py")
WAYS = ("ddp", "fsdp2")


def run(out: Path, ranks: int, way: str = "ddp") -> Tensor:
    """Return the weights before the first update and after each, (21, weights), as rank 0 has them."""
    started = Ranks([sys.executable, str(WORKER), str(out), way], out, ranks=ranks)
    codes = started.wait()
    assert codes == [0] * ranks, "\n".join(text[-3000:] for text in started.said())
    vectors = [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]
    assert all(torch.equal(vectors[0], other) for other in vectors), "the ranks hold different weights"
    return vectors[0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: Any) -> Tensor:
    return run(tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.parametrize("way", WAYS)
def test_the_trajectory_of_one_process(
    alone: Tensor, tmp_path: Path, way: str, record_property: Any, capsys: Any
) -> None:
    ours = run(tmp_path, 2, way)
    # The distance between the two, beside the way that training has gone from the first weights.
    gaps = (ours - alone).norm(dim=1)[1:] / (alone - alone[0]).norm(dim=1)[1:]
    record_property("largest", gaps.max().item())
    record_property("mean", gaps.mean().item())
    with capsys.disabled():
        print(f"\n{way}: largest gap {gaps.max():.2e}, mean {gaps.mean():.2e} of the way gone in 20 steps")  # noqa: T201
    assert len(gaps) == 20 and torch.isfinite(gaps).all()
    assert gaps.max() <= 1e-3
