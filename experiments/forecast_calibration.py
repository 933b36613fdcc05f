"""Calibrate forecasts on public runs, and hold every choice against repositories that were left out.

    ENTROPILOT_DATA=… python -m experiments.forecast_calibration            # the tables of docs/results/real_runs.md
    ENTROPILOT_DATA=… python -m experiments.forecast_calibration --write    # and the constants in the package

The source of a run is its repository in SOURCES.md. For each source the constants are made on the other sources, which
count equally however many runs they have; its own runs then give coverage, width and error. A prefix is all steps up to
a share of the run; the target is the run's last measurement.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from entropilot.errors import UserError
from entropilot.law.assess import assess
from entropilot.law.calibration import (
    MOST_NATS,
    SMALL,
    Allowed,
    Constants,
    allowed_range,
    entropy_interval,
    error_scale,
    performance_interval,
)
from entropilot.law.forecast import forecast
from entropilot.law.law import fit_law
from entropilot.law.rivals import RIVALS, errors_on_own_end, recent
from entropilot.records import ACCURACY, REWARD

Array = NDArray[np.float64]

SHARES = (0.15, 0.3, 0.5)
FLOORS = (0.03, 0.1, 0.3, 1.0)
TAILS = (0.025, 0.975)
PULLS = (0.25, 0.5, 1.0)  # how far from "no change" towards a prediction
TABLE = Path(__file__).parents[1] / "src/entropilot/law/calibration.json"
NONE = "no change"
OWN_END = "best on the prefix's own end"


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


Choice = tuple[str, float]  # which prediction, and how far from "no change" towards it
STILL: Choice = (NONE, 0.0)


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
    predicted = {NONE: recent(entropies), "last value": float(entropies[-1])}
    predictions = dict(ahead.predictions)
    if ahead.continuation is not None:
        predicted["continued course"] = ahead.continuation.entropy
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


def point(case: Case, choice: Choice) -> float:
    """Return the prediction of R by a choice; "no change" where it has none."""
    name, pull = choice
    still = case.predictions[NONE]
    value = case.predictions.get(case.chosen if name == OWN_END else name, still)
    return still + pull * (value - still)


def guarded(case: Case, choice: Choice) -> float:
    """Return the prediction by a choice where the law is not silent on the prefix, else "no change"."""
    return point(case, choice if "law" in case.predictions else STILL)


Predict = Callable[[Case, Choice], float]


def weights(group: Sequence[Case]) -> Array:
    """Weigh cases so that each source counts equally."""
    count = Counter(case.source for case in group)
    return np.array([1 / count[case.source] for case in group])


def quantile(values: Array, weight: Array, level: float) -> float:
    """Return the smallest value with at least `level` of the weight at or below it."""
    order = np.argsort(values)
    share = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(np.searchsorted(share, level - 1e-12), values.size - 1)])


def tails(values: Array, weight: Array) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles."""
    low, high = (quantile(values, weight, tail) for tail in TAILS)
    return low, high


def constants(
    group: Sequence[Case], share: float, floor: float, choice: Choice, predict: Predict, entropy: str = NONE
) -> Constants:
    """Make the constants of one share from its cases of the training reward."""
    kept = [case for case in group if case.share == share and case.metric == REWARD]
    weight = weights(kept)
    errors = np.array(
        [(c.target - predict(c, choice)) / error_scale(c.values, c.allowed, floor) for c in kept]
    )
    ratios = np.array([_ratio(case, entropy) for case in kept])
    return Constants(share, 0.0, floor, tails(errors, weight), tails(ratios, weight))


def _ratio(case: Case, name: str) -> float:
    predicted = case.entropies.get(name, case.entropies[NONE])
    return float(np.log((case.entropy_target + SMALL) / (predicted + SMALL)))


def interval_of(
    case: Case, table: dict[float, Constants], choice: Choice, predict: Predict
) -> tuple[float, float]:
    """Return a case's interval of R under calibrated constants."""
    return performance_interval(predict(case, choice), case.values, case.allowed, table[case.share])


