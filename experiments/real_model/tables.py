"""Print the tables of docs/results/real_model.md from the runs that are there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.analysis.passk import paired_difference
from entropilot.analysis.seeds import cell
from entropilot.cli.common import counted
from entropilot.evaluation.comparison import GRADED, read_graded
from entropilot.reports.text import aligned
from experiments.measured import difference_cell
from experiments.real_model import em, rl
from experiments.real_model.base import colder, measured
from experiments.real_model.curves import draw
from experiments.runs import keep

COLUMNS = ("greedy", "avg@16", "pass@16", "entropy", "tokens")
# The arms of study 1: the name of their folders, and of tables.
EM = {em.name_of(arm, 0).removesuffix("-0"): f"EM, {arm.replace('T ', '')}" for arm in em.ARMS}
COMPARED = (("on_policy", "grpo"), ("clip_cov", "grpo"), ("empo", "gold"))
SHIFT = ("skewness", "mean", "top1", "entropy")


def rows_of(out: Path, name: str, seeds: list[int]) -> list[dict[str, Any]]:
    """Return what is there of the runs `name-SEED`."""
    rows = []
    for seed in seeds:
        file, shift = out / f"{name}-{seed}.json", out / f"{name}-{seed}-shift.json"
        if file.exists():
            rows.append({"seed": seed} | json.loads(file.read_text()))
        if file.exists() and shift.exists():
            rows[-1]["shift"] = json.loads(shift.read_text())["differences"][0]
    return rows


def show(out: Path, seeds: list[int], store: Path | None = None) -> None:
    """Print all tables: mean ± half of the 95 % t interval over the seeds that are there, and in the file of rows."""
    names = [*EM, *rl.ARMS, *rl.LABEL_FREE]
    kept = keep(store, "runs", {name: found for name in names if (found := rows_of(out, name, seeds))})
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
    if (out / "base-T0.5" / "result.json").exists():
        cold = colder("", out / "base-T0.5")
        print("base at T = 0.5:", *(f"{name} {cold[name]:.3f}" for name in ("avg@16", "pass@16")), end="\n\n")
        keep(store, "base", {"base at T = 0.5": [cold]})
    if any(name.startswith("em-") for name in kept):
        print(aligned(em_table(base, kept), (0,)), end="\n\n")
    if paired := keep(store, "over problems", over_problems(out, seeds)):
        print("less the base, over the same problems (95 % over problems)\n")
        print(aligned(problems_table(paired), (0,)), end="\n\n")
    if len(shifts := shift_table(kept)) > 1:
        print(f"logits less the base's, of EM after {em.SHIFT_AT} updates\n")
        print(aligned(shifts, (0,)), end="\n\n")
    if any(arm in kept for arm in rl.ARMS | rl.LABEL_FREE):
        print(aligned(ends_table(kept)), end="\n\n")
        print("by the records (law of the training reward; forecast from 30 %; Cov(log π, A))\n")
        studied = {arm: kept[arm] for arm in rl.ARMS | rl.LABEL_FREE if arm in kept}
        print(aligned(of_runs(studied)))
        if store is not None:
            draw(studied, store.with_suffix(".svg"))


def over_problems(out: Path, seeds: list[int]) -> dict[str, dict[str, Any]]:
    """Return by how much models differ from the base, and from each other, on the same problems.

    A problem's value is its mean over the seeds whose samples are there; the interval is a bootstrap over problems, so
    that it holds what other problems of the kind would give, which an interval over seeds does not.
    """
    if not (out / "base" / GRADED).exists():
        return {}
    base = _by_problem(out / "base")
    places = {f"{name}, {n}": (name, f"{name}-{{}}/after-{n}") for name in EM for n in em.CHECKPOINTS}
    places |= {arm: (arm, f"{arm}-{{}}-after") for arm in rl.ARMS | rl.LABEL_FREE}
    found, kept = {}, {}
    for shown, (name, folder) in places.items():
        done = [seed for seed in seeds if (out / f"{name}-{seed}.json").exists()]
        measures = [_by_problem(out / folder.format(seed)) for seed in done]
        if measures:
            means = {key: np.mean([one[key] for one in measures], axis=0) for key in base}
            changes = {key: list(paired_difference(base[key], means[key])[:3]) for key in base}
            found[shown] = {"seeds": len(measures)} | changes
            kept[shown] = (done, means)
    for one, other in COMPARED:
        if one in kept and other in kept and kept[one][0] == kept[other][0]:
            changes = {
                key: list(paired_difference(kept[other][1][key], kept[one][1][key])[:3]) for key in base
            }
            found[f"{one} − {other}"] = {"seeds": len(kept[one][0])} | changes
    return found


def _by_problem(folder: Path) -> dict[str, list[float]]:
    """Return greedy, avg@16 and pass@16 of every problem of an evaluation, in the order of their keys."""
    greedy, drawn = ([], [])
    for line in sorted(read_graded(folder), key=lambda line: line["key"]):
        (greedy if line["temperature"] == 0 else drawn).append(line["scores"])
    return {
        "greedy": [scores[0] for scores in greedy],
        "avg@16": [sum(scores) / len(scores) for scores in drawn],
        "pass@16": [max(scores) for scores in drawn],
    }


def problems_table(kept: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the differences of `over_problems` as a table."""
    lines = [["trained by", "seeds", *COLUMNS[:3]]]
    for name, row in kept.items():
        cells = ["{:+.3f} ({:+.3f} to {:+.3f})".format(*row[key]) for key in COLUMNS[:3]]
        lines.append([_shown(name), str(row["seeds"]), *cells])
    return lines


