"""Keep what the quickstart's table is made from: python -m experiments.quickstart --store docs/results/quickstart.json

After `make quickstart`; the runs are runs/quickstart/grpo and runs/quickstart/kl_cov.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entropilot.records import ACCURACY, ENTROPY, Run, read_run
from entropilot.reports.table import format_table
from experiments.runs import command, keep

RUNS = ("grpo", "kl_cov")  # the method in the table is the run's name, but for plain GRPO


def rows_of(folder: Path) -> list[dict[str, float]]:
    """Return step, entropy and accuracy of a run, in the steps that hold one of them."""
    names = ("step", ENTROPY, ACCURACY)
    rows = [{name: row[name] for name in names if row.get(name) is not None} for row in read_run(folder).rows]
    return [row for row in rows if len(row) > 1]


def table(kept: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Return the lines of the table that `entropilot report` prints of runs with these rows."""
    runs = [
        Run(Path(name), {"name": name, "recipe": {"method": "none" if name == "grpo" else name}}, kept[name])
        for name in RUNS
    ]
    return format_table(runs, verdicts=False).splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/quickstart"), help="the folder of both runs")
    parser.add_argument("--store", type=Path, help="put their rows into this file")
    settings = parser.parse_args()
    kept = keep(settings.store, "runs", {name: rows_of(settings.runs / name) for name in RUNS})
    print("\n".join(table(kept)))


if __name__ == "__main__":
    command(main)
