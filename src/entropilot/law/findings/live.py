"""Run the checks while a run is training: each finding is told once, when it was seen at two checks in a row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entropilot.law.findings.find import find
from entropilot.law.findings.finding import RunFinding
from entropilot.law.findings.signals import Signals
from entropilot.records import Run

EVERY = 10  # rows between two checks
LEAST = 30  # rows before the first check


class LiveFindings:
    """Watch the rows of a run for findings.

    Args:
        header: of the run, as it is recorded; the recipe's method is read from it.
        rows: what a resumed run had recorded before.
        told: the names of the findings that were told before.
    """

    def __init__(
        self,
        header: Mapping[str, Any] | None = None,
        rows: list[dict[str, Any]] | None = None,
        told: set[str] | None = None,
    ) -> None:
        self._run = Run(Path(), dict(header or {}), list(rows or []))
        self._told = set(told or ())
        self._last: set[str] = set()

    def add(self, step: int, row: Mapping[str, Any]) -> list[RunFinding]:
        """Take a row; return the findings to tell now, most often none."""
        self._run.rows.append({"step": step, **row})
        if len(self._run.rows) < LEAST or len(self._run.rows) % EVERY:
            return []
        findings = find(Signals(self._run))
        names = {finding.name for finding in findings}
        new = [
            finding for finding in findings if finding.name in self._last and finding.name not in self._told
        ]
        self._last = names
        self._told |= {finding.name for finding in new}
        return new
