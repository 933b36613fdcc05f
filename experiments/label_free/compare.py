"""Compare cures of the fall: python -m experiments.label_free.compare screen --limit 256 --out runs/label_free/screen

In the setting that `experiments.label_free.setting` fixed:

screen   EMPO and TTRL as they are, EMPO unscaled, the answer mask, SCRL and a slow teacher, beside the verifiable and a
         random reward, on seeds 1 to 3. A first look: an arm without a cure shows no fall in three seeds with
         probability 0.22, where two of five fall.
labels   5 and 25 % of the answers: TraPO, labels and majorities mixed, and the labels alone, beside EMPO and TTRL
         without answers and the verifiable reward with all of them, on seeds 1 to 3.
dissent  what the first dissenter of a group sets off: EMPO without groups of one dissenter, with negative advantages
         cut, and unscaled, seeds 1 to 3.
confirm  EMPO, TTRL and, by --arms, the two best cures, on ten new seeds, 480 updates.
hard     The same and the verifiable reward on the tier `long`, where the base's majority is often wrong, on five seeds.

The alarm of every signal that needs no label is set on the runs of --tuned-on and reported on these. Every model is
measured at its end: pass@k on problems of the test split. Processes with other --arms or --seeds can share an --out; one
--report with --store prints the tables of all and keeps the rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import fisher_exact

from entropilot.analysis.seeds import cell, differences
from entropilot.analysis.stopping import StopRule
from entropilot.errors import UserError
from entropilot.records import Run, read_run
from entropilot.reports.text import aligned
from entropilot.sandbox.tasks import DEFAULT_TIER, get_tier
from experiments.label_free.falls import FALL, course_of
from experiments.label_free.rewards import stopped
from experiments.label_free.signals import alarms, damage, limits_of, signals_of
from experiments.label_free.store import OutOfTime, arm, hour, train
from experiments.measured import measured
from experiments.runs import command, finished, keep, out_folder

NO_LABELS_YET = 9999  # visits of warm-up: the unlabelled prompts are never used
SAMPLES, PASS = 32, (1, 8, 32)  # of every model on 128 problems of the test split at T = 1

# By name: the recipe, and what differs from it.
ARMS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("empo", "ttrl", "empo_unscaled", "answer_mask", "scrl", "ttrl_teacher")},
    **{name: (name,) for name in ("gold_reward", "random_reward")},
    # A group of seven against one has H = 0.3768 nats; the window leaves it out, and the groups that agree have A = 0.
    "empo_no_dissenter": ("empo", "reward_args.threshold=window", "reward_args.low=0.38"),
    "empo_negative_clip": ("empo", "method=experiments.label_free.clipped:NegativeClip"),
}
for _share in (0.05, 0.25):
    _given = ("trapo", f"data.labelled_share={_share}")
    _name = f"{_share:.0%}".removesuffix("%")
    ARMS[f"trapo_{_name}"] = _given
    ARMS[f"mix_{_name}"] = (*_given, "reward_args={warm_up: 0, threshold: -1}")
    ARMS[f"labels_{_name}"] = (*_given, f"reward_args={{warm_up: {NO_LABELS_YET}}}")


@dataclass(frozen=True)
class Part:
    """Hold which arms run on which seeds, for how many updates, and on which tier."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    updates: int = 360
    tier: str = DEFAULT_TIER


PARTS = {
    "screen": Part(tuple(ARMS)[:8]),
    "labels": Part(
        (
            *("empo", "ttrl", "gold_reward"),
            *(name for name in ARMS if name.startswith(("trapo_", "mix_", "labels_"))),
        )
    ),
    "dissent": Part(("empo", "empo_no_dissenter", "empo_negative_clip", "empo_unscaled")),
    "confirm": Part(("empo", "ttrl"), tuple(range(11, 21)), 480),
    "hard": Part(("empo", "ttrl", "gold_reward"), tuple(range(21, 26)), tier="long"),
}


def recipe_of(name: str, seed: int, limit: int, part: Part) -> dict[str, Any]:
    """Return the recipe of an arm in the setting of a part."""
    recipe, *changes = ARMS[name]
    if part.tier != DEFAULT_TIER:  # that of the recipes
        length = get_tier(part.tier).max_completion_length
        changes += [f"model=sandbox:{part.tier}", f"data.source=sandbox:{part.tier}"]
        changes.append(f"grpo.max_completion_length={length}")
    return arm(recipe, seed, limit, part.updates, *changes)


