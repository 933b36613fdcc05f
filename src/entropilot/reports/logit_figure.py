"""Draw the figure of a logit study: one density per model over the same bins, on one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.errors import UserError
from entropilot.files import write_text
from entropilot.reports.figures import COLOURS, DASHES, Figure, plotly_text


def logit_figure(result: Mapping[str, Any], scores: str = "raw") -> Figure:
    """Return the densities of all models of `entropilot.analysis.logits.compare` as a Plotly specification."""
    traces = []
    width = max(model["histogram"]["width"] for model in result["models"])
    for i, model in enumerate(result["models"]):
        edges, density = _density(model["histogram"], width)
        numbers = ", ".join(
            f"{sign} {'–' if model[name]['value'] is None else format(model[name]['value'], '.2f')}"
            for sign, name in (("mean", "mean"), ("sd", "sd"), ("skewness", "skewness"))
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{plotly_text(model['name'])} ({numbers})",
                "x": edges.tolist(),
                "y": density.tolist(),
                "line": {
                    "shape": "hv",
                    "width": 2,
                    "color": COLOURS[i % len(COLOURS)],
                    "dash": DASHES[i % len(DASHES)],
                },
                "hovertemplate": "%{x:.3g}: %{y:.3g}",
            }
        )
    what = "logit" if scores == "raw" else "score (divided by T, the largest only)"
    scales = [
        {"label": label, "method": "relayout", "args": [{"yaxis.type": kind}]}
        for label, kind in (("linear", "linear"), ("logarithmic", "log"))
    ]
    return {
        "data": traces,
        "layout": {
            "xaxis": {"title": {"text": what}, "automargin": True},
            "yaxis": {"title": {"text": "density"}, "automargin": True},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
            "margin": {"t": 90, "r": 20},
            "updatemenus": [
                {
                    "buttons": scales,
                    "type": "buttons",
                    "direction": "right",
                    "x": 1,
                    "xanchor": "right",
                    "y": 1,
                }
            ],
        },
    }


def write_logit_figure(result: Mapping[str, Any], path: Path, scores: str = "raw") -> Path:
    """Write the figure as one HTML page that loads nothing from elsewhere.

    Raises:
        UserError: Plotly is not installed, or the page can't be written.
    """
    try:
        from plotly.io import to_html
    except ImportError as error:
        message = 'A figure needs Plotly, which is not installed; run pip install "entropilot[report]".'
        raise UserError(message) from error
    write_text(path, to_html(logit_figure(result, scores), include_plotlyjs=True, full_html=True), "--figure")
    return path


def _density(histogram: Mapping[str, Any], width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return left edges and densities in bins of a width that is a power of two times the histogram's own."""
    from entropilot.analysis.logits import Histogram

    own = round(np.log2(histogram["width"]))
    first = round(histogram["first_edge"] / histogram["width"])
    counts = np.asarray(histogram["counts"], dtype=np.int64)
    coarse = Histogram(own, first, counts).coarsen(round(np.log2(width)))
    edges = (coarse.first + np.arange(coarse.counts.size + 1)) * coarse.width
    return edges, np.append(coarse.counts, 0) / (coarse.counts.sum() * coarse.width)
