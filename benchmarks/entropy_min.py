"""Time and memory of one entropy loss and its gradient: python benchmarks/entropy_min.py

Three ways from hidden states and head to loss and both gradients, each in a process of its own (its peak of resident
memory above what inputs and libraries take), one at a time, interleaved over the repetitions:

direct   all logits, softmax, log, as a plain script would write it
tiled    entropilot.maths.entropy_loss, by tile
trl      TRL's fused head (entropy with gradient), tiles of its default width and narrower

Ratios are medians over repetitions of the ratio to the direct way of the same repetition.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable


class Peak(threading.Thread):
    """Watches the resident memory of this process; ru_maxrss would also know what came before."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        import psutil

        self.process, self.highest, self.done = psutil.Process(), 0, False

    def run(self) -> None:
        while not self.done:
            self.highest = max(self.highest, self.process.memory_info().rss)
            time.sleep(0.002)


def once(way: str, vocabulary: int, tokens: int, hidden: int, threads: int) -> dict[str, float]:
    """Return seconds, bytes above the inputs, loss and gradient norms of one way, in this process."""
    import torch

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, hidden, generator=generator).requires_grad_()
    w = (torch.randn(vocabulary, hidden, generator=generator) * hidden**-0.5 * 2).requires_grad_()
    name, _, size = way.partition(":")

    def direct(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        p = ((x @ w.T) / 0.5).softmax(-1)
        return -(p * (p + 1e-12).log()).sum(-1).mean()

    def tiled(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        from entropilot.maths.entropy_loss import entropy_loss

        return entropy_loss(x, w, temperature=0.5, tile=int(size))[0]

    def trl(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        from trl.kernels.chunked_logprob import ChunkedLogProbFunction

        targets = torch.zeros(len(x), dtype=torch.long)
        settings = (0.5, int(size), None, 1.0, ("log_probs", "entropy"))
        return ChunkedLogProbFunction.apply(x, w, None, targets, *settings)[1].mean()

    ways: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "direct": direct,
        "tiled": tiled,
        "trl": trl,
    }
    # Imports and the first call's buffers are no part of it.
    ways[name](torch.randn(4, 8, requires_grad=True), torch.randn(9, 8, requires_grad=True)).backward()
    peak = Peak()
    before = peak.process.memory_info().rss
    peak.start()
    began = time.perf_counter()
    loss = ways[name](x, w)
    loss.backward()
    seconds = time.perf_counter() - began
    peak.done = True
    peak.join()
    high = max(peak.highest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    assert x.grad is not None and w.grad is not None
    return {
        "seconds": seconds,
        "bytes": high - before,
        "loss": loss.item(),
        "hidden": x.grad.norm().item(),
        "head": w.grad.norm().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--ways", nargs="+", default=["direct", "tiled:256", "tiled:128", "tiled:64", "trl:32768", "trl:4096"]
    )
    parser.add_argument("--once", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    shape = [settings.vocabulary, settings.tokens, settings.hidden, settings.threads]
    if settings.once:
        print(json.dumps(once(settings.once, *shape)))
        return
    sizes = [
        f"--{name}={value}"
        for name, value in zip(("vocabulary", "tokens", "hidden", "threads"), shape, strict=True)
    ]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in settings.ways}
    for repeat in range(settings.repeats):
        for way in settings.ways:
            done = subprocess.run(
                [sys.executable, __file__, "--once", way, *sizes], capture_output=True, text=True, check=True
            )
            found[way].append(json.loads(done.stdout))
            last = found[way][-1]
            said = f"  {repeat + 1}: {way:<10}{last['seconds']:8.1f} s{last['bytes'] / 1e9:7.2f} GB"
            print(said, file=sys.stderr, flush=True)
    first = settings.ways[0]
    head = settings.vocabulary * settings.hidden * 4 / 1e9
    print(
        f"v {settings.vocabulary}, {settings.tokens} tokens, hidden {settings.hidden}, {settings.threads} threads, float32"
    )
    print(f"peak is above the inputs and holds the gradient of the head ({head:.2f} GB)")
    print(
        f"{'way':<11}{'peak GB':>9}{'x ' + first:>10}{'seconds':>9}{'x ' + first:>10}   loss, gradient norms"
    )
    for way, results in found.items():
        pairs = list(zip(results, found[first], strict=True))
        memory = statistics.median(r["bytes"] for r in results)
        seconds = statistics.median(r["seconds"] for r in results)
        space = statistics.median(r["bytes"] / base["bytes"] for r, base in pairs)
        clock = statistics.median(r["seconds"] / base["seconds"] for r, base in pairs)
        same = results[0]
        numbers = f"{same['loss']:.6f} {same['hidden']:.6g} {same['head']:.6g}"
        print(f"{way:<11}{memory / 1e9:>9.2f}{space:>10.3f}{seconds:>9.1f}{clock:>10.2f}   {numbers}")


if __name__ == "__main__":
    main()
