"""What the base model does, and how any model of the experiments is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.real_model.clock import Clock
from experiments.real_model.task import EXAMPLE, TEXT, file_of
from experiments.runs import entropilot

TESTED = 32  # problems of the test split
SAMPLES = 16
RANKED = 32  # problems of the training split, each sampled RANK_SAMPLES times, among which the one prompt is chosen
RANK_SAMPLES = 64
JUDGED = ("--judge", "exact", "--extract", "last_line")


def measured(model: str | Path, folder: Path) -> dict[str, Any]:
    """Return what a model does on the test problems, measured once: greedy, and at T = 1.

    Raises:
        UserError: the evaluation failed.
    """
    result = folder / "result.json"
    if not result.exists():
        how = ("--problems", TESTED, "--samples", SAMPLES, "--temperature", "0,1", "--seed", 1)
        resume = ("--resume",) if folder.exists() else ()
        entropilot(
            *("evaluate", "--model", model, "--data", file_of("test"), "--reward", "exact", "--out", folder),
            *(*TEXT, *how, *resume),
            what=f"Measuring {model}",
        )
    greedy, drawn = json.loads(result.read_text())["results"]
    names = {"accuracy": "avg@16", "pass@16": "pass@16", "token_entropy": "entropy", "tokens": "tokens"}
    row = {"greedy": greedy["accuracy"], **{to: drawn[name] for name, to in names.items()}}
    intervals = {"greedy": greedy["intervals"]["accuracy"]}
    row |= {f"pass@{k}": drawn[f"pass@{k}"] for k in (2, 4, 8) if f"pass@{k}" in drawn}
    return row | {"intervals": intervals | {to: drawn["intervals"].get(name) for name, to in names.items()}}


def colder(model: str | Path, folder: Path) -> dict[str, Any]:
    """Return what a model does on the test problems at T = 0.5, a control of what only sharpens it; measured once.

    Raises:
        UserError: the evaluation failed.
    """
    if not (folder / "result.json").exists():
        how = ("--problems", TESTED, "--samples", SAMPLES, "--temperature", 0.5, "--seed", 1)
        entropilot(
            *("evaluate", "--model", model, "--data", file_of("test"), "--reward", "exact", "--out", folder),
            *(*TEXT, *how),
            what=f"Measuring {model}",
        )
    (found,) = json.loads((folder / "result.json").read_text())["results"]
    row = {"avg@16": found["accuracy"], "pass@16": found["pass@16"], "entropy": found["token_entropy"]}
    return row | {"intervals": {"avg@16": found["intervals"]["accuracy"]}}


def shifted(base: str | Path, trained: str | Path, file: Path) -> dict[str, Any]:
    """Return how a model's logits on the test problems differ from the base's, at T = 1; measured once.

    Raises:
        UserError: the comparison failed.
    """
    if not file.exists():
        compared = ("--model", base, "--model", trained, "--data", file_of("test"))
        entropilot("logits", *compared, *TEXT, "--temperature", 1, "--out", file, what="Comparing the logits")
    return json.loads(file.read_text())["differences"][0]


def ranking(out: Path, model: str, top: int) -> Path:
    """Return the file of the first training prompts by the variance of 64 samples, made once."""
    file = out / f"ranked{top}.jsonl"
    if not file.exists():
        how = ("--k", RANK_SAMPLES, "--problems", RANKED, "--seed", 0, "--show", 0, *JUDGED, *TEXT)
        entropilot(
            *("prompts", "rank", "--model", model, "--data", file_of("train"), "--top", top, "--out", file),
            *how,
            what="Ranking the prompts",
        )
    return file


def study(out: Path, model: str, seeds: list[int], clock: Clock) -> None:
    """Measure the base model, and rank the training prompts; both are needed by every study."""
    ranked = ranking(out, model, RANKED)
    right = [json.loads(line)["selection"] for line in ranked.read_text().splitlines()]
    rate = sum(row["correct"] for row in right) / sum(row["samples"] for row in right)
    solved = sum(row["correct"] > 0 for row in right) / len(right)
    print(f"training problems: {len(right)}, pass@1 {rate:.3f}, pass@{RANK_SAMPLES} {solved:.3f}")
    cold = colder(model, out / "base-T0.5")
    print("test problems at T = 0.5:", *(f"{name} {cold[name]:.3f}" for name in ("avg@16", "pass@16")))
    row = measured(model, out / "base")
    print(
        "test problems:", *(f"{name} {row[name]:.3f}" for name in ("greedy", "avg@16", "pass@16", "entropy"))
    )


def prompt_file(out: Path, model: str, choice: str, seed: int) -> Path:
    """Return a file with one training prompt: that of largest variance, or a random one of the ranked ones.

    The file holds the problem as the data do, without the example in front of it.
    """
    file = out / (f"prompt-{choice}.jsonl" if choice == "variance" else f"prompt-{choice}-{seed}.jsonl")
    if not file.exists():
        rows = [json.loads(line) for line in ranking(out, model, RANKED).read_text().splitlines()]
        place = 0 if choice == "variance" else (7 * seed) % (RANKED - 1) + 1  # any but the first
        row = rows[place]
        kept = {"prompt": row["prompt"].removeprefix(EXAMPLE), "answer": row["answer"]}
        file.write_text(json.dumps(kept) + "\n")
    return file
