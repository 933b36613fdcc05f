"""Forecast each run from its first part, and hold the forecast against what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from entropilot.errors import UserError
from entropilot.law.forecast import Forecast, forecast_run
from entropilot.records import ACCURACY, Run
from entropilot.reports.table import chosen_columns, series
from entropilot.reports.text import number, one_line

PREFIX = 0.3
RIVALS = {
    "law": "the law",
    "sigmoid": "sigmoid",
    "log_linear": "log-linear",
    "log_step": "linear in log step",
}
MOST_RUNS = 12  # of more runs no table is made: a page of groups has no room for it


class Forecasts(NamedTuple):
    """Hold the table for the template, and the fan of each run for its charts."""

    table: dict[str, Any] | None
    fans: list[dict[str, dict[str, float]]]


def forecasts_of(runs: Sequence[Run], names: Sequence[str]) -> Forecasts:
    """Return the forecast of every run from its first 30 %, beside what was measured at its end."""
    fans: list[dict[str, dict[str, float]]] = [{} for _ in runs]
    rows = []
    if len(runs) > MOST_RUNS:
        return Forecasts(None, fans)
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        entropy, performance = chosen_columns(run)
        try:
            ahead = forecast_run(run, PREFIX, None, entropy, performance, default=performance or ACCURACY)
        except UserError as error:
            rows.append([name, "–", "–", "–", "–", f"no forecast: {one_line(error, 200)}"])
            continue
        steps, values = series(run, ahead.performance_name)
        fans[place][ahead.performance_name] = _fan(ahead, steps, values)
        low, high = ahead.interval
        rows.append(
            [
                name,
                one_line(ahead.performance_name, 60),
                number(values[-1]) if values else "–",
                f"{number(ahead.performance)} ({number(low)} to {number(high)})",
                _others(ahead.predictions),
                one_line(ahead.silent or "the law speaks: " + ahead.verdict, 300),
            ]
        )
    if not rows:
        return Forecasts(None, fans)
    caption = (
        f'Forecast of the last measurement from the first {PREFIX:.0%} of each run. The forecast is "no change" with a '
        "calibrated interval, because nothing beat it on public runs; the other columns show what else was predicted."
    )
    headings = [
        "run",
        "R is",
        "measured at the end",
        "forecast (95 %)",
        "other predictions",
        "the law on that part",
    ]
    return Forecasts({"caption": caption, "headings": headings, "rows": rows}, fans)


def _others(predictions: Mapping[str, float]) -> str:
    said = [
        f"{RIVALS.get(name, name)} {number(value)}"
        for name, value in predictions.items()
        if name != "no change"
    ]
    return "; ".join(said) or "–"


def _fan(ahead: Forecast, steps: Sequence[int], values: Sequence[float]) -> dict[str, float]:
    """Return where the fan begins and ends; it begins at the last value of the part that was used."""
    first, last = steps[0], steps[-1]
    cut = first + PREFIX * (last - first)
    known = [value for step, value in zip(steps, values, strict=True) if step <= cut]
    return {
        "from": float(cut),
        "to": float(ahead.last_step),
        "start": float(known[-1] if known else ahead.performance),
        "value": float(ahead.performance),
        "low": float(ahead.interval.low),
        "high": float(ahead.interval.high),
    }