def interval_score(target: float, low: float, high: float) -> float:
    """Score an interval: its width, and 40 times what the target lies outside of it (Gneiting and Raftery, 2007)."""
    return high - low + 40 * (max(low - target, 0.0) + max(target - high, 0.0))


def best_floor(group: Sequence[Case], choice: Choice, predict: Predict) -> float:
    """Choose the floor of the least mean interval score, in units of each run, sources counting equally."""

    def loss(floor: float) -> float:
        table = {share: constants(group, share, floor, choice, predict) for share in SHARES}
        kept = [case for case in group if case.metric == REWARD]
        scores = [
            interval_score(c.target, *interval_of(c, table, choice, predict)) / c.allowed.unit for c in kept
        ]
        return float(np.average(scores, weights=weights(kept)))

    return min(FLOORS, key=loss)


def best_choice(group: Sequence[Case]) -> Choice:
    """Choose what to forecast where the law is not silent: the least median error over the cases it speaks on."""
    kept = [case for case in group if case.metric == REWARD and "law" in case.predictions]
    options = [STILL, *((name, pull) for name in (*list(RIVALS)[1:], "law", OWN_END) for pull in PULLS)]

    def loss(choice: Choice) -> float:
        differences = [
            (abs(guarded(c, choice) - c.target) - abs(point(c, STILL) - c.target)) / c.allowed.unit
            for c in kept
        ]
        return quantile(np.array(differences), weights(kept), 0.5) if kept else 0.0

    return min(options, key=loss)


@dataclass(frozen=True)
class Row:
    """A case that was predicted by constants and choices of the other sources."""

    case: Case
    choice: Choice
    predicted: float
    low: float
    high: float
    entropy_low: float
    entropy_high: float

    @property
    def speaks(self) -> bool:
        """Whether something else than "no change" was predicted."""
        return self.choice[0] != NONE and "law" in self.case.predictions

    @property
    def inside(self) -> bool:
        """Whether the interval held the target."""
        return self.low <= self.case.target <= self.high

    def reward_from(self, share: float) -> bool:
        """Whether this is the training reward from one share of a run."""
        return self.case.share == share and self.case.metric == REWARD

    @property
    def score(self) -> float:
        """The interval score, in units of R."""
        return interval_score(self.case.target, self.low, self.high)


def left_out(all_cases: Sequence[Case], choice: Choice | None, predict: Predict) -> list[Row]:
    """Predict every source's cases with what the other sources give; a choice of None is made on them too."""
    rows = []
    for source in sorted({case.source for case in all_cases}):
        others = [case for case in all_cases if case.source != source]
        taken = best_choice(others) if choice is None else choice
        floor = best_floor(others, taken, predict)
        table = {share: constants(others, share, floor, taken, predict) for share in SHARES}
        for case in all_cases:
            if case.source == source:
                low, high = interval_of(case, table, taken, predict)
                ends = entropy_interval(min(case.entropies[NONE], MOST_NATS), table[case.share])
                rows.append(Row(case, taken, predict(case, taken), low, high, *ends))
    return rows


