"""Random strings, from plain noise to nearly right LaTeX: no crash, no hang, no process or memory left behind."""

from __future__ import annotations

import os
import random
import time

import pytest

pytest.importorskip("math_verify")

from entropilot.answers.clusters import cluster
from entropilot.answers.extraction.extract import RULES, extract
from entropilot.answers.grading import grade
from entropilot.answers.math.judge import Math
from entropilot.answers.math.pool import Pool
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
            assert len(pool.pids()) <= 3  # two that read, and the one that replaces them
            seen.update(pool.pids())
        assert judge.equivalent([(r"\sqrt{8}", r"2\sqrt{2}")]) == [True]
        assert len(judge._replies) <= 20_000
        assert pool.report.counts["crash"] == 0, list(pool.report.last)
        assert len(pool.report.last) <= 100
        seen.update(pool.pids())
    assert not [pid for pid in seen if alive(pid)]
    if files:
        assert len(os.listdir("/proc/self/fd")) <= files


def test_500_random_strings(alive) -> None:
    survive(500, 1, alive)


HUGE = [
    *(f"{base}^{{{power}}}" for base in ("10", "7", "e", r"\pi", "x", "(x+1)", "0.3", r"\sqrt{2}", "i")
      for power in ("10^{6}", "-10^{6}", "3000000", "-3000000", "10^{20}", "9^{9^{9}}", "x", r"\infty")),
    "300000!", "(10^6)!", "3000!!", r"\binom{10^6}{5\cdot10^5}", r"\Gamma(10^7)", r"\sinh(10^8)", r"\tan(10^{30})",
    r"\frac{1}{10^{1000000}}", r"\frac{0}{0}", r"\infty-\infty", r"\frac{1}{0}", "0^{-1}",
    "10^{-10^{10}}", "1e400", "1e-400",
    "9" * 400, "0." + "0" * 399 + "1", "9" * 900, r"\log 0", r"\ln(-1)", r"\sqrt{-1}", "(-8)^{1/3}",
    "10^{1000000}=10^{1000000}",
    "0=1", "1<10^{1000000}", "x=10^{1000000}", r"(1,10^{1000000})", r"\{10^{1000000}\}", "10^{1000000}%", "10^{1000000} cm",
]  # fmt: skip


def generated(count: int, seed: int, every: int) -> list[str]:
    """Noise; and each so many, an answer that grows without bound or has no value, alone or combined."""
    random_ = random.Random(seed)
    texts = noise(count, seed)
    for place in range(0, count, every):
        one, other = random_.choices(HUGE, k=2)
        texts[place] = random_.choice((one, f"{one}+{other}", f"\\frac{{{one}}}{{{other}}}", f"-{one}"))
    return texts


def raises_nothing(count: int, seed: int, every: int) -> None:
    """No answer raises: not in the judge, and not in a cluster or a grade."""
    texts = generated(count, seed, every)
    random_ = random.Random(seed)
    # One worker: two that share a core with other tests are beyond their deadline for want of it.
    with Pool(workers=1, deadline=0.25, budget=None) as pool, Math(pool=pool) as judge:
        for begin in range(0, count, 500):
            batch = texts[begin : begin + 500]
            others = [random_.choice(("0", "5", "1/2", r"\pi", "x")) for _ in batch]
            verdicts = judge.equivalent(
                [*zip(batch, others, strict=True), *zip(batch, batch[1:], strict=False)]
            )
            assert all(type(verdict) is bool for verdict in verdicts)
            groups = [batch[:4], others[:4]]
            assert [sum(group.sizes) for group in cluster(groups, judge)] == [4, 4]
            assert all(right is not None for right in grade(groups, ["5", r"\sqrt{2}"], judge))
        # Deadlines are no fault here; an exception in this process would be.
        assert not set(pool.report.counts) & {"Overflow", "InvalidOperation", "crash"}, list(pool.report.last)


def test_no_generated_answer_raises() -> None:
    raises_nothing(500, 3, 100)


@pytest.mark.slow(seconds=90)
def test_no_generated_answer_of_20_000_raises() -> None:
    raises_nothing(20_000, 4, 200)


@pytest.mark.slow(seconds=20)
def test_2_000_random_strings(alive) -> None:
    survive(2_000, 2, alive)
