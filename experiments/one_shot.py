"""One-shot entropy minimisation and its neighbours on the sandbox: python -m experiments.one_shot --out runs/one_shot

Per seed: the prompt of largest variance is chosen by `prompts rank`, entropy is minimised on it for 50 updates
(every checkpoint is measured), on 16 prompts, on a random prompt, before and after GRPO, and at four training
temperatures. Prints the tables of docs/methods/entropy_min.md: means with 95 % t intervals over seeds, paired
differences. What is there is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entropilot.analysis.seeds import cell, differences
from entropilot.records import read_run
from entropilot.reports.text import aligned
from experiments.measured import measured
from experiments.runs import command, entropilot, keep, make, out_folder, recipe, side_by_side

CHECKPOINTS = (1, 2, 5, 10, 20, 50)
TEMPERATURES = (0.25, 0.5, 0.75, 1.0)
EVALUATED = (0, 0.25, 0.5, 1)
SAMPLES = 16
LOGITS = ("em 10", "grpo", "em 10, then grpo")  # beside the base
STATISTICS = ("mean", "sd", "skewness", "entropy", "top1", "candidates")
PAIRS = [
    *((f"em {b}", f"em {a}") for a, b in zip(CHECKPOINTS, CHECKPOINTS[1:], strict=False)),
    ("em 50", "em 10"),
    ("em 10", "em 10, random prompt"),
    ("em 10", "em 10, 16 prompts"),
    ("em 10", "format only"),
    ("em 10, then grpo", "grpo"),
    ("grpo, then em 10", "grpo"),
    ("em 10", "grpo"),
]
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def chosen(out: Path, seed: int, top: int) -> Path:
    """Return the file of the first prompts by variance, of 64 problems with 16 samples each."""
    file = out / f"chosen{top}-{seed}.jsonl"
    if not file.exists():
        ranking = ("--model", "sandbox", "--data", "sandbox:chains", "--k", 16, "--problems", 64)
        entropilot(
            "prompts",
            "rank",
            *ranking,
            "--max-tokens",
            40,
            "--seed",
            seed,
            "--top",
            top,
            "--out",
            file,
            "--show",
            0,
            what="Ranking the prompts",
        )
    return file


def from_file(file: Path) -> tuple[str, ...]:
    """Return the settings that train on a file of prompts alone and validate on the sandbox."""
    return (f"data.source={file}", "data.limit=null", "reward=none", "validate.data=sandbox:chains")


def train_all(out: Path, seed: int) -> dict[str, Path]:
    """Train everything of one seed; returns the models by name."""
    one, many = from_file(chosen(out, seed, 1)), from_file(chosen(out, seed, 16))
    models: dict[str, Path] = {}
    long = out / f"em50-{seed}"
    keep = ("method_args.updates=50", "grpo.save_steps=1", "grpo.save_total_limit=50")
    make(long, recipe("entropy_min", f"seed={seed}", *one, *keep))
    for updates in CHECKPOINTS:
        models[f"em {updates}"] = long / "checkpoints" / f"checkpoint-{updates}"
    wide = ("method_args.prompts_per_update=16", "grpo.num_generations=4")
    models["em 10, 16 prompts"] = make(
        out / f"em16-{seed}", recipe("entropy_min", f"seed={seed}", *many, *wide)
    )
    random = ("data.limit=1", f"data.seed={seed}")
    models["em 10, random prompt"] = make(
        out / f"emrandom-{seed}", recipe("entropy_min", f"seed={seed}", *random)
    )
    models["grpo"] = make(out / f"grpo-{seed}", recipe("grpo", f"seed={seed}"))
    before = f"model={models['em 10']}"
    models["em 10, then grpo"] = make(out / f"em_grpo-{seed}", recipe("grpo", f"seed={seed}", before))
    after = f"model={models['grpo']}"
    models["grpo, then em 10"] = make(
        out / f"grpo_em-{seed}", recipe("entropy_min", f"seed={seed}", *one, after)
    )
    for temperature in TEMPERATURES:
        how = (f"method_args.temperature={temperature}",)
        models[f"T {temperature:g}"] = make(
            out / f"emt{temperature:g}-{seed}", recipe("entropy_min", f"seed={seed}", *one, *how)
        )
    models["format only"] = make(out / f"format-{seed}", recipe("format_reward", f"seed={seed}"))
    return models


def row_of(found: dict[str, Any]) -> dict[str, float]:
    """Return the columns of the main table."""
    drawn = found["1"]
    row = {"greedy": found["0"]["accuracy"], "avg@16": drawn["accuracy"], "pass@16": drawn["pass"]["16"]}
    return row | {name: drawn[name] for name in ("majority", "semantic entropy", "length")}


def logit_shift(out: Path, seed: int, models: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Return the statistics of the logits of base, EM, RL and EM→RL of a seed, measured once."""
    file = out / f"logits-{seed}.json"
    if not file.exists():
        given = [part for name in LOGITS for part in ("--model", models[name])]
        entropilot(
            "logits",
            "--model",
            "sandbox",
            *given,
            "--data",
            "sandbox:chains",
            "--max-tokens",
            40,
            "--out",
            file,
            what="The study of logits",
        )
    studied = json.loads(file.read_text())["models"]
    return {
        name: {statistic: found[statistic]["value"] for statistic in STATISTICS}
        for name, found in zip(("base", *LOGITS), studied, strict=True)
    }


def over_seeds(base: Mapping[str, Any], found: Rows) -> list[list[str]]:
    """Return the rows of the first table: what every model does, means with intervals."""
    columns = [name for name in base if name != "seed"]
    rows = [["", *columns], ["base", *(f"{base[column]:.3f}" for column in columns)]]
    return rows + [
        [name, *(cell([run[column] for run in runs]) for column in columns)] for name, runs in found.items()
    ]


