"""Grade the answers of a group against the gold answer, and find which answer the group voted for."""

from __future__ import annotations

from collections.abc import Sequence

from entropilot.answers.clusters import Clusters
from entropilot.answers.extraction.extract import extract
from entropilot.answers.judge import Judge, verdicts
from entropilot.answers.normalise import normalise
from entropilot.methods.majority import Majority


def gold_answer(text: str) -> str | None:
    """Return the answer in a gold text: its box, what follows `####` or "the answer is", else all of it.

    None where nothing is left of it to compare with.
    """
    found = (extract(text) or text).strip()
    return found if normalise(found).body else None


def grade(
    groups: Sequence[Sequence[str | None]],
    golds: Sequence[str | None],
    judge: Judge,
    questions: Sequence[str | None] | None = None,
) -> list[list[bool] | None]:
    """Return for each answer of each group whether it is equivalent to the group's gold answer.

    Every distinct answer of a group is judged once, as (gold, answer), all groups in one call.

    Args:
        groups: answers_P_G; a missing answer is never right.
        golds: one per group; a group without one gets None.
        judge: of equivalence.
        questions: one per group, for judges that read them.
    """
    wanted = [
        (index, answer)
        for index, (group, gold) in enumerate(zip(groups, golds, strict=True))
        if gold is not None
        for answer in dict.fromkeys(group)
        if answer is not None
    ]
    pairs = [(str(golds[index]), answer) for index, answer in wanted]
    asked = None if questions is None else [questions[index] for index, _ in wanted]
    right = dict(zip(wanted, verdicts(judge, pairs, asked), strict=True))
    return [
        None if gold is None else [right.get((index, answer), False) for answer in group]  # type: ignore[arg-type]
        for index, (group, gold) in enumerate(zip(groups, golds, strict=True))
    ]


def majority(found: Clusters) -> tuple[int | None, bool]:
    """Return (the cluster that most answers fall into, whether another is as large).

    Missing answers have no vote; of clusters of one size the first to appear is taken. None where nobody answered.
    """
    winners = Majority(ties="all").winners(found.labels, found.missing)
    return (winners[0], len(winners) > 1) if winners else (None, False)
