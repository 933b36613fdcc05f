"""Compare cures of the fall: python -m experiments.label_free.compare screen --limit 256 --out runs/label_free/screen

In the setting that `experiments.label_free.setting` fixed:

screen   EMPO and TTRL as they are, EMPO unscaled, the answer mask, SCRL and a slow teacher, beside the verifiable and a
         random reward, on seeds 1 to 3. A first look: an arm without a cure shows no fall in three seeds with
         probability 0.22, where two of five fall.
labels   5 and 25 % of the answers: TraPO, labels and majorities mixed, and the labels alone, on seeds 1 to 3.
dissent  what the first dissenter of a group sets off: EMPO without groups of one dissenter, and unscaled, seeds 1 to 3.
confirm  EMPO, TTRL and, by --arms, the two best cures, on ten new seeds, 480 updates.
hard     The same and the verifiable reward on the tier `long`, where the base's majority is often wrong, on five seeds.

The alarm of every signal that needs no label is set on the runs of --tuned-on and reported on these.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import fisher_exact

from entropilot.analysis.seeds import cell, differences
from entropilot.errors import UserError
from entropilot.records import read_run
from entropilot.reports.text import aligned
from experiments.label_free.falls import Course, course_of
from experiments.label_free.signals import alarms
from experiments.label_free.store import OutOfTime, arm, hour, train
from experiments.runs import command, finished, keep, out_folder

NO_LABELS_YET = 9999  # visits of warm-up: the unlabelled prompts are never used

# By name: the recipe, and what differs from it.
ARMS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("empo", "ttrl", "empo_unscaled", "answer_mask", "scrl", "ttrl_teacher")},
    **{name: (name,) for name in ("gold_reward", "random_reward")},
    # A group of seven against one has H = 0.3768 nats; the window leaves it out, and the groups that agree have A = 0.
    "empo_no_dissenter": ("empo", "reward_args.threshold=window", "reward_args.low=0.38"),
}
for _share in (0.05, 0.25):
    _given = ("trapo", f"data.labelled_share={_share}")
    _name = f"{_share:.0%}".removesuffix("%")
    ARMS[f"trapo_{_name}"] = _given
    ARMS[f"mix_{_name}"] = (*_given, "reward_args={warm_up: 0, threshold: -1}")
    ARMS[f"labels_{_name}"] = (*_given, f"reward_args={{warm_up: {NO_LABELS_YET}}}")


@dataclass(frozen=True)
class Part:
    """Hold which arms run on which seeds, for how many updates, and what differs from the study's setting."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    updates: int = 360
    changes: tuple[str, ...] = ()


PARTS = {
    "screen": Part(tuple(ARMS)[:8]),
    "labels": Part(tuple(name for name in ARMS if name.startswith(("trapo_", "mix_", "labels_")))),
    "dissent": Part(("empo", "empo_no_dissenter", "empo_unscaled")),
    "confirm": Part(("empo", "ttrl"), tuple(range(11, 21)), 480),
    "hard": Part(
        ("empo", "ttrl", "gold_reward"),
        tuple(range(21, 26)),
        changes=("model=sandbox:long", "data.source=sandbox:long", "grpo.max_completion_length=60"),
    ),
}


def recipe_of(name: str, seed: int, limit: int, part: Part) -> dict[str, Any]:
    """Return the recipe of an arm in the setting of a part."""
    recipe, *changes = ARMS[name]
    return arm(recipe, seed, limit, part.updates, *changes, *part.changes)


