"""Tables of the finite worlds: python -m experiments.finite_worlds.tables study | why | online

study   when does the policy label help? A table with paired intervals (docs/methods/ppl.md)
why     what PPL's expectation would be worth, by whose segments are compared
online  regret against queries and environment steps

Run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.analysis.seeds import mean_difference
from entropilot.files import append_row, read_rows
from experiments.runs import command, keep, out_folder

# Learners, as the page calls them.
NAMES = {"bc": "clone", "sft": "SFT", "cpl": "CPL", "ppl": "PPL"}
NAMES |= {"ppl_sampled": "sampled", "ppl_fitted": "fitted", "ppl_dirac": "Dirac"}
ONLINE = {"cpl": "CPL", "ppl": "PPL", "ppl_expected": "PPL, expected", "ppl_dirac": "PPL, Dirac"}
ONLINE |= {"pebble": "pebble"}
QUERIES = (40, 100, 200)


def made(
    out: Path | None, name: str, condition: Any, seeds: list[int], learners: tuple[str, ...]
) -> dict[str, Any]:
    """Return a condition's result: the file's if it is of these learners, seeds and settings, else made and kept."""
    from experiments.finite_worlds.conditions import run_condition

    settings = json.loads(json.dumps(asdict(condition)))
    for row in read_rows(out) if out else []:
        same = row.get("condition") == settings and row.get("seeds") == seeds
        if row.get("name") == name and same and list(row["regret"]) == list(learners):
            return row
    found = {"name": name} | run_condition(condition, seeds, list(range(100, 112)), learners)
    if out:
        append_row(out, found)
    return found


def difference(one: Sequence[float], other: Sequence[float]) -> str:
    """Return the mean difference over worlds with its 95 % interval, bold where that leaves out 0."""
    mean, half = mean_difference(one, other)
    text = f"{mean:+.3f} ± {half:.3f}".replace("-", "−")
    return f"**{text}**" if abs(mean) > half else text


def study_row(name: str, row: Mapping[str, Any]) -> list[str]:
    """Return a row of the study: mean regrets, then PPL less CPL paired at their best stops, and at the last."""
    regret, last = row["regret"], row["last"]
    means = [f"{np.mean(values):.3f}" for values in regret.values()]
    return [name, *means, difference(regret["ppl"], regret["cpl"]), difference(last["ppl"], last["cpl"])]


def why_row(name: str, row: Mapping[str, Any]) -> list[str]:
    """Return a row of `why`: mean regrets, then what each other learner leaves less CPL."""
    regret = row["regret"]
    means = [f"{np.mean(values):.3f}" for values in regret.values()]
    return [
        name,
        *means,
        *(difference(v, regret["cpl"]) for learner, v in regret.items() if learner != "cpl"),
    ]


def online_rows(name: str, learners: Mapping[str, Mapping[str, Sequence[float]]]) -> list[list[str]]:
    """Return a teacher's rows: mean regret by the number of queries, and the last less CPL's."""
    rows = []
    for learner, regret in learners.items():
        last = str(QUERIES[-1])
        less = "" if learner == "cpl" else difference(regret[last], learners["cpl"][last])
        means = [f"{np.mean(regret[str(queries)]):.3f}" for queries in QUERIES]
        rows.append([name if learner == "cpl" else "", ONLINE[learner], *means, less])
    return rows


def line(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def head(*cells: str) -> None:
    line(cells)
    print(f"|{'---|' * len(cells)}")


def study(seeds: int, only: str, out: Path | None, store: Path | None = None) -> None:
    """Every condition whose name contains `only`; one that the file holds is not made again."""
    from experiments.finite_worlds.conditions import LEARNERS, conditions

    head("condition", *(NAMES[learner] for learner in LEARNERS), "PPL − CPL", "all stopped at 200")
    rows = {}
    for name, condition in conditions().items():
        if only in name:
            row = made(out, name, condition, list(range(seeds)), LEARNERS)
            rows[name] = {"regret": row["regret"], "last": {key: row["last"][key] for key in ("cpl", "ppl")}}
            line(study_row(name, rows[name]))
    keep(store, "study", rows)


def why(seeds: int, out: Path | None, store: Path | None = None) -> None:
    """CPL, PPL, and PPL with the expectation that one observed future stands for; pairs within and across authors."""
    from experiments.finite_worlds.conditions import WITH_EXPECTATION, conditions

    chosen = {}
    for slip in (0.0, 0.3, 0.8):
        for gap in ("small", "large", "huge"):
            for pairing in ("any", "within", "across"):
                base = conditions()[f"author, slip {slip}, {gap} gap"]
                chosen[f"slip {slip}, {gap} gap, {pairing}"] = replace(base, pairing=pairing)
    for name in ("3200 segments", "3200 segments, huge gap, slip 0.8", "sparse reward"):
        chosen[name] = conditions()[name]
    names = ["CPL", "PPL", "expected, cut", "expected"]
    head("condition, pairs", *names, *(f"{name} − CPL" for name in names[1:]))
    rows = {}
    for name, condition in chosen.items():
        rows[name] = {"regret": made(out, name, condition, list(range(seeds)), WITH_EXPECTATION)["regret"]}
        line(why_row(name, rows[name]))
    keep(store, "why", rows)


def online(seeds: int, out: Path | None, store: Path | None = None) -> None:
    """Regret of learners that collect their own segments; what the file holds of these seeds is not made again."""
    from entropilot.control.worlds.online import OnlineSettings
    from entropilot.control.worlds.online import online as run

    base = OnlineSettings()
    settings = {
        "author": base,
        "advantage": replace(base, teacher="advantage"),
        "author, 10 % wrong": replace(base, flip=0.1),
        "author, slip 0.8": replace(base, slip=0.8),
        "author, sparse": replace(base, sparse=True),
    }
    head("teacher", "learner", f"{QUERIES[0]} queries", *map(str, QUERIES[1:]), f"less CPL at {QUERIES[-1]}")
    rows: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, chosen in settings.items():
        rows[name] = {}
        for learner in ONLINE:
            wanted = {"name": name, "settings": json.loads(json.dumps(asdict(chosen))), "learner": learner}
            wanted["seeds"] = list(range(seeds))
            known = [row for row in read_rows(out) if wanted.items() <= row.items()] if out else []
            result = known[-1] if known else wanted | run(learner, chosen, wanted["seeds"])
            if out and not known:
                append_row(out, result)
            at = {queries: result["queries"].index(queries) for queries in QUERIES}
            rows[name][learner] = {str(queries): result["regret"][place] for queries, place in at.items()}
        for cells in online_rows(name, rows[name]):
            line(cells)
    keep(store, "online", rows)


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["study", "why", "online"])
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--only", default="", help="conditions whose name contains this")
    parser.add_argument(
        "--out", type=Path, help="JSONL with the finished conditions; they are not made again"
    )
    parser.add_argument(
        "--store", type=Path, help="keep what the table is made of here (docs/results/ppl_finite_worlds.json)"
    )
    settings = parser.parse_args()
    for file in filter(None, (settings.out, settings.store)):
        out_folder(file.parent)  # a place that can't be written is said before anything is computed
    torch.set_num_threads(1)
    if settings.what == "study":
        study(settings.seeds, settings.only, settings.out, settings.store)
    elif settings.what == "why":
        why(settings.seeds, settings.out, settings.store)
    else:
        online(settings.seeds, settings.out, settings.store)


if __name__ == "__main__":
    command(main)
