"""Forecast each run from its first part, and hold the forecast against what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from entropilot.errors import UserError
from entropilot.law.forecast import Forecast, forecast_run
from entropilot.records import ACCURACY, REWARD, Run
from entropilot.reports.table import chosen_columns, series
from entropilot.reports.text import mapping, number, one_line

PREFIX = 0.3
RIVALS = {
    "law": "the law",
    "sigmoid": "sigmoid",
    "log_linear": "log-linear",
    "log_step": "linear in log step",
}
MOST_RUNS = 12  # with a row each; of more, groups have one
MOST_IN_GROUPS = 60  # runs forecast for groups; a forecast takes up to half a second
_CAPTION = (
    f'Forecast of the last measurement from the first {PREFIX:.0%} of each run. The forecast is "no change" with an '
    "interval from the errors on public runs, because nothing beat it there; the other columns show what else was "
    "predicted."
)
_CAPTION_OF_GROUPS = (
    f'Forecast of each run\'s last measurement from its first {PREFIX:.0%}: "no change", with an interval that held '
    "about nine of ten ends of public runs."
)


class Forecasts(NamedTuple):
    """Hold the table for the template, and the fan of each run for its charts."""

    table: dict[str, Any] | None
    fans: list[dict[str, dict[str, float]]]


def forecasts_of(runs: Sequence[Run], names: Sequence[str], groups: Sequence[str]) -> Forecasts:
    """Return the forecast of every run from its first 30 %, beside what was measured at its end.

    Where runs share a group, or there are many, the table has a row per group instead, and charts have no fan.
    """
    fans: list[dict[str, dict[str, float]]] = [{} for _ in runs]
    if len(runs) > MOST_RUNS or len(set(groups)) < len(runs):
        return Forecasts(_by_group(runs, groups), fans)
    rows = []
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        ahead = _forecast(run)
        if isinstance(ahead, UserError):
            rows.append([name, "–", "–", "–", "–", f"no forecast: {one_line(ahead, 200)}"])
            continue
        steps, values = series(run, ahead.performance_name)
        fans[place][ahead.performance_name] = _fan(ahead, steps, values)
        low, high = ahead.interval
        said = "; ".join([*ahead.notes, ahead.silent or "the law speaks: " + ahead.verdict])
        rows.append(
            [
                name,
                one_line(ahead.performance_name, 60),
                number(values[-1]) if values else "–",
                f"{number(ahead.performance)} ({number(low)} to {number(high)})",
                _others(ahead.predictions),
                one_line(said, 400),
            ]
        )
    if not rows:
        return Forecasts(None, fans)
    headings = [
        "run",
        "R is",
        "measured at the end",
        "forecast (95 %)",
        "other predictions",
        "the law on that part",
    ]
    return Forecasts({"caption": _CAPTION, "headings": headings, "rows": rows}, fans)


def _forecast(run: Run) -> Forecast | UserError:
    """Return a run's forecast, of its training reward where validations are too few; or why there is none."""
    entropy, performance = chosen_columns(run)
    columns = mapping(run.header.get("columns"))
    asked = performance if columns.get("performance_asked") else None
    reward = str(columns.get("training_reward") or REWARD)
    try:
        return forecast_run(
            run, PREFIX, None, entropy, asked, default=performance or ACCURACY, training_reward=reward
        )
    except UserError as error:
        return error


def _by_group(runs: Sequence[Run], groups: Sequence[str]) -> dict[str, Any] | None:
    """Return the table with a row per group: means over its runs, and how many ends lay within their intervals."""
    rows = []
    left = MOST_IN_GROUPS
    for group in dict.fromkeys(groups):
        members = [run for run, own in zip(runs, groups, strict=True) if own == group]
        some, left = members[:left], left - len(members[:left])
        found = [(run, ahead) for run in some if not isinstance(ahead := _forecast(run), UserError)]
        if not found:
            rows.append([one_line(group, 60), f"0 of {len(members)}", "–", "–", "–", "–"])
            continue
        ends = [series(run, ahead.performance_name)[1][-1] for run, ahead in found]
        within = sum(
            ahead.interval.low <= end <= ahead.interval.high
            for (_, ahead), end in zip(found, ends, strict=True)
        )
        rows.append(
            [
                one_line(group, 60),
                f"{len(found)} of {len(members)}",
                ", ".join(dict.fromkeys(one_line(ahead.performance_name, 60) for _, ahead in found)),
                number(sum(ends) / len(ends)),
                number(sum(ahead.performance for _, ahead in found) / len(found)),
                f"{within} of {len(found)}",
            ]
        )
    if not rows:
        return None
    headings = [
        "group",
        "runs forecast",
        "R is",
        "measured at the end (mean)",
        "forecast (mean)",
        "ends within 95 %",
    ]
    more = f" Only the first {MOST_IN_GROUPS} runs are forecast." if len(runs) > MOST_IN_GROUPS else ""
    return {"caption": _CAPTION_OF_GROUPS + more, "headings": headings, "rows": rows}


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
