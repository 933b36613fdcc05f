"""The tables of the exploration study: rows over seeds as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

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
        aligned(main_table(found), (0, 1)),
        "\ncurves: accuracy of the training samples / policy entropy, mean over seeds\n",
        aligned(curves(found)),
        "\nwhat was restrained; the law R = -a exp(H) + b on (entropy, training accuracy)\n",
        aligned(cells(found, MECHANISM)),
        "\nthe covariance of all tokens; shares of its sum over the run, quadrants by probability and advantage\n",
        aligned(cells(found, COVARIANCE)),
        "\npass@k on the set, exact; base: the model before training\n",
        aligned(passes(found)),
        "\nSpearman's correlation with exact accuracy, over all runs\n",
        aligned(
            [["", "correlation"], *([name, f"{value:.2f}"] for name, value in beside_accuracy(found).items())]
        ),
    ]
    return "\n".join(parts)


def main_table(found: Table) -> list[list[str]]:
    """Return the rows of the first table: exact accuracy, greedy accuracy, entropy, and each beside its control."""
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
                gain(runs, against) if against else "–",
                cell(_column(runs, "pool greedy")),
                cell(_column(runs, "entropy")),
                ratio_cell(_column(runs, "entropy"), _column(against, "entropy")) if against else "–",  # type: ignore[arg-type]
                ratio_cell(_column(runs, "entropy at plateau"), _column(found["grpo"], "entropy at plateau")),  # type: ignore[arg-type]
                cell(_column(runs, "fresh greedy")),
            ]
        )
    return rows


def gain(runs: list[dict[str, Any]], against: list[dict[str, Any]]) -> str:
    """Return by how much accuracy is above that of other runs, paired by seed."""
    return cell(differences(_column(runs, "pool pass@1"), _column(against, "pool pass@1")), sign=True)


def variants(found: Table) -> list[list[str]]:
    """Return the rows of the table of variants: Clip-Cov with another number of updates, of completions, or scope."""
    rows = [["arm", "control", "accuracy", "less control", "H", "share of net covariance"]]
    for arm, runs in found.items():
        control = ARMS[arm].control
        if runs[0]["restrained"] is None or control is None:
            continue
        values = (cell(_column(runs, "entropy")), cell(_column(runs, "restrained"), ".2f"))
        rows.append(
            [
                arm,
                f"{control} {cell(_column(found[control], 'pool pass@1'))}",
                cell(_column(runs, "pool pass@1")),
                gain(runs, found[control]),
                *values,
            ]
        )
    return rows


def beside_accuracy(found: Table) -> dict[str, float]:
    """Return Spearman's correlation, over all runs, of exact accuracy with entropy and with the share of lost problems.

    It is nan where one of them is the same in all runs.
    """
    runs = [run for rows in found.values() for run in rows]
    accuracy = _column(runs, "pool pass@1")

    def correlation(values: list[float | None]) -> float:
        if min(len(set(values)), len(set(accuracy))) < 2:
            return np.nan
        return float(stats.spearmanr(values, accuracy).statistic)  # type: ignore[union-attr]

    return {
        name: correlation(_column(runs, key))
        for name, key in (("entropy at the end", "entropy"), ("share of problems with p < 0.001", "lost"))
    }


def curves(found: Table) -> list[list[str]]:
    """Return the rows of the table of courses: accuracy of the training samples / policy entropy in nats."""
    marks = [m for m in next(iter(found.values()))[0]["curve"] if int(m) % 20 == 0 or int(m) == ROLLOUTS]
    rows = [["arm", *(f"rollout {mark}" for mark in marks)]]
    for arm, runs in found.items():
        pairs = [[run["curve"].get(mark, (np.nan, np.nan)) for run in runs] for mark in marks]
        rows.append(
            [arm, *(f"{np.mean([a for a, _ in p]):.3f} / {np.mean([h for _, h in p]):.3f}" for p in pairs)]
        )
    return rows


MECHANISM = {
    "tokens": ("chosen", ".0f"),
    "share of net covariance": ("restrained", ".2f"),
    "log-ratio, median": ("log ratio median", ".3f"),
    "p99": ("log ratio p99", ".2f"),
    "a": ("a", ".3f"),
    "ceiling": ("ceiling", ".3f"),
    "R²": ("r2", ".2f"),
    "forecast RMSE": ("forecast", ".3f"),
    "no change RMSE": ("naive", ".3f"),
}

COVARIANCE = {
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


def cells(found: Table, columns: dict[str, tuple[str, str]]) -> list[list[str]]:
    """Return the rows of a table of means with intervals, of the columns that are named."""
    rows = [["arm", *columns]]
    for arm, runs in found.items():
        rows.append([arm, *(cell(_column(runs, name), spec) for name, spec in columns.values())])
    return rows


def passes(found: Table) -> list[list[str]]:
    """Return the rows of the table of pass@k on the set, with the k from which the base is ahead."""
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
