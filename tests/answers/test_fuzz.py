"""Random strings, from plain noise to nearly right LaTeX: no crash, no hang, no process or memory left behind."""

from __future__ import annotations

import os
import random
import time

import pytest

pytest.importorskip("math_verify")

from entropilot.answers.clusters import cluster
from entropilot.answers.extract import RULES, extract
from entropilot.answers.math_judge import Math
from entropilot.answers.math_pool import Pool
from entropilot.answers.normalise import normalise

PIECES = [
    *"0123456789", *"abcefinxyENCI", *"+-*/^_=<>!|.,;:'\"%$&~#@?", "(", ")", "[", "]", "{", "}", "\\", " ", "\n", "\x00",
    r"\frac", r"\dfrac{1}{2}", r"\frac12", r"\sqrt", r"\sqrt[3]{", r"\left(", r"\right]", r"\{", r"\}",
    r"\text{", r"\mbox{ cm}^2",
    r"\boxed{", r"\pi", r"\infty", r"\cup", r"\in", r"\le", r"\pm", r"\circ", r"^\circ", r"\cdot", r"\times 10^{",
    r"\%", r"\$",
    r"\begin{pmatrix}", r"\end{pmatrix}", r"\\", r"\sin", r"\log_", r"\sum_{k=1}^{", r"\int_0^", r"\binom{",
    r"\lfloor", r"\rfloor",
    "1e9", "^{9", "!!", "####", "<answer>", "</answer>", "the answer is ", "Answer: ", "é", "π", "∞", "²",
    "\ud800", "\udfff", "😀",
    "\u202e", "１", "٣", "İ",
]  # fmt: skip


def noise(count: int, seed: int) -> list[str]:
    """Half random pieces, a quarter damaged real answers, a quarter random code points."""
    random_ = random.Random(seed)
    sound = [
        r"\frac{3\sqrt{3}}{4}",
        r"(-\infty, 2) \cup (3, \infty)",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        "x^3+3x-6",
        "1,-2",
        r"5\%",
    ]
    texts = []
    for number in range(count):
        if number % 4 < 2:
            text = "".join(random_.choices(PIECES, k=random_.randint(1, 25)))
        elif number % 4 == 2:
            text = list(random_.choice(sound))
            for _ in range(random_.randint(1, 3)):
                text[random_.randrange(len(text))] = random_.choice(PIECES)
            text = "".join(text)
        else:
            text = "".join(
                chr(random_.choice((random_.randrange(128), random_.randrange(0x11000))))
                for _ in range(random_.randint(0, 40))
            )
        texts.append(text)
    return texts


def survive(count: int, seed: int, alive) -> None:
    texts = noise(count, seed)
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    seen: set[int] = set()
    with Pool(workers=2, deadline=2.0) as pool, Math(pool=pool) as judge:
        for begin in range(0, count, 100):
            batch = texts[begin : begin + 100]
            for text in batch:
                for rule in RULES:
                    found = extract(text, rule)
                    assert found is None or found.strip()
                normal = normalise(text)
                assert normal.meets(normal)
            pairs = list(zip(batch, batch[1:] + batch[:1], strict=True))
            start = time.monotonic()
            verdicts = judge.equivalent(pairs)
            # At most every string overruns on each of two workers, with a new worker's start after each.
            assert time.monotonic() - start < 100 * 4
            assert all(type(verdict) is bool for verdict in verdicts)
            assert judge.equivalent([(b, a) for a, b in pairs]) == verdicts
            assert all(judge.equivalent([(text, text) for text in batch]))
            group = cluster([batch], judge)[0]
            assert sum(group.sizes) == len(batch)
            assert len(pool.pids()) <= 2
            seen.update(pool.pids())
        assert judge.equivalent([(r"\sqrt{8}", r"2\sqrt{2}")]) == [True]
        assert len(judge._described) <= 10_000
        assert pool.report.counts["crash"] == 0, list(pool.report.last)
        assert len(pool.report.last) <= 100
        seen.update(pool.pids())
    assert not [pid for pid in seen if alive(pid)]
    if files:
        assert len(os.listdir("/proc/self/fd")) <= files


def test_500_random_strings(alive) -> None:
    survive(500, 1, alive)


@pytest.mark.slow
def test_10_000_random_strings(alive) -> None:
    survive(10_000, 2, alive)
