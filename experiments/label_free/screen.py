"""Screen cures of the fall: python -m experiments.label_free.screen --limit 256 --out runs/label_free/screen

EMPO and TTRL as they are, EMPO unscaled, the answer mask, SCRL and a slow teacher, beside the verifiable and a random
reward, on seeds 1 to 3 in the setting that `experiments.label_free.setting` fixed. Three seeds are a first look: an arm
without a cure shows no fall in all of them with probability 0.22, where two of five fall.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from entropilot.analysis.seeds import cell, differences
from entropilot.records import read_run
from entropilot.reports.text import aligned
from experiments.label_free.falls import FALL, course_of
from experiments.label_free.store import OutOfTime, arm, hour, train
from experiments.runs import command, finished, out_folder

ARMS = ("empo", "ttrl", "empo_unscaled", "answer_mask", "scrl", "ttrl_teacher")
CONTROLS = ("gold_reward", "random_reward")
SEEDS = (1, 2, 3)
UPDATES = 360
WINDOW = 8  # rollouts


def lead_of(folder: Path, rise: float = 0.05) -> tuple[int | None, int | None]:
    """Return the first step at which flips have risen, and the first at which majorities have fallen by 5 points.

    Each from the best mean over eight rollouts so far; None where that does not happen.
    """
    rows = read_run(folder)
    return (
        _first(rows.column("semantic/flip_rate"), rise, -1),
        _first(rows.column("semantic/majority_accuracy"), FALL, 1),
    )


def _first(measured: list[tuple], limit: float, better: int) -> int | None:
    if len(measured) < WINDOW:
        return None
    steps, values = zip(*measured, strict=True)
    smooth = better * np.convolve(values, np.full(WINDOW, 1 / WINDOW), mode="valid")
    lost = np.maximum.accumulate(smooth) - smooth
    places = np.flatnonzero(lost > limit + 1e-9)
    return int(steps[places[0] + WINDOW - 1]) if places.size else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/label_free/screen"))
    parser.add_argument("--limit", type=int, required=True, help="prompts, as the setting was fixed")
    parser.add_argument("--until", type=hour, help="end at this time, HH:MM; the same command goes on later")
    parser.add_argument("--report", action="store_true", help="print what there is; train nothing")
    settings = parser.parse_args()
    out = out_folder(settings.out)
    jobs = [(name, seed) for seed in SEEDS for name in (*ARMS, *CONTROLS)]
    try:
        for name, seed in jobs if not settings.report else ():
            train(out / f"{name}-{seed}", arm(name, seed, settings.limit, UPDATES), settings.until)
    except OutOfTime:
        print("the time is up; the same command goes on from here")
    done = [job for job in jobs if finished(out / f"{job[0]}-{job[1]}")]
    table = [
        ["run", "peak", "at step", "lowest after", "end", "fall", "fell", "flips rise", "majorities fall"]
    ]
    falls: dict[str, dict[int, float]] = {}
    for name, seed in done:
        folder = out / f"{name}-{seed}"
        found = course_of(folder)
        if found is None:
            continue
        falls.setdefault(name, {})[seed] = found.fall
        numbers = (found.lowest, found.end, found.fall)
        lead = ("–" if step is None else str(step) for step in lead_of(folder))
        table.append(
            [
                *(f"{name}-{seed}", f"{found.peak:.3f}", str(found.peak_step)),
                *(f"{number:.3f}" for number in numbers),
                *("yes" if found.fell else "no", *lead),
            ]
        )
    print(aligned(table))
    print(
        "\nfall after the peak, mean ± half of the 95 % t interval over seeds, and paired difference to EMPO\n"
    )
    table = [["arm", "seeds", "fall", "less EMPO's"]]
    for name, by_seed in falls.items():
        both = [seed for seed in by_seed if seed in falls.get("empo", {})]
        paired = differences([by_seed[s] for s in both], [falls["empo"][s] for s in both]) if both else []
        table.append([name, str(len(by_seed)), cell(list(by_seed.values())), cell(paired, sign=True)])
    print(aligned(table))


if __name__ == "__main__":
    command(main)
