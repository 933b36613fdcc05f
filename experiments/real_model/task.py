"""The task of the experiments: sums of two numbers from 2 to 29 as raw text, after one worked example.

It was chosen by what the base model does, before any method ran: short prompts, right sometimes (pass@1 between 0.1 and
0.4) and nearly always within 64 tries. The files in recipes/smollm2 hold each of the 783 problems besides the example once.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from entropilot.files import write_lines
from experiments.runs import ROOT

FOLDER = ROOT / "recipes" / "smollm2"
SIZES = {"train": 591, "validation": 64, "test": 128}
EXAMPLE = "5 + 8 = 13\n"  # before every problem; it is in none of the files
MAX_TOKENS = 8
NUMBERS = range(2, 30)


def file_of(split: str) -> Path:
    """Return the file of a split."""
    return FOLDER / f"sums_{split}.jsonl"


def problems() -> dict[str, list[dict[str, str]]]:
    """Return the problems of every split; no problem is in two of them."""
    pairs = [(a, b) for a in NUMBERS for b in NUMBERS if (a, b) != (5, 8)]
    random.Random(0).shuffle(pairs)
    rows = [{"prompt": f"{a} + {b} =", "answer": str(a + b)} for a, b in pairs]
    splits, start = {}, 0
    for name, size in SIZES.items():
        splits[name] = rows[start : start + size]
        start += size
    return splits


def write() -> list[Path]:
    """Write the files; return their paths."""
    for name, rows in problems().items():
        write_lines(file_of(name), rows)
    return [file_of(name) for name in SIZES]


def read(split: str) -> list[dict[str, str]]:
    """Return the problems of a file."""
    return [json.loads(line) for line in file_of(split).read_text().splitlines()]


# How every command of the experiments turns a problem into text, and where a completion ends.
TEXT = ("--template", "none", "--prefix", EXAMPLE, "--stop", "\n", "--max-tokens", MAX_TOKENS)
