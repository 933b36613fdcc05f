"""Stored rows, tables of pages and running text, for the tests that compare figures with where they come from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from entropilot.answers import spellings

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
SCREEN = {
    "EMPO": "empo",
    "TTRL": "ttrl",
    "EMPO without scaling": "empo_unscaled",
    "EMPO, answer mask": "answer_mask",
    "SCRL": "scrl",
    "TTRL, slow teacher": "ttrl_teacher",
    "gold": "gold_reward",
    "random": "random_reward",
}


def stored(name: str, part: str) -> dict[str, list[Any]]:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))[part]


def table(page: str, heading: str) -> dict[str, list[str]]:
    """The first table below a heading: the cells of each row by its first one, without bold, code and links."""
    lines = (RESULTS / page).read_text(encoding="utf-8").partition(f"## {heading}")[2].splitlines()
    begin = next(place for place, line in enumerate(lines) if line.startswith("|"))
    rows = {}
    for line in lines[begin:]:
        if not line.startswith("|"):
            break
        name, *cells = (text.strip().replace("**", "") for text in line.strip("|").split("|"))
        rows[name.strip("[").partition("](")[0].strip("`")] = cells
    return dict(list(rows.items())[2:])  # behind the heads and the rule


def column(rows: list[dict[str, Any]], key: str) -> list[Any]:
    return [row[key] for row in rows]


def prose(path: str) -> str:
    """Return a page as one line."""
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())


WORDS = {number: word for word, number in spellings._WORDS.items()} | {0: "none"}


def in_words(count: int) -> str:
    """Return a small count as a word, as the pages write it."""
    return WORDS[count]


SIGNED = re.compile(r"[+-](\d\.\d+) ± (\d\.\d+)")


def markdown(rows: list[list[str]], bold: bool = False) -> list[str]:
    """Return the rows of a study's table as a page has them, on demand with differences in bold that leave out 0."""

    def shown(text: str) -> str:
        found = SIGNED.fullmatch(text)
        text = text.replace("-0.", "−0.")
        return f"**{text}**" if bold and found and float(found[1]) > float(found[2]) else text

    return [f"| {' | '.join(map(shown, row))} |" for row in rows]
