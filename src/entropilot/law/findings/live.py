"""Run the checks while a run is training: each finding is told once, when it was seen at two checks in a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from entropilot.law.findings.find import find
from entropilot.law.findings.finding import RunFinding
from entropilot.law.findings.signals import Signals
from entropilot.records import Run

LEAST = 30  # rows before the first check
EVERY = 10  # rows between two checks, at least
SHARE = 20  # and a twentieth of the rows: a check reads all of them, so that its cost per row stays bounded


class LiveFindings:
    """Watch the rows of a run for findings.

    Args:
        header: of the run, as it is recorded; the recipe's method is read from it.
        rows: what a resumed run had recorded before; it goes on as if it had never been cut.
        told: the names of the findings that were told before.
    """

    def __init__(
        self,
        header: Mapping[str, Any] | None = None,
        rows: Sequence[Mapping[str, Any]] = (),
        told: Iterable[str] = (),
    ) -> None:
        self._signals = Signals(Run(Path(), dict(header or {}), []))
        self._rows, self._next = 0, LEAST
        self._told = set(told)
        self._last: set[str] = set()
        last = _last_check(len(rows))
        for row in rows:
            self._take(row)
            if self._rows == last:
                self._last = {finding.name for finding in self._check()}

    def add(self, step: int, row: Mapping[str, Any]) -> list[RunFinding]:
        """Take a row; return the findings to tell now, most often none."""
        self._take({"step": step, **row})
        if self._rows < self._next:
            return []
        findings = self._check()
        names = {finding.name for finding in findings}
        new = [
            finding for finding in findings if finding.name in self._last and finding.name not in self._told
        ]
        self._last = names
        self._told |= {finding.name for finding in new}
        return new

    def _take(self, row: Mapping[str, Any]) -> None:
        self._signals.add(row)
        self._rows += 1

    def _check(self) -> list[RunFinding]:
        self._next = _after(self._rows)
        return find(self._signals)


def _after(rows: int) -> int:
    """Return at how many rows the next check is due."""
    return rows + max(EVERY, rows // SHARE)


def _last_check(rows: int) -> int | None:
    """Return at how many rows the last check was; None before the first."""
    last, due = None, LEAST
    while due <= rows:
        last, due = due, _after(due)
    return last
