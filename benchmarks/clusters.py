"""Time to cluster answers: two groups of G = 64, growth with distinct answers, and 480 recorded completions.

    python benchmarks/clusters.py [ENTROPILOT_DATA]

The groups are made here, always the same: 42 distinct strings of 64 answers, (a) in 12 classes, half of the strings in
need of algebra, (b) in 42 classes. math-verify asked pair by pair took 7.6 s on such a group.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from entropilot.answers.clusters import Clusters, cluster
from entropilot.answers.extract import extract
from entropilot.answers.judges import build_judge
from entropilot.answers.math_pool import shared_pool


def spellings(n: int) -> list[str]:
    """Of the square root of n: the first four need algebra."""
    return [
        rf"\sqrt{{{n}}}",
        rf"\frac{{{n}}}{{\sqrt{{{n}}}}}",
        rf"\frac{{\sqrt{{{4 * n}}}}}{{2}}",
        rf"\sqrt{{{9 * n}}} - 2\sqrt{{{n}}}",
    ]


def numbers(n: int) -> list[str]:
    """Of n/4: arithmetic is enough."""
    return [rf"\frac{{{n}}}{{4}}", f"{n}/4", f"{n / 4:.2f}", rf"x = \frac{{{2 * n}}}{{8}}"]


def few_classes(offset: int = 0) -> list[str]:
    """64 answers, 42 distinct strings, 12 classes, 21 strings with a root."""
    roots = [text for n in (2, 3, 5, 6, 7) for text in spellings(n + 30 * offset)] + [
        rf"\sqrt{{{10 + 30 * offset}}}"
    ]
    plain = [text for n in (1, 3, 5, 7, 9) for text in numbers(n + 30 * offset)] + [
        rf"\frac{{{11 + 30 * offset}}}{{4}}"
    ]
    distinct = [text for pair in zip(roots, plain, strict=True) for text in pair]
    return [*distinct, *distinct[:22]]


def many_classes(offset: int = 0) -> list[str]:
    """64 answers, 42 distinct strings, 42 classes, 21 of them roots."""
    distinct = [
        text
        for n in range(21)
        for text in (rf"{n + 2 + 30 * offset}\sqrt{{7}} + 1", f"{n + 1 + 30 * offset}/53")
    ]
    return [*distinct, *distinct[:22]]


def growing(count: int, offset: int) -> list[str]:
    """`count` distinct strings in 8 classes, half of them in need of algebra."""
    texts = [
        rf"{k}\sqrt{{{n}}} - {k - 1}\sqrt{{{n}}}" for k in range(2, 2 + count // 8) for n in (2, 3, 5, 7)
    ]
    texts += [f"{k * n + 1000 * offset * k}/{k * 11}" for k in range(2, 2 + count // 8) for n in (1, 2, 3, 4)]
    return [f"{text} + {offset}" if "sqrt" in text else text for text in texts]


def circles(count: int, offset: int) -> list[str]:
    """`count` equations of circles, no two the same."""
    return [f"(x-{k})^2+(y+{k % 7})^2={k + 3 + 1000 * offset}" for k in range(count)]


def timed(name: str, answers: list[str], judge) -> Clusters:
    start = time.perf_counter()
    found = cluster([answers], judge)[0]
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    cluster([answers], judge)[0]
    again = time.perf_counter() - start
    print(
        f"| {name} | {len(answers)} | {len(set(answers))} | {len(found.sizes)} | {seconds:.3f} | {again:.4f} |"
    )
    return found


def main() -> None:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    start = time.perf_counter()
    judge = build_judge("math")
    judge.equivalent([(r"\sqrt{11}", r"\sqrt{13}")])
    pool = shared_pool()
    # Bring every worker up, as a run in progress would have them.
    pool.run([{"describe": rf"\sqrt{{{n}}}"} for n in range(101, 141)])
    print(f"{pool.size} workers warm after {time.perf_counter() - start:.2f} s; load average {load:.1f}\n")
    print("| group | answers | distinct | classes | seconds, strings new, pool warm | seconds, seen before |")
    print("|---|---|---|---|---|---|")
    for offset in range(3):
        timed(f"few classes, strings {offset + 1}", few_classes(offset), judge)
    for offset in range(3):
        timed(f"many classes, strings {offset + 1}", many_classes(offset), judge)
    for offset, count in enumerate((16, 32, 64, 128, 256), start=1):
        timed("growth", growing(count, offset), judge)
    for offset, count in enumerate((16, 32, 64, 128, 256), start=1):
        timed("circles, all distinct", circles(count, offset), judge)
    print(f"\nfailures: {dict(pool.report.counts)}")
    place = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ENTROPILOT_DATA")
    if place:
        completions(Path(place))


def completions(place: Path) -> None:
    lines = (place / "completions" / "qwen_math_8x60.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    shared_pool().close()
    judge = build_judge("math")
    for name in ("cold", "warm"):
        start = time.perf_counter()
        answers = [[extract(completion) for completion in row["completions"]] for row in rows]
        extracted = time.perf_counter() - start
        found = cluster(answers, judge, [row["problem"] for row in rows])
        seconds = time.perf_counter() - start
        count = sum(len(group) for group in answers)
        print(
            f"{count} completions, {name}: {seconds:.3f} s, of it extraction {extracted:.3f} s; "
            f"{sum(len(one.sizes) for one in found)} clusters in {len(found)} groups; workers {len(shared_pool().pids())}"
        )


if __name__ == "__main__":
    main()
