"""The online loop on MetaWorld's drawer-open, CPL, PPL and PPL with a Dirac label: python -m experiments.drawer --out FILE

A run that the file holds is not made again. Run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from entropilot.files import append_row, read_rows
from experiments.runs import command, out_folder

LOOP = {"bc_steps": 300, "steps": 300, "learning_rate": 1e-4, "final_episodes": 50, "evaluate_every": 0}


def drawer(seeds: int, out: Path | None, rounds: int = 6) -> None:
    """Every learner on every seed; a run that the file holds, of these settings, is not made again."""
    from entropilot.analysis.seeds import mean_difference
    from entropilot.control.learning.online import online_metaworld
    from entropilot.control.learning.registry import settings_from

    rows, done = (read_rows(out) if out else []), {}
    learners = ("cpl", "ppl", "ppl_dirac")
    for seed in range(seeds):
        for learner in learners:
            settings = settings_from(LOOP | {"method": learner, "seed": seed})
            key = {"task": "drawer-open", "train": json.loads(json.dumps(asdict(settings)))}
            known = [row["rounds"] for row in rows if all(row.get(name) == key[name] for name in key)]
            known = [found for found in known if len(found) == rounds]
            if known:
                done[learner, seed] = known[0]
                continue
            found = online_metaworld("drawer-open", settings, rounds=rounds)
            done[learner, seed] = found
            print(learner, seed, [row["success"] for row in found], flush=True)
            if out:
                append_row(out, key | {"method": learner, "seed": seed, "rounds": found})
    first = done["cpl", 0]
    print("| learner | " + " | ".join(f"{r['queries']} queries" for r in first) + " | less CPL at the end |")
    print("|" + "---|" * (len(first) + 2))
    for learner in learners:
        success = np.array([[row["success"] for row in done[learner, seed]] for seed in range(seeds)])
        other = [done["cpl", seed][-1]["success"] for seed in range(seeds)]
        mean, half = mean_difference(success[:, -1].tolist(), other)
        print(
            f"| {learner} | "
            + " | ".join(f"{x:.2f}" for x in success.mean(0))
            + f" | {mean:+.2f} ± {half:.2f} |"
        )
    print("environment steps, mean over runs:", end=" ")
    print(np.mean([[row["environment_steps"] for row in rows] for rows in done.values()], 0).round())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    if settings.out is not None:
        out_folder(settings.out.parent)  # a place that can't be written is said before anything is computed
    torch.set_num_threads(1)
    drawer(settings.seeds, settings.out)


if __name__ == "__main__":  # worker processes import this file
    command(main)
