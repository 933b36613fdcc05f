"""Write the charts of a report as files for a paper: PNG, SVG or CSV, one per metric."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from entropilot.errors import UserError
from entropilot.files import written_whole
from entropilot.records import ACCURACY, ENTROPY, REWARD, Run
from entropilot.reports.figures import COLOURS
from entropilot.reports.page.groups import group_names
from entropilot.reports.page.series import columns_of, definitions_of
from entropilot.reports.table import entropy_name
from entropilot.reports.text import labels

Format = Literal["png", "svg", "csv"]
FORMATS = ("png", "svg", "csv")


def export(runs: Sequence[Run], folder: Path, kind: Format, group_by: str | None = None) -> list[Path]:
    """Write a chart per metric into a folder: entropy, accuracy and reward as pictures, every metric as CSV.

    Args:
        runs: the runs.
        folder: is made if it does not exist.
        kind: png, svg or csv.
        group_by: as in a report: lines are then means over the runs of a group, with their 95 % t interval.

    Raises:
        UserError: there is nothing to draw, Matplotlib is missing, or the folder can't be written.
    """
    names = labels(runs)
    groups = group_names(runs, group_by) if group_by else list(names)
    columns = [columns_of(run) for run in runs]
    metrics = sorted({name for _, values in columns for name in values})
    if kind != "csv":
        entropy = {name for run in runs if (name := entropy_name(run))} or {ENTROPY}
        metrics = [name for name in metrics if name in (*entropy, ACCURACY, REWARD)]
    if not metrics:
        raise UserError("There is nothing to export: no run holds a metric of the report.")
    written = []
    for metric in metrics:
        out = folder / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', metric)[:100]}.{kind}"
        if kind == "csv":
            _csv(out, metric, names, columns)
        else:
            _picture(out, kind, metric, runs, groups, columns)
        written.append(out)
    return written


def _csv(
    out: Path, metric: str, names: Sequence[str], columns: Sequence[tuple[list[int], dict[str, Any]]]
) -> None:
    steps = sorted({step for own, values in columns if metric in values for step in own})
    tables = [dict(zip(own, values.get(metric, ()), strict=False)) for own, values in columns]
    with written_whole(out) as file:
        lines: list[str] = []
        # A name that begins with one of these would be a formula in a spreadsheet.
        writer = csv.writer(_Lines(lines))
        writer.writerow(["step", *(f"'{name}" if name[:1] in "=+-@" else name for name in names)])
        for step in steps:
            values = [table.get(step) for table in tables]
            writer.writerow([step, *("" if v is None or np.isnan(v) else repr(float(v)) for v in values)])
        file.write("".join(lines).encode("utf-8", "replace"))


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, text: str) -> None:
        self._lines.append(text)


def _picture(
    out: Path,
    kind: Format,
    metric: str,
    runs: Sequence[Run],
    groups: Sequence[str],
    columns: Sequence[tuple[list[int], dict[str, Any]]],
) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            'Pictures need Matplotlib, which is not installed; run pip install "entropilot[report]", or export csv.'
        ) from error
    from entropilot.analysis.seeds import interval

    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    for place, group in enumerate(dict.fromkeys(groups)):
        members = [
            dict(zip(own, values[metric], strict=True))
            for (own, values), name in zip(columns, groups, strict=True)
            if name == group and metric in values
        ]
        members = [{step: v for step, v in member.items() if np.isfinite(v)} for member in members]
        steps = sorted(set.intersection(*(set(member) for member in members))) if members else []
        if not steps:
            continue
        colour = COLOURS[place % len(COLOURS)]
        means = [interval([member[step] for member in members]) for step in steps]
        centre = np.array([m[0] for m in means if m is not None])
        # A dollar would begin mathematics.
        axes.plot(steps, centre, color=colour, label=group.replace("$", r"\$"), linewidth=1.5)
        if len(members) > 1:
            half = np.array([m[1] for m in means if m is not None])
            axes.fill_between(steps, centre - half, centre + half, color=colour, alpha=0.18, linewidth=0)
    unit = definitions_of(runs).get(metric, {}).get("unit", "")
    axes.set(xlabel="step", ylabel=f"{metric}{f', {unit}' if unit else ''}".replace("$", r"\$"))
    axes.grid(alpha=0.3)
    if len(set(groups)) > 1:
        axes.legend(fontsize=8)
    with written_whole(out) as file:
        figure.savefig(file, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)
