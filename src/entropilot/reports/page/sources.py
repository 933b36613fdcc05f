"""Open what a report is asked for: run folders, logs of other frameworks, and results of `entropilot evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from entropilot.errors import UserError
from entropilot.records import FILE_NAME, Run, read_run

RESULT = "result.json"


class Source(NamedTuple):
    """Hold one thing to report on: a run, or the document that `entropilot evaluate` wrote."""

    run: Run | None
    evaluation: dict[str, Any] | None
    lines: tuple[str, ...] = ()  # how a foreign log was read


def open_source(
    path: Path, entropy: str | None = None, performance: str | None = None, framework: str | None = None
) -> Source:
    """Read a path, whatever it is.

    Args:
        path: a folder of `entropilot train` or `entropilot evaluate`, or the log of another framework.
        entropy: the column of a foreign log taken as entropy.
        performance: the column taken as performance.
        framework: whose log it is, where a folder holds several.

    Raises:
        UserError: it can't be read as any of these.
    """
    if path.is_dir() and (path / RESULT).is_file() and not (path / FILE_NAME).is_file():
        return Source(None, _evaluation(path / RESULT))
    if path.name == RESULT and path.is_file():
        return Source(None, _evaluation(path))
    if (path / FILE_NAME).is_file() or path.name == FILE_NAME:
        return Source(read_run(path), None)
    from entropilot.readers import read

    reading = read(path, framework=framework, entropy=entropy, performance=performance, need_entropy=False)
    reading.run.header["columns"] = {
        "entropy": reading.entropy if reading.has_entropy else None,
        "performance": reading.performance,
        "performance_asked": performance is not None,
        "training_reward": reading.training_reward,
    }
    return Source(reading.run, None, tuple(reading.lines()))


def _evaluation(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} can't be read as a result of `entropilot evaluate`; give its --out folder."
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("results"), list):
        raise UserError(f"{path} holds no results of `entropilot evaluate`; give its --out folder.")
    return document