def by_arm(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Return a table of the arms: means over seeds with half of the 95 % t interval, and what fell.

    Args:
        rows: by arm, of every run what `row_of` returns.
    """
    heads = ["arm", "seeds", "peak", "end", "fall", "fall less EMPO's", "fell", "Fisher's p"]
    table = [[*heads, "majority right", *(f"pass@{k}" for k in PASS)]]
    control = {row["seed"]: row["fall"] for row in rows.get("empo", ())}
    for name, runs in rows.items():
        falls = {row["seed"]: row["fall"] for row in runs}
        both = [seed for seed in falls if seed in control and name != "empo"]
        paired = differences([falls[s] for s in both], [control[s] for s in both])
        fell = sum(fall >= FALL for fall in falls.values())
        p = "–"
        if both:
            others = sum(fall >= FALL for fall in control.values())
            p = f"{fisher_exact([[fell, len(falls) - fell], [others, len(control) - others]])[1]:.2f}"
        columns = [[row[what] for row in runs] for what in ("peak", "end", "fall")]
        drawn = [[(row.get("pass") or {}).get(str(k)) for row in runs] for k in PASS]
        table.append(
            [
                *(name, str(len(runs)), *map(cell, columns)),
                *(cell(paired, sign=True) if both else "–", f"{fell} of {len(runs)}", p),
                *map(cell, ([row["majority"] for row in runs], *drawn)),
            ]
        )
    return table


def by_stop(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Return a table of the stop rule without labels: where it spoke, and accuracy there, at best later, at the end."""
    table = [["arm", "it spoke", "at step", "accuracy there", "best later", "end", "there less end"]]
    for name, runs in rows.items():
        spoken = [row for row in runs if row.get("stop")]
        if not spoken:
            continue
        columns = [[row["stop"][key] for row in spoken] for key in ("step", "there", "later")]
        ends = [row["end"] for row in spoken]
        gained = cell(differences(columns[1], ends), sign=True)
        table.append(
            [
                *(name, f"{len(spoken)} of {len(runs)}", cell(columns[0], ".0f")),
                *(*map(cell, columns[1:]), cell(ends), gained),
            ]
        )
    return table


def majority_accuracy(run: Run) -> float | None:
    """Return the share of right majorities in the last eight rollouts; None where no group votes."""
    column = run.column("semantic/majority_accuracy")[-8:]
    return sum(value for _, value in column) / len(column) if column else None


def row_of(folder: Path, seed: int, tier: str | None) -> dict[str, Any] | None:
    """Return what is kept of a run; None where it has not ended, or too soon for a course.

    The model is measured once on its tier; without a tier, or where the model is gone and was not measured, `pass` is None.
    """
    if not finished(folder):
        return None
    run = read_run(folder)
    if (course := course_of(run)) is None:
        return None
    row = {"seed": seed, **asdict(course), "fall": course.fall, "majority": majority_accuracy(run)}
    row |= {"signals": signals_of(run), "damage": damage(run), "stop": None, "pass": None}
    if (stop := stopped(run, StopRule())) is not None:
        row["stop"] = dict(zip(("step", "there", "later"), stop[1:4], strict=True))
    file, model = folder / "sampled.json", folder / "model"
    if tier is not None and (file.exists() or model.exists()):
        row["pass"] = passes(model, file, tier)
    return row


def passes(model: Path | str, file: Path, tier: str) -> dict[str, float]:
    """Return pass@k of a model on problems of its tier's test split, measured once."""
    found = measured(model, file, samples=SAMPLES, temperatures=(1,), tier=tier)["1"]["pass"]
    return {str(k): found[str(k)] for k in PASS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--limit", type=int, required=True, help="prompts, as the setting was fixed")
    parser.add_argument("--out", type=Path, help="default: runs/label_free/PART")
    parser.add_argument("--arms", help="comma-separated names, in place of the part's own")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the part's own, only these")
    parser.add_argument(
        "--tuned-on",
        type=Path,
        nargs="*",
        default=[],
        help="runs ARM-SEED that set the alarms; else the stored ones",
    )
    parser.add_argument("--until", type=hour, help="end at this time, HH:MM; the same command goes on later")
    parser.add_argument(
        "--store", type=Path, help="add a row of every run to this file (docs/results/label_free.json)"
    )
    parser.add_argument(
        "--report", action="store_true", help="train nothing; measure and print what there is"
    )
    settings = parser.parse_args()
    part = PARTS[settings.part]
    arms: Sequence[str] = settings.arms.split(",") if settings.arms else part.arms
    for name in arms:
        if name not in ARMS:
            raise UserError(f"--arms: the study has no arm {name!r}; it has: {', '.join(ARMS)}.")
    out = out_folder(settings.out or Path("runs/label_free") / settings.part)
    seeds = [seed for seed in part.seeds if settings.seeds is None or seed in settings.seeds]
    jobs = [(name, seed) for seed in seeds for name in arms]
    try:
        for name, seed in () if settings.report else jobs:
            train(out / f"{name}-{seed}", recipe_of(name, seed, settings.limit, part), settings.until)
    except OutOfTime:
        print("the time is up; the same command goes on from here")
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, seed in jobs:
        if (row := row_of(out / f"{name}-{seed}", seed, part.tier)) is not None:
            rows.setdefault(name, []).append(row)
    table = [["run", "peak", "at step", "lowest after", "end", "fall", "fell"]]
    for name, runs in rows.items():
        for row in runs:
            numbers = (f"{row[key]:.3f}" for key in ("lowest", "end", "fall"))
            table.append(
                [
                    *(f"{name}-{row['seed']}", f"{row['peak']:.3f}", str(row["peak_step"])),
                    *(*numbers, "yes" if row["fall"] >= FALL else "no"),
                ]
            )
    start = passes(f"sandbox:{part.tier}", out / "base.json", part.tier)
    base = keep(settings.store, "base", {part.tier: start})[part.tier]
    limits = _limits(settings.tuned_on, settings.store)
    kept = keep(settings.store, settings.part, rows)
    print(aligned(table), "", aligned(by_arm(kept)), sep="\n")
    print("the base:", ", ".join(f"pass@{k} {value:.3f}" for k, value in base.items()), end="\n\n")
    print(aligned(by_stop(kept)))
    if any(limit is not None for limit in limits.values()):
        print("", aligned(alarms(limits, [row for runs in kept.values() for row in runs])), sep="\n")


def _limits(tuned_on: Sequence[Path], store: Path | None) -> dict[str, float | None]:
    """Return the limits of the alarms: set on these runs, whose rows are kept, or on the rows that were kept."""
    rows = [
        row for path in tuned_on if (row := row_of(path, int(path.name.rpartition("-")[2]), None)) is not None
    ]
    if rows:
        return limits_of(keep(store, "tuned on", {"chains": rows})["chains"])
    kept = json.loads(store.read_text()) if store is not None and store.exists() else {}
    return limits_of(kept.get("tuned on", {}).get("chains", []))


if __name__ == "__main__":
    command(main)