def by_arm(found: Mapping[tuple[str, int], tuple[Course, float | None]]) -> list[list[str]]:
    """Return a table of the arms: means over seeds with half of the 95 % t interval, and what fell.

    Args:
        found: by arm and seed, the course of validation accuracy, and the last majority accuracy.
    """
    heads = [
        "arm",
        "seeds",
        "peak",
        "end",
        "fall",
        "fall less EMPO's",
        "fell",
        "Fisher's p",
        "majority right",
    ]
    table = [heads]
    names = list(dict.fromkeys(name for name, _ in found))
    courses = {
        name: {seed: value[0] for (other, seed), value in found.items() if other == name} for name in names
    }
    control = courses.get("empo", {})
    for name, by_seed in courses.items():
        runs = list(by_seed.values())
        both = [seed for seed in by_seed if seed in control and name != "empo"]
        paired = differences([by_seed[s].fall for s in both], [control[s].fall for s in both])
        fell = sum(run.fell for run in runs)
        p = "–"
        if both:
            rows = [[fell, len(runs) - fell]]
            others = sum(run.fell for run in control.values())
            rows.append([others, len(control) - others])
            p = f"{fisher_exact(rows)[1]:.2f}"
        columns = [[getattr(run, what) for run in runs] for what in ("peak", "end", "fall")]
        right = [value[1] for (other, _), value in found.items() if other == name]
        table.append(
            [
                *(name, str(len(runs)), *map(cell, columns)),
                *(cell(paired, sign=True) if both else "–", f"{fell} of {len(runs)}", p, cell(right)),
            ]
        )
    return table


def majority_accuracy(folder: Path) -> float | None:
    """Return the share of right majorities in the last eight rollouts; None where no group votes."""
    column = read_run(folder).column("semantic/majority_accuracy")[-8:]
    return sum(value for _, value in column) / len(column) if column else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--limit", type=int, required=True, help="prompts, as the setting was fixed")
    parser.add_argument("--out", type=Path, help="default: runs/label_free/PART")
    parser.add_argument("--arms", help="comma-separated names, in place of the part's own")
    parser.add_argument("--tuned-on", type=Path, nargs="*", default=[], help="runs that set the alarms")
    parser.add_argument("--until", type=hour, help="end at this time, HH:MM; the same command goes on later")
    parser.add_argument(
        "--store", type=Path, help="add a row of every run to this file (docs/results/label_free.json)"
    )
    parser.add_argument("--report", action="store_true", help="print what there is; train nothing")
    settings = parser.parse_args()
    part = PARTS[settings.part]
    arms: Sequence[str] = settings.arms.split(",") if settings.arms else part.arms
    for name in arms:
        if name not in ARMS:
            raise UserError(f"--arms: the study has no arm {name!r}; it has: {', '.join(ARMS)}.")
    out = out_folder(settings.out or Path("runs/label_free") / settings.part)
    jobs = [(name, seed) for seed in part.seeds for name in arms]
    try:
        for name, seed in jobs if not settings.report else ():
            train(out / f"{name}-{seed}", recipe_of(name, seed, settings.limit, part), settings.until)
    except OutOfTime:
        print("the time is up; the same command goes on from here")
    found: dict[tuple[str, int], tuple[Course, float | None]] = {}
    table = [["run", "peak", "at step", "lowest after", "end", "fall", "fell"]]
    for name, seed in jobs:
        folder = out / f"{name}-{seed}"
        course = course_of(folder) if finished(folder) else None
        if course is None:
            continue
        found[name, seed] = course, majority_accuracy(folder)
        numbers = (course.lowest, course.end, course.fall)
        table.append(
            [
                *(folder.name, f"{course.peak:.3f}", str(course.peak_step)),
                *(*(f"{number:.3f}" for number in numbers), "yes" if course.fell else "no"),
            ]
        )
    print(aligned(table), "", aligned(by_arm(found)), sep="\n")
    rows: dict[str, list[dict[str, Any]]] = {}
    for (name, seed), (course, right) in found.items():
        row = {"seed": seed, **asdict(course), "fall": course.fall, "majority": right}
        rows.setdefault(name, []).append(row)
    keep(settings.store, settings.part, rows)
    tuned = [path for path in settings.tuned_on if finished(path)]
    if tuned:
        print("", aligned(alarms(tuned, [out / f"{name}-{seed}" for name, seed in found])), sep="\n")


if __name__ == "__main__":
    command(main)
