"""Tables and curves of a benchmark, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.analysis.seeds import interval, mean_difference
from entropilot.errors import UserError
from entropilot.files import write_text

Row = dict[str, Any]
KEYS = ["task", "data", "label"]  # what each line of a table begins with
WIDTH = 80  # columns of a terminal


def _cells(rows: list[Row]) -> dict[tuple[str, str, str], dict[str, dict[int, Row]]]:
    found: dict[tuple[str, str, str], dict[str, dict[int, Row]]] = {}
    for row in rows:
        cell = found.setdefault((row["task"], row["kind"], row["label"]), {})
        cell.setdefault(row["method"], {})[row["seed"]] = row
    return found


def mean_interval(values: list[float]) -> str:
    """Return `mean ± half of the 95 % t interval`, in percent, with the number of seeds; one seed has no interval."""
    mean, half = interval(values) or (np.nan, np.nan)
    return f"{100 * mean:.0f}" + (f" ± {100 * half:.0f}" if np.isfinite(half) else "") + f" ({len(values)})"


def _tables(heading: list[str], lines: list[list[str]]) -> str:
    """Return tables in Markdown: KEYS, and behind them as many columns of values as a terminal has room for."""
    keys, rows = len(KEYS), [[*KEYS, *heading], ["---"] * (len(KEYS) + len(heading)), *lines]
    widths = [max(len(row[place]) for row in rows) + len(" | ") for place in range(len(rows[0]))]
    most = max(1, (WIDTH - len("|") - sum(widths[:keys])) // max(widths[keys:]))
    count = -(-len(heading) // most)
    ends = [keys + len(heading) * part // count for part in range(count + 1)]
    return "\n\n".join(
        "\n".join("| " + " | ".join(row[:keys] + row[first:last]) + " |" for row in rows)
        for first, last in pairwise(ends)
    )


def success_table(rows: list[Row], best: bool = False) -> str:
    """Return success in percent by cell and method: the last step, or the best point of the mean curve."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = []
    for (task, kind, label), found in _cells(rows).items():
        first = next(iter(found.values()))
        line = [task, kind, label, mean_interval([row["behaviour"] for row in first.values()])]
        line.append(mean_interval([row["clone"] for row in first.values()]))
        for method in methods:
            runs = list(found.get(method, {}).values())
            if not runs:
                line.append("–")
                continue
            values = [row["success"] for row in runs]
            if best:
                curve = np.array([[value for _, value in row["curve"]] for row in runs])
                values = list(curve[:, curve.mean(0).argmax()])
            line.append(mean_interval(values))
        lines.append(line)
    return _tables(["behaviour", "clone", *methods], lines)


def paired_table(rows: list[Row], against: str = "cpl", tuned_on: Sequence[str] = ()) -> str:
    """Return differences to a method in points, paired by seed; and over tasks, the seed's mean of its cells.

    Args:
        tuned_on: tasks on which settings were chosen; the mean over tasks leaves them out and is that of the others.
    """
    methods = [m for m in dict.fromkeys(row["method"] for row in rows) if m != against]
    lines = []
    pooled: dict[tuple[str, str], dict[str, dict[int, list[float]]]] = {}
    for (task, kind, label), found in _cells(rows).items():
        line = [task, kind, label]
        for method in methods:
            seeds = sorted(set(found.get(method, {})) & set(found.get(against, {})))
            line.append(
                _difference(
                    [found[method][s]["success"] for s in seeds],
                    [found[against][s]["success"] for s in seeds],
                )
            )
            for s in seeds if task not in tuned_on else ():
                cell = pooled.setdefault((kind, label), {}).setdefault(method, {})
                cell.setdefault(s, []).append(found[method][s]["success"] - found[against][s]["success"])
        lines.append(line)
    tasks = {row["task"] for row in rows} - set(tuned_on)
    if len(tasks) > 1:
        for (kind, label), found in pooled.items():
            line = ["the others" if tuned_on else "all tasks", kind, label]
            for method in methods:
                # Only seeds that have every task: else a task that is missing would move the mean.
                whole = [np.mean(v) for v in found.get(method, {}).values() if len(v) == len(tasks)]
                line.append(_difference([float(v) for v in whole], [0.0] * len(whole)))
            lines.append(line)
    return _tables([f"{m} − {against}" for m in methods], lines)


def data_table(rows: list[Row]) -> str:
    """Return what the data sets of each cell are: the authors' success, how far apart they are, what the judge is worth."""
    lines = []
    for (task, kind, label), found in _cells(rows).items():
        runs = [row for row in next(iter(found.values())).values() if "authors_solve" in row]
        if not runs:
            continue
        line = [task, kind, label, " and ".join(f"{100 * rate:.0f}" for rate in runs[0]["authors_solve"])]
        for key, form in (("authors_kl", "{:.2f}"), ("beats_script", "{:.0%}")):
            known = [row[key] for row in runs if key in row]
            line.append(form.format(np.mean(known)) if known else "–")
        lines.append(line)
    return _tables(["authors solve, %", "KL, nats a step", "beat the script"], lines)


def _difference(one: list[float], other: list[float]) -> str:
    if not one:
        return "–"
    mean, half = mean_difference(one, other)
    interval = f" ± {100 * half:.0f}" if np.isfinite(half) else ""
    return f"{100 * mean:+.0f}{interval} ({len(one)})"


def write_curves(rows: list[Row], path: Path, title: str) -> Path:
    """Write one self-contained page of success against steps, a band of ± one standard error over seeds.

    Raises:
        UserError: plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise UserError("Curves need plotly; install it with: pip install 'entropilot[report]'") from error
    cells = _cells(rows)
    names = [" ".join(cell) for cell in cells]
    width = min(2, len(cells))
    figure = make_subplots(-(-len(cells) // width), width, subplot_titles=names, shared_yaxes=True)
    colours = ["#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for place, found in enumerate(cells.values()):
        at = {"row": place // width + 1, "col": place % width + 1}
        for method, runs in found.items():
            colour = colours[methods.index(method) % len(colours)]
            steps = [0, *(step for step, _ in next(iter(runs.values()))["curve"])]
            values = np.array([[run["clone"], *(v for _, v in run["curve"])] for run in runs.values()])
            mean = values.mean(0)
            error = values.std(0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.zeros_like(mean)
            band = np.concatenate([mean + error, (mean - error)[::-1]])
            figure.add_trace(
                go.Scatter(
                    x=[*steps, *steps[::-1]],
                    y=band,
                    fill="toself",
                    line={"width": 0},
                    opacity=0.2,
                    fillcolor=colour,
                    hoverinfo="skip",
                    showlegend=False,
                    legendgroup=method,
                ),
                **at,
            )
            figure.add_trace(
                go.Scatter(
                    x=steps,
                    y=mean,
                    name=method,
                    line={"color": colour},
                    legendgroup=method,
                    showlegend=place == 0,
                ),
                **at,
            )
    figure.update_yaxes(range=[0, 1.02], title="success")
    figure.update_xaxes(title="preference steps")
    figure.update_layout(title=title, height=320 * (-(-len(cells) // width)) + 120, template="plotly_white")
    write_text(path, figure.to_html(include_plotlyjs=True))
    return path
