"""Train one-shot entropy minimisation on SmolLM2, and show what the model writes before and after."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from entropilot.records import read_run
from entropilot.reports.text import aligned
from experiments.real_model.clock import Clock
from experiments.real_model.task import TEXT, file_of
from experiments.runs import entropilot, make, recipe

SHOWN = 6  # problems of the validation split
SAMPLES = 4
THREADS = os.cpu_count() or 1  # somebody waits for it


def written(model: str | Path, folder: Path) -> list[dict[str, Any]]:
    """Return problems with what a model writes: greedy, and sampled at T = 1; sampled once."""
    if not (folder / "result.json").exists():
        resume = ("--resume",) if folder.exists() else ()
        entropilot(
            *(
                "evaluate",
                "--model",
                model,
                "--data",
                file_of("validation"),
                "--reward",
                "exact",
                "--out",
                folder,
            ),
            *("--problems", SHOWN, "--samples", SAMPLES, "--temperature", "0,1", "--seed", 1, *TEXT, *resume),
            what=f"Sampling from {model}",
            threads=THREADS,
        )
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()[1:]]
    by_index: dict[int, dict[str, Any]] = {}
    for line in sorted(lines, key=lambda line: (line["index"], line["temperature"])):
        row = by_index.setdefault(line["index"], {"answer": line["answer"], "greedy": "", "sampled": []})
        texts = [text.strip() for text in line["texts"]]
        row |= {"greedy": texts[0]} if line["temperature"] == 0 else {"sampled": texts}
    return [by_index[index] for index in sorted(by_index)]


def show(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """Print the texts of two models side by side."""
    lines = [["answer", "greedy before", "after", "sampled before", "sampled after"]]
    for one, other in zip(before, after, strict=True):
        sampled = [" | ".join(repr(text)[1:-1] for text in row["sampled"]) for row in (one, other)]
        lines.append([one["answer"], repr(one["greedy"])[1:-1], repr(other["greedy"])[1:-1], *sampled])
    print(aligned(lines, (1, 2, 3, 4)))


def study(out: Path, model: str, seeds: list[int], clock: Clock) -> None:
    """Train `recipes/smollm2/entropy_min.yaml` with the first seed; print accuracy and texts."""
    values = recipe("smollm2/entropy_min", f"seed={seeds[0]}") | {"model": model}
    run = out / f"demo-{seeds[0]}"
    trained = make(run, values, threads=THREADS)
    for step, loss in read_run(run).column("entropy_min/loss"):
        print(
            f"update {step:.0f}: entropy {loss:.4f} nats at T = {values['method_args'].get('temperature', 0.5):g}"
        )
    for step, accuracy in read_run(run).column("validation/accuracy"):
        print(f"accuracy at T = 1 before update {step:.0f}: {accuracy:.3f}")
    show(written(model, out / "demo-before"), written(trained, out / f"demo-{seeds[0]}-after"))
