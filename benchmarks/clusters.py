"""Time to cluster answers: two groups of G = 64, growth with distinct answers, and 480 recorded completions.

    python benchmarks/clusters.py [ENTROPILOT_DATA]
    python benchmarks/clusters.py --order ENTROPILOT_DATA      # in how many groups the order of the answers matters

The groups are made here, always the same: 42 distinct strings of 64 answers, (a) in 12 classes, half of the strings in
need of algebra, (b) in 42 classes. math-verify asked pair by pair took 7.6 s on such a group.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from entropilot.answers.clusters import cluster
from entropilot.answers.extraction.extract import extract
from entropilot.answers.judges import build_judge
from entropilot.answers.math.pool import shared_pool
from entropilot.answers.normalise import normalise


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


DISTINCT = {  # kind → the k-th of many answers, no two the same; n makes strings that were not seen before
    "circles": lambda k, n: f"(x-{k})^2+(y+{k % 7})^2={k + 3 + 1000 * n}",
    "fractions": lambda k, n: f"{k + 1000 * n}/997",
    "decimals": lambda k, n: f"{k}.{123457 + n}",
    "roots": lambda k, n: rf"{k + 2}\sqrt{{7}} + {n}",
    "functions": lambda k, n: f"x^{{{k % 16 + 2}}} - {k + 1000 * n}x + 1",
    "sines": lambda k, n: rf"\sin({k + 2}t) + {n}",
    "lines": lambda k, n: f"y = {k}x + {1000 * n + 1}",
    "named numbers": lambda k, n: f"x = {k + 1000 * n}/7",
    "tuples": lambda k, n: f"({k}, {k + n}, \\sqrt{{2}})",
    "tuples of one sum": lambda k, n: f"({k}, {1000 * n - k}, \\sqrt{{2}})",
    "unions": lambda k, n: rf"(-\infty, -\sqrt{{3}}) \cup ({k + 1000 * n}, \infty)",
    "intervals": lambda k, n: rf"[{k + 1000 * n}, \infty)",
    "inequalities": lambda k, n: f"2x < {2 * k + 1 + 1000 * n}",
    "units": lambda k, n: rf"{k + 1000 * n}\text{{ km}}",
    "words": lambda k, n: "a " + "".join(chr(97 + int(digit)) for digit in str(k + 1000 * n)) + "tion",
    "unreadable": lambda k, n: rf"\frac{{x_{{{k}}}}}{{\operatorname{{q{n}}}}} \oplus",
}  # fmt: skip


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the workers (on Linux), which other work does not lengthen."""
    total = time.process_time()
    for pid in shared_pool().pids():
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return total


def timed(name: str, answers: list[str], judge) -> None:
    start, cpu_start = time.perf_counter(), cpu_seconds()
    clusters = cluster([answers], judge)[0]
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu_start
    start = time.perf_counter()
    cluster([answers], judge)
    again = time.perf_counter() - start
    counts = f"{len(answers)} | {len(set(answers))} | {len(clusters.sizes)}"
    print(f"| {name} | {counts} | {cpu:.3f} | {seconds:.3f} | {again:.4f} |", flush=True)


def main() -> None:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    start = time.perf_counter()
    judge = build_judge("math")
    judge.equivalent([(r"\sqrt{11}", r"\sqrt{13}")])
    pool = shared_pool()
    # Bring every worker up, as a run in progress would have them.
    pool.run([{"describe": rf"\sqrt{{{n}}}"} for n in range(101, 141)])
    print(f"{pool.size} workers warm after {time.perf_counter() - start:.2f} s; load average {load:.1f}\n")
    print(
        "| group | answers | distinct | classes | CPU s, strings new, pool warm | seconds | seconds, seen before |"
    )
    print("|---|---|---|---|---|---|---|")
    for offset in range(3):
        timed(f"few classes, strings {offset + 1}", few_classes(offset), judge)
    for offset in range(3):
        timed(f"many classes, strings {offset + 1}", many_classes(offset), judge)
    for offset, count in enumerate((16, 32, 64, 128, 256), start=1):
        timed("growth", growing(count, offset), judge)
    for kind, answer in DISTINCT.items():
        for offset, count in enumerate((16, 32, 64, 128, 256), start=1):
            timed(f"{kind}, all distinct", [answer(k, offset) for k in range(count)], judge)
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


class InIndexOrder:
    """The judge `math` without its precedence: the first answer leads, as in EMPO's code."""

    name = "math, in index order"

    def __init__(self) -> None:
        self.judge = build_judge("math")

    def equivalent(self, pairs, questions=None) -> list[bool]:
        return self.judge.equivalent(pairs, questions)


def order(place: Path, shuffles: int = 20) -> None:
    """Print in how many groups the clusters depend on the order of the answers."""
    lines = (place / "completions" / "qwen_math_8x60.jsonl").read_text(encoding="utf-8").splitlines()
    groups = {
        "recorded completions": [
            [extract(text) for text in json.loads(line)["completions"]] for line in lines
        ],
        "gold answers with roundings, names and units": [*loose(place)],
    }
    draw = random.Random(0)
    print("| groups | judge | depend on the order | of |\n|---|---|---|---|")
    for name, answers in groups.items():
        orders = [[draw.sample(range(len(group)), len(group)) for group in answers] for _ in range(shuffles)]
        for judge in (InIndexOrder(), build_judge("math")):
            partitions: list[set] = [set() for _ in answers]
            for shuffled in orders:
                turned = [[group[i] for i in places] for group, places in zip(answers, shuffled, strict=True)]
                for seen, found, places in zip(partitions, cluster(turned, judge), shuffled, strict=True):
                    members: dict[int, list[int]] = {}
                    for label, index in zip(found.labels, places, strict=True):
                        members.setdefault(label, []).append(index)
                    seen.add(frozenset(map(frozenset, members.values())))
            print(f"| {name} | {judge.name} | {sum(len(seen) > 1 for seen in partitions)} | {len(answers)} |")


def loose(place: Path) -> Iterator[list[str]]:
    """Each gold answer that is a number: as it is, by name, with one unit, and rounded to 6, 7 and 8 digits."""
    names = ("math500", "aime24", "aime25", "amc23", "minerva_math", "olympiadbench")
    golds = {
        str(json.loads(line)["answer"])
        for name in names
        for line in (place / "math" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    }
    plain = [gold for gold in sorted(golds) if normalise(gold).unit is None and normalise(gold).name is None]
    for gold, reply in zip(
        plain, shared_pool().run([{"describe": normalise(gold).body} for gold in plain]), strict=True
    ):
        if not reply or reply["kind"] != "number" or not reply["points"] or reply["points"][0] is None:
            continue
        real, imaginary = (Decimal(part) for part in reply["points"][0])
        if imaginary or not real.is_finite():
            continue
        answers = [gold, gold, f"x = {gold}", rf"{normalise(gold).body}\text{{ km}}"]
        if real != real.to_integral_value() and -6 < real.adjusted() < 6:
            answers += [f"{real:.{digits - 1 - real.adjusted()}f}" for digits in (6, 7, 8)]
        yield answers


if __name__ == "__main__":
    if "--order" in sys.argv:
        order(Path(sys.argv[-1]))
    else:
        main()
