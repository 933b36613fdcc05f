"""20 updates on two gloo ranks go where they go on one process: DDP, FSDP2, and ZeRO where DeepSpeed is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import Tensor

pytestmark = pytest.mark.distributed

WORKER = Path(__file__).with_name("trajectory_worker.py")
FSDP2 = {
    "EXPECTED_KIND": "FSDP",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
ZERO = {
    "EXPECTED_KIND": "DEEPSPEED",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "",
}
WAYS: dict[str, dict[str, str]] = {
    "DDP": {"EXPECTED_KIND": "MULTI_CPU"},
    "FSDP2": FSDP2,
    "ZeRO-2": ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
    "ZeRO-3": ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
}


def run(out: Path, ranks: int, precision: str = "float32", **environment: str) -> Tensor:
    """Return the weights before the first update and after each, (21, weights), as rank 0 has them."""
    started = Ranks([sys.executable, str(WORKER), str(out), precision], out, ranks=ranks, **environment)
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
    if way.startswith("ZeRO") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    ours = run(tmp_path, 2, **WAYS[way])
    # The distance between the two, beside the way that training has gone from the first weights.
    gaps = (ours - alone).norm(dim=1)[1:] / (alone - alone[0]).norm(dim=1)[1:]
    record_property("largest", gaps.max().item())
    record_property("mean", gaps.mean().item())
    with capsys.disabled():
        print(f"\n{way}: largest gap {gaps.max():.2e}, mean {gaps.mean():.2e} of the way gone in 20 steps")  # noqa: T201
    assert len(gaps) == 20 and torch.isfinite(gaps).all()
    assert gaps.max() <= 1e-3
