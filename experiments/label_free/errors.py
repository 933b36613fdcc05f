"""Ask what a model that fell does wrong: python -m experiments.label_free.errors runs/label_free/confirm

Greedy answers of every model to 256 problems of the test split of `chains`. A solution is written with whole steps
(`3+4=7;…`), with running values alone (`7;…`), or not at all (`#7`); its first wrong value is compared with what the
operations of the other places would have given there.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropilot.analysis.seeds import cell
from entropilot.errors import UserError
from entropilot.reports.text import aligned
from entropilot.sandbox.tasks import OPERATIONS
from experiments.runs import command, finished, keep, once, python

PROBLEMS = 256
STEP = re.compile(r"([+*-])(\d)")


@dataclass(frozen=True)
class Slip:
    """Hold the first wrong value of a solution.

    Attributes:
        place: of the operation, from 0.
        reads: the places, counted from it, whose operation gives the written value there: 1 is the next one.
        last: whether there is no next one.
    """

    place: int
    reads: tuple[int, ...]
    last: bool


def is_short(text: str) -> bool:
    """Return whether a solution writes running values alone."""
    return ";" in text and "=" not in text


def slip_of(problem: str, text: str) -> Slip | None:
    """Return the first wrong value of a solution; None where all are right, or where there are too few."""
    value = int(problem[0])
    operations = [(sign, int(digit)) for sign, digit in STEP.findall(problem)]
    written = [part.rpartition("=")[2] for part in text.partition("#")[0].split(";")]
    written = written[
        : next((i for i, found in enumerate(written) if not found.isdigit()), None)
    ]  # cut, or malformed
    for place, found in enumerate(written[: len(operations)]):
        there = [str(OPERATIONS[sign](value, digit)) for sign, digit in operations]
        if found != there[place]:
            reads = tuple(
                other - place for other, text in enumerate(there) if other != place and text == found
            )
            return Slip(place, reads, last=place == len(operations) - 1)
        value = int(found)
    return None


def row_of(problems: Sequence[str], texts: Sequence[str], right: Sequence[bool]) -> dict[str, Any]:
    """Return what is kept of a model: how it writes, and where and how its wrong answers begin to be wrong."""
    wrong = [(p, t) for p, t, ok in zip(problems, texts, right, strict=True) if not ok]
    slips = [slip for pair in wrong if (slip := slip_of(*pair)) is not None]
    places = Counter(slip.place for slip in slips)
    return {
        "accuracy": sum(right) / len(right),
        "short": sum(map(is_short, texts)) / len(texts),
        "direct": sum(";" not in text for text in texts) / len(texts),
        "wrong": len(wrong),
        "slips": len(slips),
        "commonest place": max(places.values(), default=0),
        "next": sum(1 in slip.reads for slip in slips),
        "had a next": sum(not slip.last for slip in slips),
        # What a reading of another place would give by chance: the last one's, which no misreading explains as well.
        "last": sum(-1 in slip.reads for slip in slips),
        "had a last": sum(slip.place > 0 for slip in slips),
    }


def measure(model: str, result: Path) -> None:
    """Write the row of a model; in a process of its own."""
    import torch

    from entropilot.evaluation.in_memory import evaluate
    from entropilot.inputs.models import load_model, quiet
    from entropilot.inputs.problems import load_problems
    from entropilot.recipes.schema import Data, Recipe
    from entropilot.rewards.named import build_reward

    quiet()
    torch.set_num_threads(1)
    loaded, tokenizer = load_model(Recipe(model=model))
    rows = load_problems(Data(source="sandbox:chains", split="test", limit=PROBLEMS)).to_list()
    reward = build_reward("sandbox", "chains")
    found = evaluate(loaded, tokenizer, rows, reward, temperature=0, max_new_tokens=40, samples=1, seed=1)
    right = [score == 1 for (score,) in found.scores]
    problems, texts = [row["prompt"][-1]["content"] for row in rows], [text for (text,) in found.completions]
    once(result, lambda: row_of(problems, texts, right))


def table(rows: dict[str, Iterable[dict[str, Any]]]) -> list[list[str]]:
    """Return a line for the models of each arm that have ten wrong answers or more, and one for the others."""
    lines = [
        [
            "models",
            "n",
            "accuracy",
            "short",
            "slips at one place",
            "read the next operation",
            "the one before",
        ]
    ]
    for arm, found in rows.items():
        for words, kept in (
            ("wrong", [row for row in found if row["wrong"] >= 10]),
            ("right", [row for row in found if row["wrong"] < 10]),
        ):
            if kept:
                lines.append(
                    [
                        *(f"{arm}, {words}", str(len(kept)), cell([row["accuracy"] for row in kept])),
                        cell([row["short"] for row in kept]),
                        _share(kept, "commonest place", "slips"),
                        _share(kept, "next", "had a next"),
                        _share(kept, "last", "had a last"),
                    ]
                )
    return lines


def _share(rows: Sequence[dict[str, Any]], part: str, whole: str) -> str:
    count = sum(row[whole] for row in rows)
    return f"{sum(row[part] for row in rows)} of {count}" if count else "–"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder of finished runs, as compare leaves them")
    parser.add_argument("--one", type=Path, help="measure this model into this file, and nothing else")
    parser.add_argument("--store", type=Path, help="add a row of every run to this file")
    settings = parser.parse_args()
    if settings.one is not None:
        measure(str(settings.runs), settings.one)
        return
    if not settings.runs.is_dir():
        raise UserError(f"{settings.runs} is no folder; give one with runs of compare on `chains`.")
    rows: dict[str, list[dict[str, Any]]] = {}
    for folder in sorted(settings.runs.resolve().glob("*-*/")):
        arm, _, seed = folder.name.rpartition("-")
        if not (seed.isdigit() and finished(folder)):
            continue
        result = folder / "errors.json"
        if not result.exists():
            what = f"Measuring {folder.name}"
            python("-m", "experiments.label_free.errors", folder / "model", "--one", result, what=what)
        rows.setdefault(arm, []).append({"seed": int(seed)} | json.loads(result.read_text()))
    kept = keep(settings.store, "errors", rows)
    print(aligned(table(kept)))


if __name__ == "__main__":
    command(main)
