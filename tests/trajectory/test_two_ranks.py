"""Two gloo ranks do what one process with twice the batch does: the same tokens, gradients, weights and records.

The completions are recorded, of different widths on the two ranks, and one group of eight lies across them.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from trl.trainer import grpo_trainer
from trl_helpers import distance
from two_ranks_worker import CASES, as_on_two_ranks, train

pytestmark = pytest.mark.distributed

WORKER = Path(__file__).with_name("two_ranks_worker.py")
TOLERANCE = 1e-6  # relative L2 in float32
DEADLINE = 360  # seconds; a hang is a failure, a busy machine is none


def launch(out: Path) -> list[dict[str, Any]]:
    """Run the cases on two ranks; returns what each of them saw."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    ranks, logs = [], [out / "rank0.log", out / "rank1.log"]
    for rank, log in enumerate(logs):
        environment = os.environ | {key: str(value) for key, value in shared.items()}
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"}
        command = [sys.executable, str(WORKER), str(out)]
        with log.open("w") as file:
            ranks.append(subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT))
    deadline = time.monotonic() + DEADLINE
    try:
        codes = [process.wait(max(0.1, deadline - time.monotonic())) for process in ranks]
    except subprocess.TimeoutExpired:
        pytest.fail(f"the ranks did not finish within {DEADLINE} s: a collective hangs")
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    said = "\n".join(log.read_text()[-2000:] for log in logs)
    assert not any(codes), f"a rank died (exit codes {codes}):\n{said}"
    return [torch.load(out / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    out = tmp_path_factory.mktemp("two_ranks")
    first, second = launch(out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo_trainer, "shuffle_sequence_dict", as_on_two_ranks)
        alone = {name: train(name, out / "alone", 1) for name in CASES}
    return first, second, alone


@pytest.mark.parametrize("case", CASES)
def test_the_same_tokens_and_the_same_training(seen, case, record_property):
    first, second, alone = (rank[case] for rank in seen)
    assert first["widths"] != second["widths"], "the ranks must pad to different widths, or nothing is tested"
    assert len(alone["chosen"]) >= 6, "too few tokens are chosen to tell anything"
    assert first["chosen"] | second["chosen"] == alone["chosen"], (
        "two ranks choose other tokens than one process"
    )
    apart = [distance(*pair) for pair in zip(first["updates"], alone["updates"], strict=True)]
    record_property("worst", max(apart))
    for here, there in zip(first["updates"], second["updates"], strict=True):
        assert torch.equal(here, there), "the ranks step along different gradients"
    assert max(apart) <= TOLERANCE, f"the gradients of the updates are {apart} apart"
    assert torch.equal(first["weights"], second["weights"]), "the ranks hold different weights"
    assert distance(first["weights"], alone["weights"]) <= TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_the_same_records(seen, case):
    first, second, alone = (rank[case]["rows"] for rank in seen)
    for here, there, expected in zip(first, second, alone, strict=True):
        assert here.keys() == there.keys() == expected.keys()
        for name in (name for name in expected if not name.startswith("seconds/")):
            assert here[name] == there[name] or math.isnan(here[name]), f"the ranks disagree on {name}"
            # Shares of a net covariance near 0 magnify rounding.
            tolerance = 1e-2 if name == "chosen/net_share" else 1e-3
            assert here[name] == pytest.approx(expected[name], rel=tolerance, abs=1e-6, nan_ok=True), name
