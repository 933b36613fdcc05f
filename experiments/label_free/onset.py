"""Ask how a fall begins: python -m experiments.label_free.onset runs/label_free/onset/ttrl-14

The run was made again with every completion kept (`probe.tokens_every: 4`, `probe.tokens_rows: 256`). For every rollout:
how many majorities are wrong, what share of all advantages their groups have, where the answer that won goes wrong, and
how undecided the policy was at that token. A completion's advantage is the same at all of its tokens.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.errors import UserError
from entropilot.inputs.completion_files import step_in
from entropilot.records import TOKENS_FOLDER, read_tokens
from entropilot.reports.text import aligned
from entropilot.sandbox.tasks import OPERATIONS
from experiments.label_free.errors import STEP, slip_of
from experiments.runs import command, keep

_PROBLEM = re.compile(r"(\d(?:[+*-]\d)+)=")


def solved(problem: str) -> str:
    """Return the answer of a problem of `chains`, from left to right modulo 10."""
    value = int(problem[0])
    for sign, digit in STEP.findall(problem):
        value = OPERATIONS[sign](value, int(digit))
    return str(value)


def value_token(tokens: Sequence[str], place: int) -> int | None:
    """Return which token writes the value of a place, counted from 0; None where the solution ends before it."""
    written = "".join(tokens).partition("#")[0].split(";")
    if place >= len(written) - 1:
        return None
    at = sum(len(part) + 1 for part in written[: place + 1]) - 2  # the digit before the semicolon
    ends = np.cumsum([len(token) for token in tokens])
    return int(np.searchsorted(ends, at, side="right"))


def groups_of(folder: Path, step: int, size: int) -> list[list[dict[str, Any]]]:
    """Return the completions of a rollout's groups, in the order of training.

    Raises:
        UserError: the rollout was not kept whole.
    """
    columns = read_tokens(folder, step)
    if columns is None:
        raise UserError(f"{folder} keeps no completions of step {step}; train with probe.tokens_every=4.")
    names = (
        "role",
        "prompt",
        "prompt_id",
        "completion",
        "tokens",
        "answer",
        "cluster",
        "advantage",
        "entropy",
    )
    rows = [
        dict(zip(names, row, strict=True))
        for row in zip(*(columns[n].to_pylist() for n in names), strict=True)
    ]
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["role"] == "training":
            found[row["prompt_id"]].append(row)
    if any(len(group) != size for group in found.values()):
        raise UserError(
            f"{folder} keeps a part of the rollout of step {step}; set probe.tokens_rows to all rows."
        )
    return list(found.values())


def row_of(step: int, groups: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Return what is kept of a rollout.

    `place` is where most of the answers that won and are wrong slip first, from 0; the entropies are of the token there,
    in these answers and in the groups whose majority is right. None where there is no such place.

    Raises:
        UserError: a prompt is no problem of `chains`.
    """
    right, agree, wrong, weights = 0, 0, 0, [0.0, 0.0]
    places: Counter[int] = Counter()
    fallen, others = [], []
    for group in groups:
        found = _PROBLEM.search(group[0]["prompt"])
        if found is None:
            raise UserError(
                f"step {step} holds a prompt that is no problem of chains; give a run on that tier."
            )
        problem = found.group(1)
        gold = solved(problem)
        winner, count = Counter(row["cluster"] for row in group).most_common(1)[0]
        won = [row for row in group if row["cluster"] == winner]
        is_wrong = won[0]["answer"] != gold
        right += sum(row["answer"] == gold for row in group)
        agree += count == len(group)
        wrong += is_wrong
        weights[is_wrong] += sum(abs(row["advantage"][0]) for row in group)
        if not is_wrong:
            others += group
            continue
        fallen += won
        slips = Counter(
            slip.place for row in won if (slip := slip_of(problem, row["completion"])) is not None
        )
        places.update(place for place, _ in slips.most_common(1))
    place, there = places.most_common(1)[0] if places else (None, 0)
    return {
        "step": step,
        "groups": len(groups),
        "accuracy": right / sum(map(len, groups)),
        "agree": agree,
        "wrong": wrong,
        "weight": weights[True] / sum(weights) if any(weights) else 0.0,
        "place": place,
        "at place": there,
        "entropy": _mean_entropy(fallen, place),
        "entropy of others": _mean_entropy(others, place),
    }


def _mean_entropy(rows: Iterable[dict[str, Any]], place: int | None) -> float | None:
    """Return the mean entropy of the tokens that write the value of a place, nats."""
    if place is None:
        return None
    found = [row["entropy"][at] for row in rows if (at := value_token(row["tokens"], place)) is not None]
    return float(np.mean(found)) if found else None


def table(rows: Iterable[dict[str, Any]]) -> list[list[str]]:
    """Return a line for every rollout, as it stands on the page."""
    heads = [
        "update",
        "right completions",
        "groups that agree",
        "wrong majorities",
        "their share of the advantages",
    ]
    lines = [[*heads, "slip at one place", "entropy there, nats", "in groups that are right"]]
    for row in rows:
        entropies = [
            "–" if row[key] is None else f"{row[key]:.2f}" for key in ("entropy", "entropy of others")
        ]
        place = "–" if row["place"] is None else f"{row['at place']} (place {row['place'] + 1})"
        counts = [str(row["agree"]), str(row["wrong"])]
        lines.append(
            [str(row["step"]), f"{row['accuracy']:.3f}", *counts, f"{row['weight']:.2f}", place, *entropies]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run, ARM-SEED")
    parser.add_argument("--first", type=int, default=257, help="the first update that is looked at")
    parser.add_argument("--size", type=int, default=8, help="completions of a group")
    parser.add_argument("--store", type=Path, help="add the rows to this file (docs/results/label_free.json)")
    settings = parser.parse_args()
    steps = sorted(
        step for file in (settings.run / TOKENS_FOLDER).glob("*.parquet") if (step := step_in(file))
    )
    if not steps:
        raise UserError(f"{settings.run} keeps no completions; train with probe.tokens_every=4.")
    chosen = [step for step in steps if step >= settings.first]
    rows = [row_of(step, groups_of(settings.run, step, settings.size)) for step in chosen]
    kept = keep(settings.store, "onset", {settings.run.name: rows})[settings.run.name]
    print(aligned(table(kept)))


if __name__ == "__main__":
    command(main)
