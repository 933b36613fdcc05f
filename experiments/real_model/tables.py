"""Print the tables of docs/results/real_model.md from the runs that are there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entropilot.analysis.seeds import cell
from entropilot.reports.text import aligned
from experiments.measured import difference_cell
from experiments.real_model import em, rl
from experiments.real_model.base import measured
from experiments.runs import keep

COLUMNS = ("greedy", "avg@16", "pass@16", "entropy", "tokens")
SHIFT = ("skewness", "mean", "top1", "entropy")


def rows_of(out: Path, name: str, seeds: list[int]) -> list[dict[str, Any]]:
    """Return what is there of the runs `name-SEED`."""
    files = {seed: out / f"{name}-{seed}.json" for seed in seeds}
    return [{"seed": seed} | json.loads(file.read_text()) for seed, file in files.items() if file.exists()]


def show(out: Path, seeds: list[int], store: Path | None = None) -> None:
    """Print all tables: mean ± half of the 95 % t interval over the seeds that are there."""
    names = [em.name_of(arm, 0).removesuffix("-0") for arm in em.ARMS] + list(rl.ARMS | rl.LABEL_FREE)
    keep(store, "runs", {name: found for name in names if (found := rows_of(out, name, seeds))})
    base = None
    if (out / "base" / "result.json").exists():
        base = measured("", out / "base")
        lines = [["base", *COLUMNS]]
        lines.append(["value", *(f"{base[name]:.3f}" for name in COLUMNS)])
        ends = [base["intervals"].get(name) for name in COLUMNS]
        lines.append(
            ["95 % over problems", *("–" if e is None else f"{e[0]:.3f} to {e[1]:.3f}" for e in ends)]
        )
        print(aligned(lines), end="\n\n")
        keep(store, "base", {"base": [base]})
    _show_em(out, seeds, base)
    lines = [["arm", "seeds", *COLUMNS]]
    kept = {arm: rows_of(out, arm, seeds) for arm in rl.ARMS | rl.LABEL_FREE}
    for arm, rows in kept.items():
        if rows:
            lines.append([arm, str(len(rows)), *(cell([row[name] for row in rows]) for name in COLUMNS)])
    for arm in ("on_policy", "clip_cov"):
        if kept[arm] and len(kept[arm]) == len(kept["grpo"]):
            cells = [difference_cell(kept[arm], kept["grpo"], name) for name in COLUMNS]
            lines.append([f"{arm} − grpo", str(len(kept[arm])), *cells])
    if len(lines) > 1:
        print(aligned(lines), end="\n\n")
        print("by the records (law of the training reward; forecast from 30 %; Cov(log π, A))\n")
        print(aligned(of_runs(kept)))


def of_runs(kept: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Return a table of what the records of study 2 and 3 say: ends, the law, the forecast, ΔH against covariance.

    A ceiling counts only where the law's verdict trusts it.
    """
    heads = ["arm", "reward", "accuracy", "H", "R² of the law", "ceiling", "trusted", "ends inside"]
    lines = [[*heads, "updates compared", "detrended r", "same sign"]]
    for arm, rows in kept.items():
        runs = [row["run"] for row in rows if "run" in row]
        if not runs:
            continue
        laws, ahead, moved = (
            [run[key] for run in runs if key in run] for key in ("law", "forecast", "dynamics npg")
        )
        trusted = [law for law in laws if law["trusted"]]
        lines.append(
            [
                *(
                    arm,
                    *(cell([run[name]["end"] for run in runs]) for name in ("reward", "accuracy", "entropy")),
                ),
                *(cell([law["r2"] for law in laws]), cell([law["ceiling"] for law in trusted])),
                *(
                    f"{len(trusted)} of {len(laws)}",
                    f"{sum(each['inside'] for each in ahead)} of {len(ahead)}",
                ),
                ", ".join(dict.fromkeys(str(each["updates"]) for each in moved)),
                *(cell([each[name] for each in moved]) for name in ("detrended", "same sign")),
            ]
        )
    return lines


def em_table(
    base: Mapping[str, Any] | None, kept: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[list[str]]:
    """Return the table of study 1, as it stands on the page: means over seeds; of one seed, intervals over problems.

    Args:
        base: what the base model does; None where that is not there.
        kept: by name of an arm, of every seed what each number of updates leaves.
    """
    lines = [["prompt, T", "updates", "greedy", "avg@16", "pass@16", "token entropy, nats"]]
    if base is not None:
        lines.append(["base", "0", *(_value([base], name) for name in COLUMNS[:4])])
    for arm in em.ARMS:
        runs = kept.get(em.name_of(arm, 0).removesuffix("-0"), ())
        for updates in map(str, em.CHECKPOINTS if runs else ()):
            first = arm.replace("T ", "") if updates == str(em.CHECKPOINTS[0]) else ""
            rows = [run[updates] for run in runs]
            lines.append([first, updates, *(_value(rows, name) for name in COLUMNS[:4])])
    return lines


def _value(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    if len(rows) > 1 or name == "entropy":
        return cell([row[name] for row in rows])
    low, high = rows[0]["intervals"][name]
    return f"{rows[0][name]:.3f} ({low:.3f} to {high:.3f})"


def _show_em(out: Path, seeds: list[int], base: Mapping[str, Any] | None) -> None:
    names = [em.name_of(arm, 0).removesuffix("-0") for arm in em.ARMS]
    kept = {name: rows_of(out, name, seeds) for name in names}
    if not any(kept.values()):
        return
    print(aligned(em_table(base, kept), (0,)), end="\n\n")
    shifts = [["arm", "seeds", *SHIFT]]
    for name, runs in kept.items():
        if runs:
            cells = [cell([run["shift"][key]["value"] for run in runs], sign=True) for key in SHIFT]
            shifts.append([name, str(len(runs)), *cells])
    print(f"logits after {em.SHIFT_AT} updates minus the base's\n\n{aligned(shifts, (0,))}", end="\n\n")
