"""Measure how often each finding speaks on public runs: python -m experiments.finding_rates [--write | --own RUN…]

A run is healthy where its reward ends above its start by more than its noise, and has not fallen from its peak. That is
defined here, without the findings: start, end and peak are means over a tenth of the run (three points or more), the
noise is of the difference of two such means, and a fall counts beyond a quarter of the rise from start to peak and
beyond the noise.

`--own` takes run folders of this package instead, which hold the columns that public runs lack.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

from entropilot.law.findings.find import CHECKS, NOT_PUBLIC, find, unchecked
from entropilot.law.findings.live import LiveFindings
from entropilot.law.findings.signals import Signal, Signals
from entropilot.records import ACCURACY, ENTROPY, REWARD, Run, read_run
from experiments.forecast_calibration.cases import Series, load

TABLE = Path(__file__).parents[1] / "src/entropilot/law/findings/rates.json"
MEASURED = tuple(name for name in CHECKS if name not in NOT_PUBLIC)
LEAST = 10
NOISE = 2.0  # standard deviations of the difference of two means


def as_run(series: Series) -> Run:
    """Return a public series as a run with our names."""
    rows = []
    columns = {ENTROPY: series.entropy, REWARD: series.reward, ACCURACY: series.validation}
    for i, step in enumerate(series.steps):
        values = {name: float(column[i]) for name, column in columns.items() if np.isfinite(column[i])}
        rows.append({"step": int(step), **values})
    return Run(Path(series.name), {"name": series.name}, rows)


def is_healthy(series: Series) -> bool:
    """Whether the reward ends above its start by more than its noise, and has not fallen from its peak."""
    known = np.isfinite(series.reward)
    reward = Signal("reward", series.steps[known], series.reward[known])
    if reward.values.size < LEAST:
        return False
    noise = NOISE * np.sqrt(2) * reward.mean_noise
    peak = float(reward.smooth.max())
    risen = reward.end - reward.start > noise
    return risen and peak - reward.end <= max(noise, 0.25 * (peak - reward.start))


def of_own_runs(folders: list[Path]) -> None:
    """Print how often each finding speaks on healthy runs of this package, and on the others."""
    spoke: Counter[tuple[str, bool]] = Counter()
    judged: Counter[tuple[str, bool]] = Counter()
    total: Counter[bool] = Counter()
    for folder in folders:
        run = read_run(folder)
        signals = Signals(run)
        reward = signals.get("reward")
        healthy = reward is not None and is_healthy(Series("", "", reward.steps, *[reward.values] * 3))
        total[healthy] += 1
        missing = unchecked(signals)
        judged.update((name, healthy) for name in CHECKS if name not in missing)
        spoke.update((finding.name, healthy) for finding in find(signals))
    print(f"{total[True]} of {len(folders)} runs are healthy.\n")
    print("| finding | healthy runs | runs that are not healthy |")
    print("|---|---|---|")
    for name in CHECKS:
        cells = [f"{spoke[name, healthy]} of {judged[name, healthy]}" for healthy in (True, False)]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the rates to the package")
    parser.add_argument(
        "--own", type=Path, nargs="+", default=[], metavar="RUN", help="run folders of entropilot"
    )
    settings = parser.parse_args()
    if settings.own:
        of_own_runs(settings.own)
        return
    place = os.environ.get("ENTROPILOT_DATA")
    if not place:
        raise SystemExit("error: ENTROPILOT_DATA is not set; set it to the folder that holds runs/.")
    runs = load(Path(place))
    spoke: Counter[tuple[str, bool]] = Counter()
    judged: Counter[tuple[str, bool]] = Counter()
    where: dict[str, Counter[str]] = {name: Counter() for name in CHECKS}
    total: Counter[bool] = Counter()
    live: Counter[str] = Counter()
    for series in runs:
        healthy = is_healthy(series)
        total[healthy] += 1
        for name in MEASURED:
            if name != "validation falls" or np.isfinite(series.validation).sum() >= 5:
                judged[name, healthy] += 1
        if healthy:
            watch = LiveFindings()
            rows = as_run(series).rows
            live.update(finding.name for row in rows for finding in watch.add(row["step"], row))
        for finding in find(Signals(as_run(series))):
            spoke[finding.name, healthy] += 1
            where[finding.name][series.source] += 1
    print(f"{total[True]} of {len(runs)} runs are healthy.\n")
    print(
        "| finding | healthy runs | healthy runs, at any time while training | runs that are not healthy | sources |"
    )
    print("|---|---|---|---|---|")
    for name in CHECKS:
        if name not in MEASURED:
            print(f"| {name} | not measured: {NOT_PUBLIC[name]} | – | – | – |")
            continue
        cells = [f"{spoke[name, healthy]} of {judged[name, healthy]}" for healthy in (True, False)]
        sources = ", ".join(f"{source} {count}" for source, count in sorted(where[name].items())) or "–"
        print(f"| {name} | {cells[0]} | {live[name]} of {judged[name, True]} | {cells[1]} | {sources} |")
    if settings.write:
        rates = {
            name: {"spoke": spoke[name, True], "healthy": judged[name, True]}
            for name in MEASURED
            if judged[name, True]
        }
        document = {"made_by": "python -m experiments.finding_rates --write", "checks": rates}
        TABLE.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
