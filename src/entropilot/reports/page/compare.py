"""Compare runs with controls, paired by seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from entropilot.analysis.seeds import cell
from entropilot.errors import UserError
from entropilot.records import Run
from entropilot.reports.table import summarise
from entropilot.reports.text import mapping

MEASURES = {
    "held-out accuracy at the end": ("accuracy_end", ".3f"),
    "entropy at the end, nats": ("entropy_end", ".3f"),
}


def comparison(runs: Sequence[Run], controls: int) -> dict[str, Any]:
    """Return the table of the runs against the last `controls` of them.

    Runs and controls are paired by the seed of their recipes where all of them have one and the seeds agree; else the
    table holds the means alone.

    Raises:
        UserError: there is no run that is no control.
    """
    treated, control = list(runs[:-controls]), list(runs[-controls:])
    if not treated:
        raise UserError("--against needs at least one run that is not a control; name runs before it.")
    ours, theirs = _by_seed(treated), _by_seed(control)
    shared = sorted(set(ours) & set(theirs)) if ours is not None and theirs is not None else []
    paired = bool(shared) and len(shared) == len(treated) == len(control)
    rows = []
    for name, (key, spec) in MEASURES.items():
        a = [summarise(run)[key] for run in treated]
        b = [summarise(run)[key] for run in control]
        difference = "–"
        if paired and ours is not None and theirs is not None:
            pairs = [(summarise(ours[seed])[key], summarise(theirs[seed])[key]) for seed in shared]
            difference = cell([None if x is None or y is None else x - y for x, y in pairs], spec, sign=True)
        rows.append([name, cell(a, spec), cell(b, spec), difference])
    how = (
        f"Paired by seed ({', '.join(map(str, shared))})."
        if paired
        else "Not paired: the seeds of runs and controls do not agree, so no difference is given."
    )
    return {
        "caption": f"Mean ± half of the 95 % t interval over seeds. {how}",
        "headings": ["runs", "control", "difference"],
        "rows": rows,
    }


def _by_seed(runs: Sequence[Run]) -> dict[int, Run] | None:
    seeds = [mapping(run.header.get("recipe")).get("seed") for run in runs]
    if not all(isinstance(seed, int) for seed in seeds) or len(set(seeds)) < len(seeds):
        return None
    return dict(zip(seeds, runs, strict=True))  # type: ignore[arg-type]  # just checked
