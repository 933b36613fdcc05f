"""Print the tables of docs/results/real_runs.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from entropilot.errors import UserError
from entropilot.law.assess import assess
from entropilot.law.law import fit_law
from entropilot.law.rivals import RIVALS
from entropilot.records import ACCURACY, REWARD
from experiments.forecast_calibration.cases import COURSE, LAST, NONE, SHARES, Series
from experiments.forecast_calibration.procedure import (
    OWN_END,
    SPOKEN,
    STILL,
    TAILS,
    Choice,
    Row,
    Study,
    be_still,
    predict,
    required,
)

Array = NDArray[np.float64]


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


def median_over_sources(
    values: Sequence[float], sources: Sequence[str], seed: int = 0, draws: int = 4000
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a median, resampling whole sources."""
    rng = np.random.default_rng(seed)
    by_source = [
        np.array([value for value, own in zip(values, sources, strict=True) if own == source])
        for source in sorted(set(sources))
    ]
    picked = rng.integers(0, len(by_source), (draws, len(by_source)))
    low, high = np.quantile([np.median(np.concatenate([by_source[i] for i in one])) for one in picked], TAILS)
    return float(low), float(high)


def row_of(label: str, rows: Sequence[Row]) -> str:
    """Format what a procedure's intervals are worth."""
    sources = [row.case.source for row in rows]
    hits = np.array([row.inside for row in rows], dtype=float)
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


def report(study: Study) -> None:
    """Print the tables of all procedures, and what a forecast that speaks is required to show."""
    still, chosen, gated = "no change (the forecast)", "chosen", "chosen, or no change where it fails"
    procedures = {
        still: study.held_out(study.sources, be_still),
        chosen: study.held_out(study.sources, study.choose),
        gated: study.held_out(study.sources, study.choose_or_be_still),
    }
    for name in (*list(RIVALS)[1:], OWN_END, "law"):
        procedures[name] = study.held_out(study.sources, lambda _, name=name: Choice(name, 1.0))
    for metric, title in ((REWARD, "training reward"), (ACCURACY, "validation accuracy")):
        for share in SHARES:
            print(f"\n### The {title} from the first {100 * share:.0f} %\n\n{HEAD}")
            for label, rows in procedures.items():
                print(row_of(label, [r for r in rows if r.case.share == share and r.case.metric == metric]))
    _required({label: procedures[label] for label in (chosen, gated)}, procedures[still])
    _choices({label: procedures[label] for label in (chosen, gated)})
    _counts(procedures[still])
    _entropy(procedures[still])


def _required(procedures: dict[str, list[Row]], still: list[Row]) -> None:
    print("\n### What is required of a forecast that speaks (training reward)\n")
    print(
        "| procedure | share | speaks on | sources | its median error there | of no change | median paired difference "
        "| bootstrap over sources | interval score in units, all runs | of no change | met |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for label, rows in procedures.items():
        for share in SHARES:
            shown = required(rows, still, share)
            spoken = [row for row in rows if row.reward_from(share) and row.speaks]
            cells = ["–"] * 4
            if spoken:
                unit = np.array([row.case.allowed.unit for row in spoken])
                pairs = [[row.predicted, predict(row.case, STILL)] for row in spoken]
                target = np.array([[row.case.target] for row in spoken])
                own, other = np.median(np.abs(np.array(pairs) - target) / unit[:, None], axis=0)
                low, high = median_over_sources(
                    [row.gain for row in spoken], [row.case.source for row in spoken]
                )
                cells = [f"{own:.3f}", f"{other:.3f}", f"{shown.gain:+.3f}", f"{low:+.3f} to {high:+.3f}"]
            met = ("yes" if shown.met else "no") if share in SPOKEN else "–"
            print(
                f"| {label} | {share:g} | {shown.spoken} of {shown.runs} | {shown.sources} | {' | '.join(cells)} "
                f"| {shown.score:.2f} | {shown.score_of_no_change:.2f} | {met} |"
            )


def _choices(procedures: dict[str, list[Row]]) -> None:
    for label, rows in procedures.items():
        choices = {row.case.source: row.choice for row in rows}
        print(f"\nWhat was chosen with each source held out ({label}):\n")
        for source, (name, pull, rule) in sorted(choices.items()):
            print(f"* {source}: {name}" + (f", pulled {pull:g}, {rule}" if name != NONE else ""))


def _counts(rows: Sequence[Row]) -> None:
    print("\n### Coverage of the training reward by source, in %\n\n| source | runs | 15 % | 30 % | 50 % |")
    print("|---|---|---|---|---|")
    for source in sorted({row.case.source for row in rows}):
        kept = [row for row in rows if row.case.source == source and row.case.metric == REWARD]
        cells = [
            f"{100 * np.mean([r.inside for r in kept if r.case.share == share]):.0f}" for share in SHARES
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
            for name in (NONE, LAST)
        ]
        course = [r for r in kept if COURSE in r.case.entropies]
        on_course = [
            np.median([abs(r.case.entropies[name] - r.case.entropy_target) for r in course])
            for name in (COURSE, NONE)
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
