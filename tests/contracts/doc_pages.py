"""The pages of README and docs, their fenced blocks, and the made-up run that snippets and commands read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from entropilot.records import RunWriter

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.parent.name != "reference"]  # made from the code
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>.+?) -->\n+)?^(?P<indent> *)```(?P<kind>\w*)\n(?P<text>.*?)^ *```",
    re.M | re.S,
)


def blocks(page: Path, *kinds: str) -> Iterator[tuple[str | None, str]]:
    """Yield (why it is not run, text) of the fenced blocks of these kinds."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match["kind"] in kinds:
            yield match["why"], match["text"]


def name_of(page: Path) -> str:
    """Return a page's place in the repository, which names its tests."""
    return page.relative_to(ROOT).as_posix()


def record(folder: Path, slope: float = 0.2) -> tuple[list[int], list[float], list[float]]:
    """Write a run that follows R = −slope·exp(H) + 0.9, slightly off; return steps, entropy and accuracy."""
    seed = int(folder.name[-1]) if folder.name[-1].isdigit() else 1
    writer = RunWriter(folder, {"name": folder.name, "recipe": {"method": "kl_cov", "seed": seed}})
    columns: tuple[list[int], list[float], list[float]] = ([], [], [])
    for step in range(1, 41):
        h = 0.6 * math.exp(-step / 15)
        values = (step, h, 0.9 - slope * math.exp(h) + 0.003 * math.sin(step))
        for column, value in zip(columns, values, strict=True):
            column.append(value)
        writer.row(step, {"entropy/policy_T1": h, "validation/accuracy": values[2], "reward/mean": values[2]})
    writer.end("finished", seconds=1.0)
    writer.close()
    return columns
