"""Run the study: python -m experiments.forecast_calibration [--write | --law]."""

from __future__ import annotations

import argparse
import json
import os
from importlib import metadata
from pathlib import Path

import numpy as np

from entropilot.records import REWARD
from experiments.forecast_calibration import __doc__ as about
from experiments.forecast_calibration.cases import SHARES, cases, load
from experiments.forecast_calibration.procedure import Study, be_still
from experiments.forecast_calibration.tables import law_table, report

TABLE = Path(__file__).parents[2] / "src/entropilot/law/calibration.json"


def write(study: Study) -> None:
    """Write the constants that all sources give to the package, and what they held where a source was left out."""
    held = study.held_out(study.sources, be_still)
    _, table = study.fit(study.sources, be_still)
    rows = []
    for share in SHARES:
        made = table[share]
        rows.append(
            {
                "share": share,
                "held": round(float(np.mean([row.inside for row in held if row.reward_from(share)])), 3),
                "floor": made.floor,
                "performance": [round(value, 4) for value in made.performance],
                "entropy": [round(value, 4) for value in made.entropy],
            }
        )
    document = {
        "made_by": "python -m experiments.forecast_calibration --write",
        "runs": sum(case.share == SHARES[0] and case.metric == REWARD for case in study.cases),
        "sources": len(study.sources),
        "entropilot": metadata.version("entropilot"),
        "numpy": np.__version__,
        "rows": rows,
    }
    TABLE.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"\nwrote {TABLE.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the constants to the package")
    parser.add_argument("--law", action="store_true", help="print only the table of the law")
    settings = parser.parse_args()
    place = os.environ.get("ENTROPILOT_DATA")
    if not place:
        raise SystemExit("error: ENTROPILOT_DATA is not set; set it to the folder that holds runs/.")
    runs = load(Path(place))
    if not settings.law:
        study = Study(list(cases(runs)))
        report(study)
        if settings.write:
            write(study)
    law_table(runs)


if __name__ == "__main__":
    main()
