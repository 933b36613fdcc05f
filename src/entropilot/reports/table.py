"""One row per run: from where to where, and what the law says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from entropilot.errors import UserError
from entropilot.law.assess import verdict
from entropilot.law.law import ACCURACY, ENTROPY, REWARD, finite_number, fit_run
from entropilot.records import Run
from entropilot.reports.text import MISSING, aligned, labels, mapping, method_name, number, one_line

HEADINGS = (
    "run",
    "method",
    "acc start",
    "acc end",
    "H start",
    "H end",
    "a",
    "b",
    "ceiling",
    "R²",
    "R is",
    "seconds",
)
LEGEND = "acc: held-out accuracy; H: policy entropy at T = 1, nats; law: R = -a exp(H) + b, ceiling = -a + b"
_FORMATS = {
    "accuracy_start": ".3f",
    "accuracy_end": ".3f",
    "entropy_start": ".3f",
    "entropy_end": ".3f",
    "a": ".3f",
    "b": ".3f",
    "ceiling": ".3f",
    "r2": ".2f",
}
_SHORT = {None: MISSING, ACCURACY: "accuracy", REWARD: "training reward"}
_TEXT_COLUMNS = (0, 1, 10)


def series(run: Run, name: str) -> tuple[list[int], list[float]]:
    """Return the steps and values of a metric, where it is a finite number."""
    points = [(step, finite_number(value)) for step, value in run.column(name)]
    kept = [(step, value) for step, value in points if value is not None]
    return [step for step, _ in kept], [value for _, value in kept]


def summarise(run: Run) -> dict[str, Any]:
    """Return what a run comes to; None stands for what it does not hold.

    Keys: `name`, `method`, `accuracy_start`, `accuracy_end` (held out), `entropy_start`, `entropy_end` (nats), the
    law's `a`, `b`, `ceiling`, `r2`, `n`, the metric taken as R (`performance`), `verdict` (one sentence: how far the
    fit can be trusted, or why there is none), and `seconds` (wall clock). A start is the first value, an end the last.
    """
    summary: dict[str, Any] = {"name": run.name, "method": method_name(run)}
    for key, metric in (("accuracy", ACCURACY), ("entropy", ENTROPY)):
        _, values = series(run, metric)
        summary[f"{key}_start"], summary[f"{key}_end"] = (values[0], values[-1]) if values else (None, None)
    law: dict[str, Any] = dict.fromkeys(("a", "b", "ceiling", "r2", "n", "performance"))
    try:
        fit, columns = fit_run(run)
    except UserError as error:
        law["verdict"] = f"no fit: {error}"
    else:
        law |= {"a": fit.a, "b": fit.b, "ceiling": fit.ceiling, "r2": fit.r2, "n": fit.n}
        law |= {"performance": columns.performance, "verdict": verdict(fit, columns.performance)}
    return summary | law | {"seconds": _seconds(run)}


def summary_table(runs: Sequence[Run]) -> list[list[str]]:
    """Return one row of text per run, in the order of `HEADINGS`; a dash where a run has no value."""
    rows = []
    for label, run in zip(labels(runs), runs, strict=True):
        summary = summarise(run)
        numbers = [number(summary[key], spec) for key, spec in _FORMATS.items()]
        fitted_on = _SHORT[summary["performance"]]
        rows.append([label, summary["method"], *numbers, fitted_on, number(summary["seconds"], ".0f")])
    return rows


def format_table(runs: Sequence[Run], *, verdicts: bool = True) -> str:
    """Return the table as aligned plain text, with the verdict on each run's fit underneath."""
    rows = [list(HEADINGS), *summary_table(runs)]
    lines = aligned(rows, _TEXT_COLUMNS).splitlines()
    rows = rows[1:]
    if verdicts and runs:
        lines += ["", LEGEND]
        lines += [
            f"{row[0]}: {one_line(summarise(run)['verdict'])}" for row, run in zip(rows, runs, strict=True)
        ]
    return "\n".join(lines)


def _seconds(run: Run) -> float | None:
    told = finite_number(mapping(run.header.get("end")).get("seconds"))
    if told is not None and not run.header.get("resumed"):  # the end knows its own session only
        return told
    _, values = series(run, "seconds/step")
    return sum(values) if values else None
