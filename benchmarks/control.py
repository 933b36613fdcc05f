"""Speed of the control part: python benchmarks/control.py speed

The score against the double sum, gradient steps, collection with one and two processes, segments with labels. Run with
OMP_NUM_THREADS=1; it needs MetaWorld. The studies are experiments/finite_worlds and experiments/drawer.py.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
import torch

from entropilot.methods.ppl import PPL


def best_of(run: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def double_sum(logp: torch.Tensor, kl: torch.Tensor, look_ahead: int, gamma: float) -> torch.Tensor:
    """The score as it is written, all segments at once."""
    steps, total = logp.shape[1], logp.sum(-1)
    for t in range(steps):
        for ahead in range(1, min(look_ahead, steps - 1 - t) + 1):
            total = total - gamma**ahead * kl[:, t + ahead]
    return total


def time_score() -> None:
    logp, kl = -torch.rand(64, 64), torch.rand(64, 64)
    method = PPL(look_ahead=64, gamma=0.99, window="sum")
    weights = method.weights(torch.ones(64, 64), torch.float32)
    in_double = method.weights(torch.ones(64, 64))
    exact = method.score(logp.double(), kl.double(), weights=in_double)
    relative = (exact / double_sum(logp.double(), kl.double(), 64, 0.99) - 1).abs().max().item()
    a = best_of(lambda: method.score(logp, kl, weights=weights), 200)
    b = best_of(lambda: double_sum(logp, kl, 64, 0.99), 5)
    print(
        f"score, 64 segments, T = L = 64: {a * 1e6:.0f} us, double sum {b * 1e3:.1f} ms, {b / a:.0f} times;",
        end=" ",
    )
    print(f"largest relative difference {relative:.1e}")


def time_training() -> None:
    from entropilot.control.learning.phase import Data, new_actor
    from entropilot.control.learning.registry import LEARNERS
    from entropilot.control.learning.settings import TrainSettings
    from entropilot.control.segments.types import Pairs, Segments
    from entropilot.machine import cpu_has_bf16

    rng = np.random.default_rng(0)
    n, steps = 600, 64
    mean = np.tanh(rng.normal(size=(n, steps, 4)))
    segments = Segments(
        "drawer-open",
        rng.normal(size=(n, steps, 35)).astype(np.float32),
        np.clip(mean + 0.3 * rng.normal(size=mean.shape), -1, 1).astype(np.float32),
        np.full(n, steps),
        np.zeros(n, np.int64),
        np.array(["made up"]),
        mean.astype(np.float32),
        np.full(mean.shape, 0.3, np.float32),
        np.zeros((n, steps), np.float32),
        np.zeros((n, steps), np.float32),
        np.arange(n),
        np.zeros(n, np.int64),
        np.zeros(n, bool),
        np.array([0, steps]),
        np.zeros((n, 2, 0)),
    )
    pairs = Pairs(np.arange(300), np.arange(300, 600), rng.integers(0, 2, 300).astype(float))
    for bf16 in (True, False) if cpu_has_bf16() else (False,):
        phases = {}
        for method in ("sft", "cpl", "ppl", "ppl_dirac"):
            settings = TrainSettings(method=method, bf16=bf16)
            actor = new_actor(segments, settings)
            phases[method] = LEARNERS[method].begin(actor, Data(segments, pairs, actor), settings)
            phases[method].update()
        seconds = dict.fromkeys(phases, math.inf)
        for _ in range(30):  # in turns, so that a minute in which others took the core hits all of them
            for method, phase in phases.items():
                once = best_of(lambda phase=phase: [phase.update() for _ in range(5)], 1)
                seconds[method] = min(seconds[method], once / 5)
        rates = ", ".join(f"{method} {1 / took:.0f}" for method, took in seconds.items())
        print(f"steps/s at 32 pairs x 64 steps, 256x256, {'bf16' if bf16 else 'fp32'}: {rates}")


def time_collection(segments: int) -> None:
    from entropilot.control.segments.behaviour import imitation_checkpoints
    from entropilot.control.segments.collect import collect
    from entropilot.control.segments.labels import script_values

    author = imitation_checkpoints("drawer-open", 0, 18)[18]
    seconds = {}
    for processes in (1, 2):
        began = time.perf_counter()
        collect("drawer-open", author, segments, 30, processes=processes)
        seconds[processes] = time.perf_counter() - began
        print(f"collection of {segments} segments, {processes} processes: {seconds[processes]:.1f} s")
    print(f"two processes are {seconds[1] / seconds[2]:.2f} times one")
    began = time.perf_counter()
    found = collect("drawer-open", author, segments, 31, processes=2)
    script_values(found, processes=2)
    took = time.perf_counter() - began
    print(
        f"{segments} segments with exact labels, 2 processes: {took:.0f} s; 2,500 would take {2500 / segments * took:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed"])
    parser.add_argument("--segments", type=int, default=1250)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    time_score()
    time_training()
    time_collection(settings.segments)


if __name__ == "__main__":  # worker processes import this file
    main()
