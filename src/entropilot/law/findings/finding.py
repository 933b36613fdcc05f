"""Define what a finding about a run holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from entropilot.law.findings.signals import Signals

Severity = Literal["warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("warning", "error")


@dataclass(frozen=True)
class RunFinding:
    """Something wrong with a run.

    Attributes:
        name: of the check.
        severity: `error` where training on is a waste, else `warning`.
        steps: from where to where it was seen.
        evidence: one clause with the numbers.
        numbers: the same, by name.
        meaning: what it means.
        advice: what to try.
        healthy: how often the check spoke on healthy public runs, in words.
        also_in: the controls that show it too.
    """

    name: str
    severity: Severity
    steps: tuple[float, float]
    evidence: str
    numbers: dict[str, float]
    meaning: str
    advice: str
    healthy: str = "not measured"
    also_in: tuple[str, ...] = field(default=())

    def document(self) -> dict[str, Any]:
        """Return the finding as plain values, for JSON."""
        return {
            **vars(self),
            "steps": [float(step) for step in self.steps],
            "numbers": {k: v if math.isfinite(v) else None for k, v in self.numbers.items()},
        }

    def sentence(self) -> str:
        """Write the finding in one line, for the record of a run and for whoever watches it."""
        return f"{self.lines()[0]} {self.meaning} To try: {self.advice}"

    def lines(self) -> list[str]:
        """Write the finding for people: evidence, meaning, advice."""
        also = f" The control shows it too: {', '.join(self.also_in)}." if self.also_in else ""
        return [
            f"{self.severity}: {self.name}, steps {self.steps[0]:g} to {self.steps[1]:g}: {self.evidence}.",
            f"  meaning: {self.meaning}{also}",
            f"  try: {self.advice}",
            f"  false alarms: {self.healthy}",
        ]


Check = Callable[[Signals], RunFinding | None]
