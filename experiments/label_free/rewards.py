"""EMPO, TTRL and their controls on the sandbox: python -m experiments.label_free --out runs/label_free

Trains recipes/{empo,ttrl,random_reward,format_reward,gold_reward}.yaml on every seed (a run that is finished is not
made again), measures every model and the base on the test split, and prints the tables of
docs/results/label_free.md: means with 95 % t intervals over seeds, paired differences to the controls, pass@k, and
where the label-free stop rule would have ended the runs that cluster.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from entropilot.analysis.seeds import cell
from entropilot.analysis.stopping import StopRule, label_free_stop
from entropilot.records import Run, read_run
from entropilot.reports.text import aligned
from experiments.measured import difference_cell, measured
from experiments.runs import command, make, out_folder, recipe, side_by_side

REWARDS = ("empo", "ttrl", "format_reward", "random_reward", "gold_reward")
SAMPLES = 64
KS = (1, 2, 4, 8, 16, 32, 64)


def on_test(found: dict) -> dict[str, float]:
    """Return the columns of the table that come from the test split."""
    drawn = found["1"]
    row = {"greedy": found["0"]["accuracy"], "sampled": drawn["accuracy"], "majority@64": drawn["majority"]}
    row |= {f"pass@{k}": drawn["pass"][str(k)] for k in KS}
    return row | {"semantic entropy": drawn["semantic entropy"], "length": drawn["length"]}


def one(folder: Path, reward: str, seed: int) -> dict[str, float]:
    """Train and measure one run, each unless it is done; return its row."""
    model = make(folder, recipe(reward, f"seed={seed}"))
    row = on_test(measured(model, folder / "test.json", samples=SAMPLES))
    run = read_run(folder)
    entropy = [values[1] for values in run.column("entropy/policy_T1")]
    return row | {"token entropy": float(np.mean(entropy[-5:]))}


def stopped(run: Run, rule: StopRule) -> tuple[str, float, float, float, float] | None:
    """Return (reason, step, accuracy there, best accuracy later, last accuracy), each a mean of three measurements."""
    columns = ("semantic/entropy", "entropy/policy_T1", "semantic/majority_share")
    measured = run.column(*columns)
    flips = dict(run.column("semantic/flip_rate"))
    series = [*zip(*measured, strict=True), [flips.get(row[0], np.nan) for row in measured]]
    stop = label_free_stop(*series, rule=rule) if measured else None
    if stop is None:
        return None
    steps, accuracy = zip(*run.column("validation/accuracy"), strict=True)
    smooth = np.convolve(accuracy, np.full(3, 1 / 3), mode="valid")  # smooth[i] ends at measurement i + 2
    here = max(2, int(np.searchsorted(steps, stop.step, side="right")) - 1)
    return stop.reason, stop.step, smooth[here - 2], float(smooth[here - 2 :].max()), float(smooth[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/label_free"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    settings = parser.parse_args()
    out = out_folder(settings.out)
    base = on_test(measured("sandbox", out / "base.json", samples=SAMPLES))
    jobs = [(reward, seed) for seed in settings.seeds for reward in REWARDS]
    rows = side_by_side(lambda job: one(out / f"{job[0]}-{job[1]}", *job), jobs, settings.jobs)
    found = {r: [row for (reward, _), row in zip(jobs, rows, strict=True) if reward == r] for r in REWARDS}
    print(
        f"seeds {settings.seeds}; test split, 128 problems x {SAMPLES} samples at T = 1; mean ± half of the"
    )
    print("95 % t interval over seeds\n")
    table = [["", "base", *REWARDS]]
    for name in found["empo"][0]:
        start = f"{base[name]:.3f}" if name in base else "–"
        table.append([name, start, *(cell([row[name] for row in runs]) for runs in found.values())])
    print(aligned(table))
    print("\npaired differences over seeds\n")
    columns = ("greedy", "sampled", "pass@64", "token entropy")
    table = [["", *columns]]
    pairs = [("empo", c) for c in ("random_reward", "format_reward", "ttrl", "gold_reward")]
    for first, second in [*pairs, ("ttrl", "gold_reward")]:
        cells = [difference_cell(found[first], found[second], name) for name in columns]
        table.append([f"{first} - {second}", *cells])
    print(aligned(table))
    print("\nthe stop rule that needs no label, and the validation accuracy that it could not see\n")
    table = [["run", "reason", "step", "accuracy there", "best later", "at the end", "lost by stopping"]]
    for reward in ("empo", "ttrl"):
        for seed in settings.seeds:
            stop = stopped(read_run(out / f"{reward}-{seed}"), StopRule())
            values = ["never", "", "", "", "", ""]
            if stop is not None:
                reason, step, here, best, last = stop
                values = [reason, f"{step:g}", *(f"{x:.3f}" for x in (here, best, last, best - here))]
            table.append([f"{reward}-{seed}", *values])
    print(aligned(table, (0, 1)))


if __name__ == "__main__":
    command(main)