def over_sources(
    hits: Array, sources: Sequence[str], seed: int = 0, draws: int = 4000
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the pooled coverage, resampling whole sources."""
    rng = np.random.default_rng(seed)
    names = sorted(set(sources))
    which = np.array([names.index(source) for source in sources])
    sums, counts = np.bincount(which, hits, len(names)), np.bincount(which, minlength=len(names))
    picked = rng.integers(0, len(names), (draws, len(names)))
    low, high = np.quantile(sums[picked].sum(axis=1) / counts[picked].sum(axis=1), TAILS)
    return float(low), float(high)


def row_of(label: str, rows: Sequence[Row]) -> str:
    """Format what a procedure's intervals are worth."""
    sources = [row.case.source for row in rows]
    hits = np.array([row.low <= row.case.target <= row.high for row in rows], dtype=float)
    by_source = [hits[[s == source for s in sources]].mean() for source in sorted(set(sources))]
    low, high = over_sources(hits, sources)
    units = np.array([row.case.allowed.unit for row in rows])
    widths = np.array([row.high - row.low for row in rows])
    both = np.mean([r.low <= r.case.allowed.low and r.high >= r.case.allowed.high for r in rows])
    errors = np.array([abs(row.predicted - row.case.target) for row in rows])
    scores = np.array([row.score for row in rows])
    cells = [
        label,
        f"{len(rows)}",
        f"{100 * hits.mean():.0f}",
        f"{100 * np.mean(by_source):.0f}",
        f"{100 * low:.0f} to {100 * high:.0f}",
        f"{np.median(widths / units):.2f}",
        f"{100 * both:.0f}",
        f"{np.median(errors / units):.3f}",
        f"{np.mean(scores):.2f}",
        f"{np.mean(scores / units):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| | runs | coverage, pooled | mean over sources | bootstrap over sources | median width | reach both ends "
    "| median error | interval score | the same in units |\n|---|---|---|---|---|---|---|---|---|---|"
)


def report(all_cases: Sequence[Case]) -> None:
    """Print the tables of docs/results/real_runs.md."""
    procedures: dict[str, list[Row]] = {"no change (the forecast)": left_out(all_cases, STILL, point)}
    procedures["chosen on the other sources, where the law speaks"] = left_out(all_cases, None, guarded)
    for name in (*list(RIVALS)[1:], OWN_END, "law"):
        procedures[name] = left_out(all_cases, (name, 1.0), point)
    for metric, title in ((REWARD, "training reward"), (ACCURACY, "validation accuracy")):
        for share in SHARES:
            print(f"\n### The {title} from the first {100 * share:.0f} %\n\n{HEAD}")
            for label, rows in procedures.items():
                print(row_of(label, [r for r in rows if r.case.share == share and r.case.metric == metric]))
    _spoken(procedures["chosen on the other sources, where the law speaks"])
    _counts(procedures["no change (the forecast)"])
    _entropy(procedures["no change (the forecast)"])


def _spoken(rows: Sequence[Row]) -> None:
    print("\n### Where the chosen procedure speaks (training reward)\n")
    print(
        "| share | runs | sources | its median error | of no change | median paired difference | better in |"
    )
    print("|---|---|---|---|---|---|---|")
    for share in SHARES:
        kept = [row for row in rows if row.speaks and row.case.share == share and row.case.metric == REWARD]
        if not kept:
            print(f"| {share:g} | 0 | 0 | – | – | – | – |")
            continue
        own, still = (
            np.array([abs(value - row.case.target) / row.case.allowed.unit for row, value in pairs])
            for pairs in (
                [(row, row.predicted) for row in kept],
                [(row, point(row.case, STILL)) for row in kept],
            )
        )
        print(
            f"| {share:g} | {len(kept)} | {len({row.case.source for row in kept})} | {np.median(own):.3f} "
            f"| {np.median(still):.3f} | {np.median(own - still):+.3f} | {100 * np.mean(own < still):.0f} % |"
        )
    choices = {row.case.source: f"{row.choice[0]}, pulled {row.choice[1]:g}" for row in rows}
    print("\n" + "\n".join(f"* {source} left out: {choice}" for source, choice in sorted(choices.items())))


def _counts(rows: Sequence[Row]) -> None:
    print("\n### Coverage of the training reward by source, in %\n\n| source | runs | 15 % | 30 % | 50 % |")
    print("|---|---|---|---|---|")
    for source in sorted({row.case.source for row in rows}):
        kept = [row for row in rows if row.case.source == source and row.case.metric == REWARD]
        cells = [
            f"{100 * np.mean([r.low <= r.case.target <= r.high for r in kept if r.case.share == share]):.0f}"
            for share in SHARES
        ]
        print(f"| {source} | {len(kept) // len(SHARES)} | {' | '.join(cells)} |")


def _entropy(rows: Sequence[Row]) -> None:
    print("\n### Entropy: coverage of the last one, in %, and errors in nats\n")
    print(
        "| share | coverage | mean over sources | bootstrap over sources | median width | median error: no change "
        "| last value | continued course, no change on the same runs (runs) |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for share in SHARES:
        kept = [row for row in rows if row.case.share == share and row.case.metric == REWARD]
        hits = np.array([r.entropy_low <= r.case.entropy_target <= r.entropy_high for r in kept], dtype=float)
        sources = [row.case.source for row in kept]
        means = [hits[[s == source for s in sources]].mean() for source in sorted(set(sources))]
        low, high = over_sources(hits, sources)
        width = np.median([row.entropy_high - row.entropy_low for row in kept])
        errors = [
            np.median([abs(r.case.entropies[name] - r.case.entropy_target) for r in kept])
            for name in (NONE, "last value")
        ]
        course = [r for r in kept if "continued course" in r.case.entropies]
        on_course = [
            np.median([abs(r.case.entropies[name] - r.case.entropy_target) for r in course])
            for name in ("continued course", NONE)
        ]
        print(
            f"| {share:g} | {100 * hits.mean():.0f} | {100 * np.mean(means):.0f} | {100 * low:.0f} to {100 * high:.0f} "
            f"| {width:.2f} | {errors[0]:.3f} | {errors[1]:.3f} | {on_course[0]:.3f}; {on_course[1]:.3f} ({len(course)}) |"
        )


def law_table(runs: Sequence[Series]) -> None:
    """Print the law of every whole run, by source."""
    print("\n### The law on all runs: H on the training reward\n")
    print("| source | run | points | R² | a | b | grade | doubts |\n|---|---|---|---|---|---|---|---|")
    grades: Counter[tuple[str, str]] = Counter()
    for run in sorted(runs, key=lambda run: (run.source, run.name)):
        try:
            fit = fit_law(run.entropy, run.reward, steps=run.steps)
        except UserError as error:
            print(f"| {run.source} | {run.name} | – | – | – | – | no fit | {error} |")
            grades[run.source, "no fit"] += 1
            continue
        result = assess(fit, performance_name=REWARD)
        grades[run.source, result.grade] += 1
        doubts = ", ".join(finding.name for finding in result.findings) or "–"
        print(
            f"| {run.source} | {run.name} | {fit.n} | {fit.r2:.2f} | {fit.a:.3g} | {fit.b:.3g} | {result.grade} "
            f"| {doubts} |"
        )
    names = ("good", "rough", "untrusted", "fails", "none", "no fit")
    print("\n| source | runs | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 2))
    for source in sorted({run.source for run in runs}):
        counts = [grades[source, name] for name in names]
        print(f"| {source} | {sum(counts)} | " + " | ".join(map(str, counts)) + " |")


def write(all_cases: Sequence[Case]) -> None:
    """Write the constants that all sources give to the package, and what they held where a source was left out."""
    held = left_out(all_cases, STILL, point)
    floor = best_floor(all_cases, STILL, point)
    rows = []
    for share in SHARES:
        made = constants(all_cases, share, floor, STILL, point)
        rows.append(
            {
                "share": share,
                "held": round(float(np.mean([r.inside for r in held if r.reward_from(share)])), 3),
                "floor": floor,
                "performance": [round(value, 4) for value in made.performance],
                "entropy": [round(value, 4) for value in made.entropy],
            }
        )
    document = {
        "made_by": "python -m experiments.forecast_calibration --write",
        "runs": len(
            {id(case.values) for case in all_cases if case.share == SHARES[0] and case.metric == REWARD}
        ),
        "sources": len({case.source for case in all_cases}),
        "entropilot": metadata.version("entropilot"),
        "numpy": np.__version__,
        "rows": rows,
    }
    TABLE.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"\nwrote {TABLE.name}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the constants to the package")
    parser.add_argument("--law", action="store_true", help="print only the table of the law")
    settings = parser.parse_args()
    place = os.environ.get("ENTROPILOT_DATA")
    if not place:
        raise SystemExit("error: ENTROPILOT_DATA is not set; set it to the folder that holds runs/.")
    runs = load(Path(place))
    if settings.law:
        law_table(runs)
        return
    all_cases = list(cases(runs))
    report(all_cases)
    law_table(runs)
    if settings.write:
        write(all_cases)


if __name__ == "__main__":
    main()
