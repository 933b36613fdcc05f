"""Everything behind docs/results/exploration.md: python -m experiments.exploration.report --small

--part development  the grids on seed 101, and the settings that were close on 102, too
--part report       the chosen settings on seeds 1 to 5 (the default)
--part variants     updates per rollout, completions per rollout and scope, on seeds 1 to 3
--small             two arms with their control on two seeds: six runs, at most 15 minutes on two cores
--arms, --seeds     any others; the controls of the arms come with them, and `--arms list` names all arms

A run that is finished is not made again. Each takes one core for about a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from entropilot.errors import UserError
from entropilot.reports.text import aligned
from experiments.exploration.arms import ARMS, DEVELOPMENT, REPORT, REPORTED, VARIANTS, with_controls
from experiments.exploration.study import study
from experiments.exploration.tables import tables, variants
from experiments.runs import command, keep, out_folder

SMALL = ("wide_clip", "clip_cov_restrain_1")
CLOSE = (
    "clip_cov_0.2",
    "clip_cov_restrain_1",
    "kl_cov_0.1_beta1",
    "kl_cov_0.1_beta3",
    "bonus_0.005",
    "bonus_0.02",
)
# Two epochs over a rollout are an arm that was not run: twice the time.
GRIDS = tuple(arm for arm in ARMS if arm not in VARIANTS and not arm.endswith(("_once", "_small", "_twice")))
PARTS = {
    "development": [(GRIDS, DEVELOPMENT[:1]), (CLOSE, DEVELOPMENT[1:])],
    "report": [(REPORTED, REPORT)],
    "variants": [(VARIANTS, REPORT[:3])],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/exploration"))
    parser.add_argument("--part", choices=[*PARTS], default="report")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--arms", help="comma-separated names")
    parser.add_argument("--seeds", help="comma-separated numbers")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument(
        "--store",
        type=Path,
        help="keep a row of every run in this file (docs/results/exploration.json); of a whole --part only",
    )
    parser.add_argument("--json", action="store_true", help="print every row instead of the tables")
    settings = parser.parse_args()
    if settings.arms == "list":
        for name, arm in ARMS.items():
            print(f"{name:<28}{arm.about}; control: {arm.control or '–'}")
        return
    chosen = _chosen(settings)  # a wrong name is said before anything is made
    if settings.store and (settings.arms or settings.seeds or settings.small):
        raise UserError("--store keeps the rows of a whole --part; leave out --arms, --seeds and --small.")
    out = out_folder(settings.out)
    for arms, seeds in chosen:
        rows = study(out, arms, seeds, jobs=settings.jobs, report=_say)
        with_seeds = {
            arm: [{"seed": seed} | row for seed, row in zip(seeds, found, strict=True)]
            for arm, found in rows.items()
        }
        keep(settings.store, settings.part, with_seeds)
        if settings.json:
            print(json.dumps(rows, indent=1))
        else:
            print(f"\nseeds {seeds}; ± is half of the 95 % t interval over seeds\n\n{tables(rows)}\n")
            if arms == VARIANTS:
                print("each beside a control with the same updates, completions and clip\n")
                print(aligned(variants(rows), (0, 1)))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _chosen(settings: argparse.Namespace) -> list[tuple[tuple[str, ...], list[int]]]:
    """Return the arms and seeds to run, one entry per table.

    Raises:
        UserError: an arm that does not exist, or seeds that are no numbers.
    """
    if not (settings.arms or settings.seeds or settings.small):
        return [(arms, list(seeds)) for arms, seeds in PARTS[settings.part]]
    arms = SMALL if settings.small else REPORTED
    if settings.arms:
        arms = tuple(name.strip() for name in settings.arms.split(","))
    seeds = list(REPORT[: 2 if settings.small else None])
    if settings.seeds:
        try:
            seeds = [int(seed) for seed in settings.seeds.split(",")]
        except ValueError as error:
            raise UserError(
                f"--seeds {settings.seeds} is no list of numbers; write for example --seeds 1,2,3."
            ) from error
    with_controls(arms)  # a wrong name is said before anything is run
    return [(arms, seeds)]


if __name__ == "__main__":
    command(main)
