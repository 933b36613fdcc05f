"""List what `entropilot diagnose` finds in the runs of a page, for the summary and as marks on the charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from entropilot.law.findings.find import find
from entropilot.law.findings.signals import Signals
from entropilot.records import Run
from entropilot.reports.table import chosen_columns
from entropilot.reports.text import clean

MOST = 60  # findings of all runs that a page lists


def findings_of(runs: Sequence[Run], names: Sequence[str], controls: int = 0) -> list[dict[str, Any]]:
    """Return the findings of every run, errors first; the last `controls` runs are the controls of the others.

    Each has `run` (its place), `run_name` (empty where there is one run), `step` (where it was first seen), `level`,
    `title`, `evidence`, `meaning` and `advice`, as text.
    """
    signals = [Signals(run, *chosen_columns(run)) for run in runs]
    against = signals[len(runs) - controls :]
    listed = []
    for place, (own, name) in enumerate(zip(signals, names, strict=True)):
        for finding in find(own, against if place < len(runs) - controls else ()):
            also = f" The control shows it too: {', '.join(finding.also_in)}." if finding.also_in else ""
            listed.append(
                {
                    "run": place,
                    "run_name": clean(name, 60) if len(runs) > 1 else "",
                    "step": int(finding.steps[0]),
                    "level": finding.severity,
                    "title": clean(finding.name, 60),
                    "evidence": _sentence(finding.evidence),
                    "meaning": _sentence(finding.meaning) + clean(also, 300),
                    "advice": f"What to try: {_sentence(finding.advice)}" + _false_alarms(finding.healthy),
                }
            )
    listed.sort(key=lambda entry: entry["level"] != "error")
    return listed[:MOST]


def _sentence(text: str) -> str:
    text = clean(text, 600).rstrip(".")
    if not text:
        return ""
    metric = "/" in text.split()[0]  # a name is not written with a capital
    return f"{text if metric else text[:1].upper() + text[1:]}."


def _false_alarms(healthy: str) -> str:
    """Say how often a check speaks without need, where that was measured."""
    return "" if healthy.startswith("not measured") else f" False alarms: {healthy}."
