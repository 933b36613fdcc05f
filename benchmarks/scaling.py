"""Cost of choosing, gathering and recording from 1 thousand to 16 million tokens, on 1 to 4 gloo ranks.

    python benchmarks/scaling.py                 # the table: about ten minutes of one core
    python benchmarks/scaling.py --paper         # only the calculation for a large run

Tokens are those of all ranks together. Seconds are processor seconds of the first rank, the lowest of a few repeats, so
that a busy machine changes them little; waiting for the other ranks is not in them. `growth` is the exponent b of
seconds ~ tokens^b from the last size but two to the last: 1 is linear. Bytes are counted where the trainer gathers.
Freed memory is kept for the next tensor, as on a GPU; otherwise pages that the system hands out anew are most of the
time from 8 million tokens on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["ACCELERATE_USE_CPU"] = "true"

import torch
import torch.distributed as dist
from accelerate import Accelerator

from entropilot import ClipCov, KLCov
from entropilot.engines.trl.choosing import gathered, gathered_batch
from entropilot.engines.trl.columns import ELIGIBLE
from entropilot.engines.verl.choosing import MiniBatch, choose
from entropilot.maths.covariance import select_restrain, token_covariance
from entropilot.maths.tokens import TokenBatch
from entropilot.recording.metrics import rollout_metrics, update_metrics
from entropilot.recording.observer import MicroBatch, Rollout

WIDTH, GROUP = 128, 8
DRIFT_BYTES = (
    4.0  # the probe gathers |log-ratio| of every position in float32, for its median and 99th percentile
)
SIZES = [2**10, 2**14, 2**17, 2**20, 2**22, 2**24]


class Gatherer:
    """What `gathered_batch` asks of a trainer; counts the bytes that arrive."""

    def __init__(self) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            dist.init_process_group("gloo")
        self.accelerator, self.received = Accelerator(cpu=True), 0

    def _gathered(self, values: torch.Tensor) -> torch.Tensor:
        values = gathered(self.accelerator, values)
        self.received += values.numel() * values.element_size()
        return values


def own_rows(
    tokens: int, ranks: int, rank: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Return a rank's part of a rollout: TRL's fields, log-probs, entropies. A quarter of the cells is padding."""
    generator = torch.Generator().manual_seed(rank)
    rows = max(GROUP, tokens // WIDTH // ranks)
    advantages = torch.randn(rows, generator=generator)
    # Good completions are likelier, so that the net covariance is positive, the same share at every size.
    logp = (
        -torch.empty(rows, WIDTH).exponential_(1.5, generator=generator)
        * (1 - 0.3 * advantages.tanh())[:, None]
    )
    lengths = torch.randint(WIDTH // 2, WIDTH + 1, (rows, 1), generator=generator)
    inputs = {
        "completion_mask": (torch.arange(WIDTH) < lengths).long(),
        "advantages": advantages,
        ELIGIBLE: torch.ones(rows, dtype=torch.bool),
    }
    return inputs, logp, -logp


def measured(run: Callable[[], Any], repeats: int) -> float:
    """Return the processor seconds of a call, the lowest of some."""
    run()
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds)


def costs(tokens: int, gatherer: Gatherer) -> dict[str, float]:
    """Return the processor seconds of everything at one size, on the ranks that there are, and the bytes gathered."""
    ranks = gatherer.accelerator.num_processes
    inputs, logp, entropy = own_rows(tokens, ranks, gatherer.accelerator.process_index)
    repeats = 2 if tokens >= 2**22 else 4
    gatherer.received = 0
    whole, eligible = gathered_batch(gatherer, inputs, logp, logp, entropy)
    seconds: dict[str, float] = {"bytes": gatherer.received / whole.logp.numel()}
    seconds["gather"] = measured(lambda: gathered_batch(gatherer, inputs, logp, logp, entropy), repeats)
    part = MiniBatch(
        logp, logp, inputs["advantages"][:, None].expand_as(logp), inputs["completion_mask"], None
    )
    group = dist.group.WORLD if ranks > 1 else None
    seconds["verl: gather, choose"] = measured(lambda: choose(part, KLCov(), 0, group), repeats)
    if ranks > 1:  # what follows is the same on any number of ranks
        return seconds
    batch = TokenBatch(whole.old_logp, whole.logp, whole.advantages, eligible, whole.entropy)
    for name, method in (("KL-Cov", KLCov()), ("Clip-Cov", ClipCov())):
        generator = torch.Generator().manual_seed(0)
        seconds[name] = measured(lambda m=method, g=generator: m.select(batch, g), repeats)
    covariance = token_covariance(batch.logp, batch.advantages, eligible)
    seconds["restrain"] = measured(lambda: select_restrain(covariance, eligible, 1.0), repeats)
    chosen = KLCov().select(batch, torch.Generator())
    rewards = torch.arange(len(logp)).remainder(2).float()
    rollout = Rollout(whole, eligible, chosen, rewards, {}, 0, 0.0)
    seconds["record: rollout"] = measured(lambda: rollout_metrics(rollout, GROUP), repeats)
    engine: Any = SimpleNamespace(
        clip={"low": 0.2, "high": 0.2}, scope="rollout", gather=lambda x, padding=0: x, reduce=lambda x: x
    )
    passes = [MicroBatch(batch, eligible, chosen, None, 0.0)]
    seconds["record: update"] = measured(lambda: update_metrics(passes, engine), repeats)
    return seconds


def on_ranks(sizes: list[int], ranks: int) -> list[dict[str, float]]:
    """Run `costs` for every size in so many processes, and return what the first one says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    shared |= {"MALLOC_MMAP_THRESHOLD_": 2**33, "MALLOC_TRIM_THRESHOLD_": 2**35}
    command = [sys.executable, "-W", "ignore", __file__, "--worker", "--sizes", *map(str, sizes)]
    processes = []
    for rank in range(ranks):
        own = {key: str(value) for key, value in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        processes.append(subprocess.Popen(command, env=os.environ | own, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"scaling: one of {ranks} ranks failed")
    return json.loads(said[0].splitlines()[-1])


def paper(per_position: float, prompts: int, group: int, length: int, ranks: int, gigabits: float) -> str:
    """Return what a choice over the rollout of many ranks costs, by calculation."""
    positions = prompts * group * length
    received = per_position * positions * (ranks - 1) / ranks
    seconds = received * 8 / gigabits / 1e9
    return (
        f"{prompts} prompts x {group} x {length:,} tokens = {positions / 1e6:,.0f} M positions on {ranks} ranks: "
        f"{per_position:.2f} bytes each, {received / 1e9:.2f} GB received by every rank, {seconds:.2f} s at "
        f"{gigabits:g} Gb/s per rollout; 1 % of a rollout and its updates that take {100 * seconds:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    if settings.worker:
        gatherer = Gatherer()
        print(json.dumps([costs(size, gatherer) for size in settings.sizes]))
        if dist.is_initialized():
            dist.destroy_process_group()
        return
    if settings.paper:
        settings.sizes, settings.ranks = [2**14], [2]
    else:
        print(f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, ms")
        print(f"{'ranks':>5}  {'what':<22}" + "".join(f"{size:>12,}" for size in settings.sizes) + "  growth")
    bytes_each = 0.0
    for ranks in settings.ranks:
        tables = on_ranks(settings.sizes, ranks)
        bytes_each = tables[-1].pop("bytes")
        for name in () if settings.paper else tables[-1]:
            values = [table[name] for table in tables]
            first = -min(3, len(values))
            growth = math.log(values[-1] / values[first]) / math.log(
                settings.sizes[-1] / settings.sizes[first]
            )
            numbers = "".join(f"{value * 1e3:>12.2f}" for value in values)
            print(f"{ranks:>5}  {name:<22}{numbers}  {growth:.2f}", flush=True)
    large = {"prompts": 512, "group": 16, "length": 32_768, "ranks": 64, "gigabits": 100}
    print("choosing: ", paper(bytes_each, **large))
    print("recording:", paper(DRIFT_BYTES, **large))


if __name__ == "__main__":
    main()
