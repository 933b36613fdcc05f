"""The charts of the report, as plain Plotly specifications: mappings that plotly.js draws in the reader's browser.

Colours of text and grid are left out: `page.js` takes them from the page, light or dark.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from entropilot.records import ACCURACY, ENTROPY, REWARD, Run
from entropilot.reports.table import chosen_columns, series

Figure = dict[str, Any]

# Mid tones that are read on white and on near-black; colour is never the only sign, so each has a symbol and a dash.
COLOURS = ("#2f7ed8", "#d97a1f", "#1f9d78", "#b8559f", "#7b6fd6", "#8a8a2c", "#c8504f", "#2f9fb3")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "hexagon")
GLYPHS = ("●", "■", "◆", "▲", "▼", "✚", "✖", "⬢")
DASHES = ("solid", "dash", "dot", "dashdot")
_MANY = 60  # points from which a line goes without markers


def plotly_text(text: str) -> str:
    """Escape a name for Plotly, which reads tags and entities in names, titles and hover labels."""
    return html.escape(text, quote=False)


def over_steps(runs: Sequence[Run], names: Sequence[str], metric: str, unit: str) -> Figure | None:
    """Return one metric over optimiser steps, a line per run; None where no run holds it."""
    traces = []
    for i, run in enumerate(runs):
        steps, values = series(run, chosen_columns(run)[0] if metric == ENTROPY else metric)
        if values:
            hover = "step %{x}<br>%{y:.4g} " + plotly_text(unit)
            few = len(values) <= _MANY
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if few else "lines",
                    "name": plotly_text(names[i]),
                    "legendgroup": f"run{i}",
                    "x": steps,
                    "y": values,
                    "line": {"color": _pick(COLOURS, i), "dash": _pick(DASHES, i), "width": 2},
                    "marker": {"color": _pick(COLOURS, i), "symbol": _pick(SYMBOLS, i), "size": 6},
                    "hovertemplate": hover,
                }
            )
    if not traces:
        return None
    y_axis: dict[str, Any] = {"title": {"text": plotly_text(unit)}}
    if metric == ENTROPY:
        y_axis["rangemode"] = "tozero"
    return {"data": traces, "layout": _layout({"title": {"text": "optimiser step"}}, y_axis)}


def law(runs: Sequence[Run], names: Sequence[str], summaries: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Return performance on entropy, with the fitted curve and its ceiling at H = 0; None where nothing was fitted.

    A fit that is not to be trusted has a dotted curve and an open star; where a < 0 there is no ceiling to mark.
    """
    traces: list[dict[str, Any]] = []
    for i, (run, summary) in enumerate(zip(runs, summaries, strict=True)):
        metric = summary["performance"]
        if metric is None:
            continue
        points = paired(run, metric)
        colour, group, name = _pick(COLOURS, i), f"run{i}", names[i]
        if metric != ACCURACY:
            name += f" ({metric})"
        base = {"type": "scatter", "legendgroup": group, "name": plotly_text(name)}
        traces.append(
            base
            | {
                "mode": "markers",
                "x": [h for _, h, _ in points],
                "y": [r for _, _, r in points],
                "customdata": [step for step, _, _ in points],
                "marker": {"color": colour, "symbol": _pick(SYMBOLS, i), "size": 7, "opacity": 0.75},
                "hovertemplate": "step %{customdata}<br>H %{x:.3f} nats<br>R %{y:.3f}",
            }
        )
        good = summary["trusted"]
        grid = np.linspace(0.0, max(h for _, h, _ in points), 80)
        curve = summary["b"] - summary["a"] * np.exp(grid)
        traces.append(
            base
            | {
                "mode": "lines",
                "x": grid.tolist(),
                "y": curve.tolist(),
                "line": {"color": colour, "width": 2, "dash": _pick(DASHES, i) if good else "dot"},
                "opacity": 1.0 if good else 0.55,
                "hoverinfo": "skip",
            }
        )
        if summary["has_ceiling"]:
            traces.append(
                base
                | {
                    "mode": "markers+text" if len(runs) == 1 else "markers",
                    "x": [0.0],
                    "y": [summary["ceiling"]],
                    "text": [f"\u00a0\u00a0ceiling {summary['ceiling']:.3f}"],
                    "textposition": "middle right",
                    "marker": {
                        "color": colour,
                        "symbol": "star" if good else "star-open",
                        "size": 14,
                        "line": {"color": colour, "width": 1.5},
                    },
                    "cliponaxis": False,
                    "hovertemplate": "ceiling %{y:.3f} at H = 0",
                }
            )
    if not traces:
        return None
    metrics = {summary["performance"] for summary in summaries} - {None}
    if metrics == {ACCURACY}:
        title = "R: held-out accuracy"
    elif metrics == {REWARD}:
        title = "R: mean training reward"
    else:
        title = "R: accuracy or training reward"
    shown = [y for trace in traces if trace["mode"] != "lines" for y in trace["y"]]
    margin = 0.08 * (max(shown) - min(shown)) or 0.05
    widest = max(x for trace in traces for x in trace["x"])
    layout = _layout(
        {"title": {"text": "policy entropy H, nats"}, "range": [-0.04 * widest, 1.04 * widest]},
        {"title": {"text": title}, "range": [min(shown) - margin, max(shown) + margin]},
    )
    return {"data": traces, "layout": layout}


def paired(run: Run, metric: str) -> list[tuple[int, float, float]]:
    """Return (step, entropy, performance) of the rows that hold both as finite numbers: what `fit_run` fitted."""
    entropy = dict(zip(*series(run, chosen_columns(run)[0]), strict=True))
    return [
        (step, entropy[step], value)
        for step, value in zip(*series(run, metric), strict=True)
        if step in entropy
    ]


def glyph(i: int) -> tuple[str, str]:
    """Return the colour and the character that stand for a run outside of the charts."""
    return _pick(COLOURS, i), _pick(GLYPHS, i)


def _pick(choices: Sequence[str], i: int) -> str:
    return choices[i % len(choices)]


def _layout(x_axis: Mapping[str, Any], y_axis: Mapping[str, Any]) -> dict[str, Any]:
    # No legend: the page has one for all charts, whose buttons show and hide a run in each of them.
    return {
        "height": 330,
        "margin": {"l": 60, "r": 16, "t": 16, "b": 48},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"namelength": 40},
        "xaxis": {"automargin": True, **x_axis},
        "yaxis": {"automargin": True, **y_axis},
    }
