"""The tables of the exploration study: rows over seeds as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from entropilot.analysis.seeds import cell, differences, ratio_cell
from entropilot.reports.text import aligned
from experiments.exploration.arms import ARMS, ROLLOUTS

Table = dict[str, list[dict[str, Any]]]


def _column(rows: list[dict[str, Any]], name: str) -> list[float | None]:
    return [row[name] for row in rows]


def tables(found: Table) -> str:
    """Return the study's tables as text."""
    parts = [
        "the set, at the end: exact accuracy at T = 1, greedy, entropy; paired differences to the control\n",
        aligned(_main(found), (0, 1)),
        "\ncurves: accuracy of the training samples / policy entropy, mean over seeds\n",
        aligned(_curves(found)),
        "\nwhat was restrained; the law R = -a exp(H) + b on (entropy, training accuracy)\n",
        aligned(_cells(found, _MECHANISM)),
        "\nthe covariance of all tokens; shares of its sum over the run, quadrants by probability and advantage\n",
        aligned(_cells(found, _COVARIANCE)),
        "\npass@k on the set, exact; base: the model before training\n",
        aligned(_passes(found)),
    ]
    return "\n".join(parts)


def _main(found: Table) -> list[list[str]]:
    rows = [
        [
            "arm",
            "control",
            "accuracy",
            "less control",
            "greedy",
            "H",
            "H / control",
            "H / GRPO at its plateau",
            "fresh greedy",
        ]
    ]
    for arm, runs in found.items():
        control = ARMS[arm].control
        against = found.get(control or "", [])
        rows.append(
            [
                arm,
                control or "–",
                cell(_column(runs, "pool pass@1")),
                cell(differences(_column(runs, "pool pass@1"), _column(against, "pool pass@1")), sign=True)
                if against
                else "–",
                cell(_column(runs, "pool greedy")),
                cell(_column(runs, "entropy")),
                ratio_cell(_column(runs, "entropy"), _column(against, "entropy")) if against else "–",  # type: ignore[arg-type]
                ratio_cell(_column(runs, "entropy at plateau"), _column(found["grpo"], "entropy at plateau")),  # type: ignore[arg-type]
                cell(_column(runs, "fresh greedy")),
            ]
        )
    return rows


def _curves(found: Table) -> list[list[str]]:
    marks = [m for m in next(iter(found.values()))[0]["curve"] if int(m) % 20 == 0 or int(m) == ROLLOUTS]
    rows = [["arm", *(f"rollout {mark}" for mark in marks)]]
    for arm, runs in found.items():
        pairs = [[run["curve"].get(mark, (np.nan, np.nan)) for run in runs] for mark in marks]
        rows.append(
            [arm, *(f"{np.mean([a for a, _ in p]):.3f} / {np.mean([h for _, h in p]):.3f}" for p in pairs)]
        )
    return rows


_MECHANISM = {
    "tokens": ("chosen", ".0f"),
    "share of net covariance": ("restrained", ".2f"),
    "|log ratio| median": ("log ratio median", ".3f"),
    "p99": ("log ratio p99", ".2f"),
    "length": ("peak length", ".1f"),
    "a": ("a", ".3f"),
    "ceiling": ("ceiling", ".3f"),
    "R²": ("r2", ".2f"),
    "forecast RMSE": ("forecast", ".3f"),
    "no change RMSE": ("naive", ".3f"),
}

_COVARIANCE = {
    "mean": ("covariance", ".3f"),
    "> 0": ("covariance positive", ".2f"),
    "top 2 %": ("top 2 %", ".2f"),
    "likely, A > 0": ("quadrant likely_good", ".2f"),
    "likely, A < 0": ("quadrant likely_bad", ".2f"),
    "rare, A > 0": ("quadrant rare_good", ".2f"),
    "rare, A < 0": ("quadrant rare_bad", ".2f"),
    "gain by a third": ("gain by a third", ".2f"),
    "entropy spent by a third": ("spent by a third", ".2f"),
}


def _cells(found: Table, columns: dict[str, tuple[str, str]]) -> list[list[str]]:
    rows = [["arm", *columns]]
    for arm, runs in found.items():
        rows.append([arm, *(cell(_column(runs, name), spec) for name, spec in columns.values())])
    return rows


def _passes(found: Table) -> list[list[str]]:
    ladder = [1, 4, 16, 64, 256, 1024, 4096, 16384]
    rows = [["arm", *(f"k={k}" for k in ladder), "base ahead from k", "problems with p < 0.001"]]
    base = [run["base pass"] for run in found["grpo"]]
    rows.append(["base", *(f"{np.mean([b[str(k)] for b in base]):.3f}" for k in ladder), "–", "–"])
    for arm, runs in found.items():
        crossings = (
            "–" if any(run["crossing"] is None for run in runs) else _range([run["crossing"] for run in runs])
        )
        means = [f"{np.mean([run['pool pass'][str(k)] for run in runs]):.3f}" for k in ladder]
        rows.append([arm, *means, crossings, cell(_column(runs, "lost"))])
    return rows


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
