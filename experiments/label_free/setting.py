"""Find the setting in which EMPO alone falls: python -m experiments.label_free.setting --out runs/label_free/setting

EMPO on `data.limit` prompts of sandbox:chains for 480 updates, on three seeds that no arm is reported on. Prints, for
every limit and horizon, the peak of validation accuracy, the end, and how many of the runs lose 5 points or more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from entropilot.records import read_run
from entropilot.reports.text import aligned
from experiments.label_free.falls import course_of
from experiments.label_free.store import OutOfTime, arm, hour, train
from experiments.runs import command, out_folder

SEEDS = (101, 102, 103)
LIMITS = (256, 512)
UPDATES = 480
HORIZONS = (120, 240, 360, 480)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/label_free/setting"))
    parser.add_argument("--limits", type=int, nargs="+", default=LIMITS)
    parser.add_argument("--until", type=hour, help="end at this time, HH:MM; the same command goes on later")
    parser.add_argument("--report", action="store_true", help="print what there is; train nothing")
    settings = parser.parse_args()
    out = out_folder(settings.out)
    jobs = [(limit, seed) for limit in settings.limits for seed in SEEDS]
    try:
        for limit, seed in jobs if not settings.report else ():
            train(out / f"empo-{limit}-{seed}", arm("empo", seed, limit, UPDATES), settings.until)
    except OutOfTime:
        print("the time is up; the same command goes on from here")
    table = [
        ["prompts", "updates", "seed", "start", "peak", "at step", "lowest after", "end", "fall", "fell"]
    ]
    for limit, seed in jobs:
        folder = out / f"empo-{limit}-{seed}"
        if not (folder / "run.jsonl").exists():
            continue
        run = read_run(folder)
        for horizon in HORIZONS:
            found = course_of(run, horizon)
            if found is None:
                continue
            numbers = (found.lowest, found.end, found.fall)
            table.append(
                [
                    *map(str, (limit, horizon, seed)),
                    *(f"{found.start:.3f}", f"{found.peak:.3f}", str(found.peak_step)),
                    *(f"{number:.3f}" for number in numbers),
                    "yes" if found.fell else "no",
                ]
            )
    print(aligned(table))


if __name__ == "__main__":
    command(main)
