"""Tables of the finite worlds: python -m experiments.finite_worlds.tables study | why | online

study   when does the policy label help? A table with paired intervals (docs/methods/ppl.md)
why     what PPL's expectation would be worth, by whose segments are compared
online  regret against queries and environment steps

Run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from entropilot.files import append_row, read_rows
from experiments.runs import command


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


def study(seeds: int, only: str, out: Path | None) -> None:
    """Every condition whose name contains `only`; one that the file holds is not made again."""
    from experiments.finite_worlds.conditions import LEARNERS, conditions, study_row

    print("| condition | " + " | ".join(LEARNERS) + " | ppl − cpl | ppl − cpl, last |")
    print("|" + "---|" * (len(LEARNERS) + 3))
    for name, condition in conditions().items():
        if only in name:
            row = made(out, name, condition, list(range(seeds)), LEARNERS)
            print(study_row(name, row), flush=True)


def why(seeds: int, out: Path | None) -> None:
    """CPL, PPL, and PPL with the expectation that one observed future stands for; pairs within and across authors."""
    from entropilot.analysis.seeds import mean_difference
    from experiments.finite_worlds.conditions import WITH_EXPECTATION, conditions

    chosen = {}
    for slip in (0.0, 0.3, 0.8):
        for gap in ("small", "large", "huge"):
            for pairing in ("any", "within", "across"):
                base = conditions()[f"author, slip {slip}, {gap} gap"]
                chosen[f"slip {slip}, {gap} gap, {pairing}"] = replace(base, pairing=pairing)
    for name in ("3200 segments", "3200 segments, huge gap, slip 0.8", "sparse reward"):
        chosen[name] = conditions()[name]
    print(
        "| condition | "
        + " | ".join(WITH_EXPECTATION)
        + " | ppl − cpl | expected, cut − cpl | expected − cpl |"
    )
    print("|" + "---|" * (len(WITH_EXPECTATION) + 4))
    for name, condition in chosen.items():
        regret = made(out, name, condition, list(range(seeds)), WITH_EXPECTATION)["regret"]
        means = " | ".join(f"{np.mean(regret[learner]):.3f}" for learner in WITH_EXPECTATION)
        against = [
            "{:+.3f} ± {:.3f}".format(*mean_difference(regret[learner], regret["cpl"]))
            for learner in WITH_EXPECTATION[1:]
        ]
        print(f"| {name} | {means} | {' | '.join(against)} |", flush=True)


def online(seeds: int, out: Path | None) -> None:
    from entropilot.analysis.seeds import mean_difference
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
    everything = {}
    print("| teacher | learner | regret after 40 queries | 100 | 200 | less CPL at 200 |")
    print("|---|---|---|---|---|---|")
    for name, chosen in settings.items():
        found = {
            learner: run(learner, chosen, list(range(seeds)))
            for learner in ("cpl", "ppl", "ppl_expected", "ppl_dirac", "pebble")
        }
        everything[name] = found
        for learner, result in found.items():
            regret = np.array(result["regret"])
            at = [regret[result["queries"].index(q)].mean() for q in (40, 100, 200)]
            difference = mean_difference(regret[-1].tolist(), found["cpl"]["regret"][-1])
            print(f"| {name} | {learner} | " + " | ".join(f"{x:.3f}" for x in at), end="")
            print(f" | {difference[0]:+.3f} ± {difference[1]:.3f} |", flush=True)
    if out:
        out.write_text(json.dumps(everything))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["study", "why", "online"])
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--only", default="", help="conditions whose name contains this")
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    if settings.what == "study":
        study(settings.seeds, settings.only, settings.out)
    elif settings.what == "why":
        why(settings.seeds, settings.out)
    else:
        online(settings.seeds, settings.out)


if __name__ == "__main__":
    command(main)
