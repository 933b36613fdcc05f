"""Read the public runs, and cut them into cases: a prefix, what is predicted from it, and what was measured at the end."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from entropilot.law.calibration import Allowed, allowed_range
from entropilot.law.forecast import forecast
from entropilot.law.rivals import errors_on_own_end, recent
from entropilot.records import ACCURACY, REWARD

Array = NDArray[np.float64]

SHARES = (0.15, 0.3, 0.5)
NONE = "no change"
LAST = "last value"
COURSE = "continued course"


@dataclass(frozen=True)
class Series:
    """A public run: steps, entropy, training reward and validation, nan where not measured."""

    name: str
    source: str
    steps: Array
    entropy: Array
    reward: Array
    validation: Array


@dataclass(frozen=True)
class Case:
    """A prefix of a run, what is predicted from it, and what was measured at the end.

    Attributes:
        values: R in the prefix.
        predictions: of R by name; the law only where it is not silent.
        chosen: the rival that did best on the prefix's own end.
        target: R at the last measurement.
        entropies: predictions of H by name.
        entropy_target: H at its last measurement.
    """

    source: str
    share: float
    metric: str
    values: Array
    allowed: Allowed
    predictions: dict[str, float]
    chosen: str
    target: float
    entropies: dict[str, float]
    entropy_target: float


def load(data: Path) -> list[Series]:
    """Read the series and their sources."""
    sources = {}
    for line in (data / "runs/SOURCES.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 4 and "/" in cells[2]:
            sources[cells[0]] = cells[2]
    runs = []
    for path in sorted((data / "runs").glob("*.csv")):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        columns = (
            np.array([float(row[name]) if row.get(name) else np.nan for row in rows])
            for name in ("step", "entropy", "reward", "val_accuracy")
        )
        runs.append(Series(path.stem, sources[path.stem], *columns))
    return runs


def cases(runs: Sequence[Series]) -> Iterator[Case]:
    """Yield the cases of all runs, shares and metrics with at least one value before the cut and one after it."""
    for share in SHARES:
        for run in runs:
            for metric, values in ((REWARD, run.reward), (ACCURACY, run.validation)):
                case = _case(run, share, metric, values)
                if case is not None:
                    yield case


def _case(run: Series, share: float, metric: str, values: Array) -> Case | None:
    measured = np.isfinite(values)
    if measured.sum() < 2:
        return None
    t, h = run.steps, run.entropy
    inside = t - t[0] <= share * (t[-1] - t[0])
    if not (measured & inside).any():
        if metric == ACCURACY:
            return None
        inside = t <= t[measured][0]  # rewards logged so rarely that the first one is all there is
    last = float(t[measured][-1])
    ahead = forecast(t[inside], h[inside], values[inside], last, performance_name=metric)
    known, entropies = values[inside & measured], h[inside & np.isfinite(h)]
    predicted = {NONE: recent(entropies), LAST: float(entropies[-1])}
    predictions = dict(ahead.predictions)
    if ahead.continuation is not None:
        predicted[COURSE] = ahead.continuation.entropy
    errors = errors_on_own_end(t[inside & measured], known, allowed_range(known, metric == ACCURACY))
    return Case(
        source=run.source,
        share=share,
        metric=metric,
        values=known,
        allowed=allowed_range(known, metric == ACCURACY),
        predictions=predictions,
        chosen=min(errors, key=errors.__getitem__) if errors else NONE,
        target=float(values[measured][-1]),
        entropies=predicted,
        entropy_target=float(h[np.isfinite(h)][-1]),
    )