def _shown(name: str) -> str:
    """Return an arm's name as tables have it, of study 1 with its prompt, temperature and updates."""
    arm, _, updates = name.partition(", ")
    return f"{EM[arm]}, {counted(int(updates), 'update')}" if arm in EM else arm


def ends_table(kept: Mapping[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Return what the models of studies 2 and 3 do at the end, and differences over the seeds that both arms have."""
    lines = [["arm", "seeds", *COLUMNS]]
    for arm in rl.ARMS | rl.LABEL_FREE:
        if rows := kept.get(arm):
            lines.append([arm, str(len(rows)), *(cell([row[name] for row in rows]) for name in COLUMNS)])
    for one, other in COMPARED:
        seeds = {row["seed"] for row in kept.get(one, ())} & {row["seed"] for row in kept.get(other, ())}
        if len(seeds) > 1:
            ours, theirs = ([row for row in kept[arm] if row["seed"] in seeds] for arm in (one, other))
            cells = [difference_cell(ours, theirs, name) for name in COLUMNS]
            lines.append([f"{one} − {other}", str(len(seeds)), *cells])
    return lines


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
    for name, shown in EM.items():
        runs = kept.get(name, ())
        for updates in map(str, em.CHECKPOINTS if runs else ()):
            first = shown.removeprefix("EM, ") if updates == str(em.CHECKPOINTS[0]) else ""
            rows = [run[updates] for run in runs]
            lines.append([first, updates, *(_value(rows, name) for name in COLUMNS[:4])])
    return lines


def _value(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    if len(rows) > 1 or name == "entropy":
        return cell([row[name] for row in rows])
    low, high = rows[0]["intervals"][name]
    return f"{rows[0][name]:.3f} ({low:.3f} to {high:.3f})"


def shift_table(kept: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Return how the logits of trained models differ from the base's, study 1's after ten updates."""
    lines = [["trained by", "seeds", *SHIFT]]
    for name, shown in (EM | {arm: arm for arm in rl.ARMS | rl.LABEL_FREE}).items():
        runs = [run["shift"] for run in kept.get(name, ()) if "shift" in run]
        if runs:
            cells = [cell([run[key]["value"] for run in runs], sign=True) for key in SHIFT]
            lines.append([shown, str(len(runs)), *cells])
    return lines
