"""Keep the rows of a bench: python -m experiments.control_rows runs/control_core --store docs/results/control.json

The bench on MetaWorld is `entropilot control bench recipes/control/core.yaml --out runs/control_core`. Its tables are
printed again from the rows as they are kept, so that they can be compared with the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entropilot.control.bench.runs import read_results
from entropilot.control.bench.tables import data_table, paired_table, success_table
from entropilot.errors import UserError
from experiments.runs import command, keep

CELL = ("task", "kind", "label", "method")
KEPT = ("seed", "success", "clone", "behaviour", "curve", "authors_solve", "authors_kl", "beats_script")


def by_cell(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows by "task, kind, label, method", each with the numbers that the tables need."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        cell = found.setdefault(", ".join(row[name] for name in CELL), [])
        cell.append({name: row[name] for name in KEPT if name in row})
    return found


def as_rows(kept: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of a bench out of what `by_cell` made of them."""
    return [
        dict(zip(CELL, name.split(", "), strict=True)) | row for name, runs in kept.items() for row in runs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench", type=Path, help="the folder of a bench")
    parser.add_argument("--store", type=Path, help="keep the rows here (docs/results/control.json)")
    parser.add_argument("--tuned-on", nargs="*", default=["drawer-open"], help="tasks that no mean holds")
    settings = parser.parse_args()
    rows = read_results(settings.bench)
    if not rows:
        raise UserError(
            f"{settings.bench} holds no finished run of a bench; run `entropilot control bench` into it."
        )
    kept = as_rows(keep(settings.store, settings.bench.name, by_cell(rows)))
    print(data_table(kept), success_table(kept), paired_table(kept, tuned_on=settings.tuned_on), sep="\n\n")


if __name__ == "__main__":
    command(main)
