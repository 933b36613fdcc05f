"""Rank the prompts of judged samples: `entropilot prompts rank`. Ranking a file needs no torch."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from entropilot.analysis.prompts import RULES, agreement, rank_prompts, score_prompt
from entropilot.answers.judged_rows import Judged
from entropilot.errors import UserError
from entropilot.files import writing
from entropilot.inputs.completions import Sampled, is_ours, per_sample

# Of a row, what belongs to its samples: a ranking leaves it out, and a recipe has no use for it.
OF_SAMPLES = ("completions", "extracted", "correct", "logprobs", "token_entropy")
OF_OURS = ("texts", "ids", "entropy", "cut", "temperature")  # in a samples.jsonl of `evaluate`


class Ranked(NamedTuple):
    """Prompts in order of their rank.

    Attributes:
        results: rank, row, rule, score and measures of each prompt.
        rows: the columns of each prompt, without those of its samples.
        questions: the text of each prompt, None where there is none.
        summary: counts, ties and correlations, as plain data.
    """

    results: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    questions: list[str | None]
    summary: dict[str, Any]

    def write(self, path: Path, top: int | None = None) -> int:
        """Write the first prompts as JSON lines that a recipe takes as `data:`; return how many."""
        chosen = list(islice(zip(self.rows, self.results, strict=True), top))
        with writing(path) as file:
            for row, result in chosen:
                line = json.dumps(row | {"selection": result}, ensure_ascii=False, default=str)
                file.write(line + "\n")  # type: ignore[union-attr]  # a path was given
        return len(chosen)


def rank(rows: Iterable[Judged], source: str, by: str | None, level: float, torn: list[int]) -> Ranked:
    """Rank prompts by what their samples say.

    Args:
        rows: prompts with clusters and grades; those without a completion are counted and left out.
        source: of the rows, for errors.
        by: one of `RULES`; None takes the variance where a gold answer is known, else the semantic entropy.
        level: of the intervals.
        torn: numbers of unreadable rows; the reader of `rows` fills it.

    Raises:
        UserError: no prompt has a completion, or a column of the samples does not fit.
    """
    scores, kept, empty = [], [], 0
    for judged in rows:
        if not judged.sampled.completions:
            empty += 1
            continue
        entropy = _token_entropy(Path(source), judged.sampled)
        scores.append(
            score_prompt(judged.clusters.labels, judged.clusters.missing, judged.correct, entropy, level)
        )
        row = judged.sampled.row
        dropped = OF_SAMPLES + (OF_OURS if is_ours(row) else ())
        columns = {name: value for name, value in row.items() if name not in dropped}
        kept.append((judged.sampled.number, columns, judged.sampled.question))
    if not scores:
        raise UserError(f"{source} has no prompt with a completion; there is nothing to rank.")
    if by is None:
        by = "variance" if any(score.variance is not None for score in scores) else "semantic_entropy"
    ranking = rank_prompts(scores, by, level)
    ordered = [kept[i] for i in ranking.order]
    return Ranked(
        results=[
            {"rank": place, "row": kept[i][0], "by": by, "score": ranking.values[i], **scores[i]._asdict()}
            for place, i in enumerate(ranking.order, start=1)
        ],
        rows=[columns for _, columns, _ in ordered],
        questions=[question for _, _, question in ordered],
        summary={
            "source": source,
            "by": by,
            "prompts": len(scores),
            "samples": dict(sorted(Counter(score.samples for score in scores).items())),
            "tied_first": ranking.tied,
            "unclear": ranking.unclear,
            "unknown": ranking.unknown,
            "without_completions": empty,
            "torn_rows": torn,
            "level": level,
            "spearman_with_variance": {rule: agreement(scores, rule) for rule in RULES if rule != "variance"},
        },
    )


def _token_entropy(source: Path, row: Sampled) -> float | None:
    """Return the mean token entropy of a row's samples: `token_entropy` per sample, else −mean log p of `logprobs`.

    In the samples of `evaluate` it is the column `entropy`.
    """
    values = per_sample(source, row, "entropy" if is_ours(row.row) else "token_entropy")
    if values is None:
        logprobs = per_sample(source, row, "logprobs")
        if logprobs is None:
            return None
        if not all(isinstance(tokens, list) and all(map(_is_number, tokens)) for tokens in logprobs):
            raise UserError(
                f"{source}: `logprobs` of row {row.number} must hold a list of numbers per completion."
            )
        values = [-sum(tokens) / len(tokens) for tokens in logprobs if tokens]
    known = [value for value in values if value is not None]
    if not all(map(_is_number, known)):
        raise UserError(f"{source}: `token_entropy` of row {row.number} must hold a number per completion.")
    return sum(known) / len(known) if known else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