def paired(base: Mapping[str, Any], found: Rows) -> list[list[str]]:
    """Return the rows of the second table: differences, paired by seed; the base has one value."""
    columns = ("greedy", "avg@16", "pass@16")
    rows = [["", *columns]]
    every = {"base": [base] * len(found["em 10"])} | dict(found)
    for one, other in [("em 10", "base"), ("em 50", "base"), *PAIRS]:
        both = [every[name] for name in (one, other)]
        values = [differences(*([run[column] for run in runs] for runs in both)) for column in columns]
        rows.append([f"{one} − {other}", *(cell(value, sign=True) for value in values)])
    return rows


def by_temperature(base: Mapping[str, float], sweep: Rows) -> list[list[str]]:
    """Return the rows of the third table: accuracy by temperature of training and of evaluation."""
    rows = [["", *(f"T = {t:g}" for t in EVALUATED)]]
    rows.append(["base", *(f"{base[f'{t:g}']:.3f}" for t in EVALUATED)])
    for name, runs in sweep.items():
        cells = [cell([run[f"{t:g}"] for run in runs]) for t in EVALUATED]
        rows.append([f"trained at {name.removeprefix('T ')}", *cells])
    return rows


def of_logits(logits: Rows) -> list[list[str]]:
    """Return the rows of the fourth table: the logits of four models."""
    rows = [["", *STATISTICS]]
    return rows + [
        [name, *(cell([run[statistic] for run in runs]) for statistic in STATISTICS)]
        for name, runs in logits.items()
    ]


def draw(file: Path, out: Path, seeds: list[int], results: list[Any], base: dict[str, float]) -> None:
    """Draw accuracy and loss against updates, a thin line per seed and a thick one for the mean; needs matplotlib."""
    import numpy as np
    from matplotlib import pyplot as plt

    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(7, 5.5), height_ratios=(2, 1))
    updates = [0, *CHECKPOINTS]
    for column, colour in (("avg@16", "tab:blue"), ("greedy", "tab:orange"), ("pass@16", "tab:green")):
        lines = [[base[column], *(found[f"em {n}"][column] for n in CHECKPOINTS)] for found, *_ in results]
        for line in lines:
            top.plot(updates, line, color=colour, alpha=0.25, linewidth=0.8)
        top.plot(updates, np.mean(lines, axis=0), color=colour, linewidth=2, marker="o", label=column)
    losses = []
    for seed in seeds:
        rows = read_run(out / f"em50-{seed}").column("entropy_min/loss")
        losses.append([loss for _, loss in rows])
        bottom.semilogy(range(1, len(rows) + 1), losses[-1], color="black", alpha=0.25, linewidth=0.8)
    bottom.semilogy(range(1, len(losses[0]) + 1), np.mean(losses, axis=0), color="black", linewidth=2)
    top.set_ylabel("held-out accuracy")
    top.legend(loc="center right")
    bottom.set_ylabel("loss, nats")
    bottom.set_xlabel("updates on one prompt")
    for axis in (top, bottom):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/one_shot"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--jobs", type=int, default=2, help="seeds side by side, one thread each")
    parser.add_argument(
        "--figure", type=Path, help="draw accuracy against updates into this file (matplotlib)"
    )
    parser.add_argument(
        "--store", type=Path, help="keep a row of every model here (docs/results/one_shot.json)"
    )
    settings = parser.parse_args()
    out = out_folder(settings.out)

    def of_seed(seed: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        models = train_all(out, seed)
        found, sweep = {}, {}
        for name, model in models.items():
            stem = name.replace(" ", "_").replace(",", "")
            if name.startswith("T "):
                by_t = measured(model, out / f"{stem}-{seed}.json", samples=8, temperatures=EVALUATED)
                sweep[name] = {t: values["accuracy"] for t, values in by_t.items()}
            else:
                found[name] = row_of(measured(model, out / f"{stem}-{seed}.json", samples=SAMPLES))
        return found, sweep, logit_shift(out, seed, models)

    base = row_of(measured("sandbox", out / "base.json", samples=SAMPLES))
    swept = measured("sandbox", out / "base-sweep.json", samples=8, temperatures=EVALUATED)
    base_sweep = {t: values["accuracy"] for t, values in swept.items()}
    results = side_by_side(of_seed, settings.seeds, settings.jobs)
    if settings.figure:
        draw(settings.figure, out, settings.seeds, results, base)
    models, sweep, logits = (
        {
            name: [
                {"seed": seed} | parts[place][name]
                for seed, parts in zip(settings.seeds, results, strict=True)
            ]
            for name in results[0][place]
        }
        for place in range(3)
    )
    parts = {"models": models, "temperatures": sweep, "logits": logits}
    parts["base"] = {"models": [base], "temperatures": [base_sweep]}
    for part, rows in parts.items():
        keep(settings.store, part, rows)
    print(
        f"seeds {settings.seeds}; test split, 128 problems x {SAMPLES} samples at T = 1; mean ± half of the"
    )
    print("95 % t interval over seeds\n")
    print(aligned(over_seeds(base, models)))
    print("\npaired differences over seeds\n")
    print(aligned(paired(base, models)))
    print("\naccuracy by training temperature (rows) and evaluation temperature (columns)\n")
    print(aligned(by_temperature(base_sweep, sweep)))
    print("\nraw logits at generated positions\n")
    print(aligned(of_logits(logits)))


if __name__ == "__main__":
    command(main)
