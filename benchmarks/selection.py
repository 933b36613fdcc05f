"""Time of the selectors per token, beside `torch.topk` alone: python benchmarks/selection.py

Medians of interleaved repeats on one batch of heavy-tailed covariances (a quarter of the cells is padding), after
one unmeasured round. With an accelerator the clock is CUDA events.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch

from entropilot.maths.covariance import quota, select_restrain, select_top, select_window, token_covariance

SIZES = {"0.26 M": (256, 1024), "2 M": (1024, 2048), "16 M": (2048, 8192)}


def clock(run: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call."""
    if device.type == "cuda":
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        began.record()
        run()
        ended.record()
        torch.cuda.synchronize()
        return began.elapsed_time(ended) / 1e3
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def selectors(
    rows: int, width: int, fraction: float, device: torch.device
) -> tuple[dict[str, Callable[[], object]], int]:
    """Return what is timed on one batch, and its number of valid tokens."""
    generator = torch.Generator(device).manual_seed(0)
    logp = -torch.empty(rows, width, device=device).exponential_(1.5, generator=generator)
    advantages = torch.randn(rows, 1, device=device, generator=generator).expand(rows, width)
    mask = torch.rand(rows, width, device=device, generator=generator) < 0.75
    covariance = token_covariance(logp, advantages, mask)
    flat, tokens = covariance.flatten(), int(mask.sum())
    runs = {
        "torch.topk alone": lambda: flat.topk(quota(fraction, tokens)),
        "token_covariance": lambda: token_covariance(logp, advantages, mask),
        "top (KL-Cov)": lambda: select_top(covariance, mask, fraction),
        "window (Clip-Cov)": lambda: select_window(covariance, mask, 2e-4, 1.0, 5.0, generator),
        "restrain 1.0": lambda: select_restrain(covariance, mask, 1.0),
    }
    return runs, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--largest", type=float, default=math.inf, help="leave out batches of more cells")
    parser.add_argument("--fraction", type=float, default=2e-3)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"torch {torch.__version__}, {device}, {settings.threads} threads, fraction {settings.fraction:g}")
    print(f"{'tokens':>8}  {'what':<22}{'ms':>9}{'ns/token':>10}{'x topk':>8}")
    for label, (rows, width) in SIZES.items():
        if rows * width > settings.largest:
            continue
        runs, tokens = selectors(rows, width, settings.fraction, device)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(settings.repeats + 1):
            for name, run in runs.items():
                seconds = clock(run, device)
                if repeat:
                    times[name].append(seconds)
        base = statistics.median(times["torch.topk alone"])
        for name, values in times.items():
            median = statistics.median(values)
            print(
                f"{label:>8}  {name:<22}{median * 1e3:>9.2f}{median / tokens * 1e9:>10.2f}{median / base:>8.2f}"
            )


if __name__ == "__main__":
    main()
