"""A run's record made of given rows, for the tests of what the studies measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from entropilot.records import RunWriter


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    writer = RunWriter(folder, {"name": "demo", "recipe": {}})
    for step, row in enumerate(rows, start=1):
        writer.row(step, row)
    writer.end("finished", seconds=1.0)
    writer.close()
    return folder
