"""Everything behind docs/results/exploration.md: python benchmarks/study.py --out runs/exploration --part report

development  the grids on seed 101, and the settings that were close on 102, too
report       the chosen settings on seeds 1 to 5; `entropilot study exploration` runs the same
variants     updates per rollout, completions per rollout and scope, on seeds 1 to 3

A run that is finished is not made again. Each takes one core for about a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from entropilot.studies.arms import ARMS, DEVELOPMENT, REPORT, REPORTED, VARIANTS
from entropilot.studies.exploration import study
from entropilot.studies.tables import tables

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
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    settings = parser.parse_args()
    for arms, seeds in PARTS[settings.part]:
        found = study(
            settings.out, arms, seeds, jobs=settings.jobs, report=lambda line: print(line, flush=True)
        )
        print(f"\nseeds {list(seeds)}; ± is half of the 95 % t interval over seeds\n\n{tables(found)}\n")


if __name__ == "__main__":
    main()
