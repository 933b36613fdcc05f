"""Cluster and grade the rows of a file of completions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from entropilot.errors import UserError

if TYPE_CHECKING:
    from entropilot.answers.clusters import Clusters
    from entropilot.answers.judge import Judge
    from entropilot.inputs.completions import Sampled


ROWS_AT_ONCE = 256  # whose answers are judged together


class Judged(NamedTuple):
    """Hold a row with its clusters and, where a gold answer is known, its grades."""

    sampled: Sampled
    clusters: Clusters
    correct: list[bool] | None


def judged_file(file: Path, judge: Judge, rule: str, torn: list[int], graded: str) -> Iterator[Judged]:
    """Yield the rows of a file with clusters and grades, many rows to one call of the judge."""
    from entropilot.answers.extraction.extract import extract
    from entropilot.inputs.completions import read_completions

    rows = read_completions(file, torn)
    first = next(rows, None)
    if first is None:
        what = f" ({len(torn)} of its lines are no JSON object in UTF-8)" if torn else ""
        raise UserError(f"{file} holds no row with completions{what}; give a file with at least one.")
    yield from judge_rows(chain([first], rows), judge, lambda text: extract(text, rule), graded, file)


def judge_rows(
    rows: Iterator[Sampled], judge: Judge, read: Any, graded: str, source: Path
) -> Iterator[Judged]:
    """Yield rows with their clusters and grades; `read` gives a completion's answer."""
    from entropilot.answers.clusters import cluster as cluster_groups
    from entropilot.answers.grading import gold_answer, grade

    while some := list(islice(rows, ROWS_AT_ONCE)):
        answers = [[read(text) for text in row.completions] for row in some]
        questions = [row.question for row in some]
        clusters = cluster_groups(answers, judge, questions)
        if graded == "correct":
            grades = [_recorded(source, row) for row in some]
        else:
            golds = [None if row.gold is None else gold_answer(row.gold) for row in some]
            grades = grade([found.answers for found in clusters], golds, judge, questions)
        for row, found, correct in zip(some, clusters, grades, strict=True):
            yield Judged(row, found, correct)


def _recorded(source: Path, row: Sampled) -> list[bool]:
    """Return a row's own verdicts, `correct`."""
    from entropilot.inputs.completions import per_sample

    found = per_sample(source, row, "correct")
    if found is None or not all(value in (0, 1) for value in found):
        raise UserError(
            f"{source}: row {row.number} has no list of verdicts (true or false) in `correct`; leave out --graded correct."
        )
    return [bool(value) for value in found]
