"""Summarise runs, one row each: first and last values, and the law fitted to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from entropilot.errors import UserError
from entropilot.law.assess import assess_run
from entropilot.records import ACCURACY, ENTROPY, REWARD, Run, finite_number
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
LEGEND = "acc: held-out accuracy; H: policy entropy, nats; law: R = -a exp(H) + b, ceiling = -a + b"
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
# Where policy entropy is missing, the entropy that frameworks log while they train.
TRAINING_ENTROPY = ("entropy/train_token_mean", "entropy", "actor/entropy", "train/entropy")
NO_ENTROPY = "no fit: entropy was not recorded, and the law needs it"
_SHORT: dict[str | None, str] = {None: MISSING, ACCURACY: "accuracy", REWARD: "training reward"}
# A terminal of 80 columns has no room for these; `fit` prints a and b, the verdict says what R is, the page shows all.
_PAGE_ONLY = ("a", "b", "R is", "seconds")
_SHOWN = tuple(place for place, heading in enumerate(HEADINGS) if heading not in _PAGE_ONLY)


def series(run: Run, name: str) -> tuple[list[int], list[float]]:
    """Return the steps and values of a metric, where it is a finite number."""
    column = run.column(name)
    steps, values = [step for step, _ in column], [value for _, value in column]
    plain = set(map(type, values)) <= {float} and all(map(math.isfinite, values))
    if plain:  # nearly always, and pages have millions
        return steps, values
    points = zip(steps, map(finite_number, values), strict=True)
    kept = [(step, value) for step, value in points if value is not None]
    return [step for step, _ in kept], [value for _, value in kept]


def chosen_columns(run: Run) -> tuple[str, str | None]:
    """Name a run's metrics of entropy and performance: those its log was read by, else the ones we record.

    Where there is no policy entropy, it is the entropy of training. The performance is None where `fit_run` should choose.
    """
    return entropy_name(run) or ENTROPY, _read_as(run, "performance")


def entropy_name(run: Run) -> str | None:
    """Return the metric that stands for entropy in a run; None where it holds none."""
    names = (_read_as(run, "entropy"), ENTROPY, *TRAINING_ENTROPY)
    return next((name for name in names if name is not None and series(run, name)[1]), None)


def _read_as(run: Run, role: str) -> str | None:
    """Return the metric that a log was read by; `entropilot read` writes its name and its source."""
    column = mapping(run.header.get("columns")).get(role)
    name = mapping(column).get("name") if isinstance(column, Mapping) else column
    return str(name) if name else None


def summarise(run: Run) -> dict[str, Any]:
    """Summarise a run: first and last values, the fitted law and its verdict; None for what it does not hold.

    Keys: `name`, `method`, `accuracy_start`, `accuracy_end` (held out), `entropy_start`, `entropy_end` (nats), the
    law's `a`, `b`, `ceiling`, `r2`, `n`, the metric taken as R (`performance`), `ceiling_interval` (95 %), `verdict`
    (one sentence: how far the fit can be trusted, or why there is none), `has_ceiling`, `trusted` (`law.assess`), and
    `seconds` (wall clock). A start is the first value, an end the last.
    """
    summary: dict[str, Any] = {"name": run.name, "method": method_name(run)}
    entropy, performance = chosen_columns(run)
    for key, metric in (("accuracy", ACCURACY), ("entropy", entropy)):
        _, values = series(run, metric)
        summary[f"{key}_start"], summary[f"{key}_end"] = (values[0], values[-1]) if values else (None, None)
    law: dict[str, Any] = dict.fromkeys(("a", "b", "ceiling", "ceiling_interval", "r2", "n", "performance"))
    law |= {"has_ceiling": False, "trusted": False}
    try:
        fit, columns, assessment = assess_run(run, entropy, performance)
    except UserError as error:
        law["verdict"] = NO_ENTROPY if entropy_name(run) is None else f"no fit: {error}"
    else:
        law |= {"a": fit.a, "b": fit.b, "ceiling": fit.ceiling, "r2": fit.r2, "n": fit.n}
        law |= {"performance": columns.performance, "verdict": assessment.verdict}
        law |= {"has_ceiling": assessment.has_ceiling, "trusted": assessment.trusted}
        law["ceiling_interval"] = tuple(fit.interval(0.95)) if assessment.has_ceiling else None
    return summary | law | {"seconds": _seconds(run)}


def summary_table(
    runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]] | None = None
) -> list[list[str]]:
    """Return one row of text per run, in the order of `HEADINGS`; a dash where a run has no value.

    Args:
        runs: what to show.
        summaries: what `summarise` gave for each of them, where it is known already.
    """
    rows = []
    summaries = [summarise(run) for run in runs] if summaries is None else summaries
    for label, summary in zip(labels(runs), summaries, strict=True):
        numbers = [number(summary[key], spec) for key, spec in _FORMATS.items()]
        fitted_on = _SHORT.get(summary["performance"], summary["performance"])
        rows.append([label, summary["method"], *numbers, fitted_on, number(summary["seconds"], ".0f")])
    return rows


def format_table(runs: Sequence[Run], *, verdicts: bool = True) -> str:
    """Format the table as aligned plain text, with the verdict on each run's fit underneath."""
    summaries = [summarise(run) for run in runs]
    rows = summary_table(runs, summaries)
    shown = [[row[place] for place in _SHOWN] for row in [list(HEADINGS), *rows]]
    lines = aligned(shown, (0, 1)).splitlines()
    if verdicts and runs:
        lines += ["", LEGEND]
        others = [(row[0], entropy_name(run)) for row, run in zip(rows, runs, strict=True)]
        lines += [
            f"{label}: H is {one_line(name)}, the training entropy; policy entropy was not recorded"
            for label, name in others
            if name not in (None, ENTROPY)
        ]
        lines += [
            f"{row[0]}: {one_line(summary['verdict'])}" for row, summary in zip(rows, summaries, strict=True)
        ]
    return "\n".join(lines)


def _seconds(run: Run) -> float | None:
    told = finite_number(mapping(run.header.get("end")).get("seconds"))
    if told is not None and not run.header.get("resumed"):  # the end knows its own session only
        return told
    _, values = series(run, "seconds/step")
    return sum(values) if values else None
