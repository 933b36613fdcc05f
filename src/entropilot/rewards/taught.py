"""Reward a policy's answers by what a slow teacher's group of answers votes for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from entropilot.answers.clusters import cluster
from entropilot.answers.judge import Judge
from entropilot.errors import UserError
from entropilot.methods.empo import EMPO
from entropilot.methods.majority import Majority


@dataclass(frozen=True)
class TeacherSettings:
    """Say how the teacher follows the policy.

    Attributes:
        alpha: share of the way to the policy that an update takes it (Co-rewarding-II: 0.01 down to 1e-5).
        samples: of the teacher per prompt; None takes the policy's number.

    Raises:
        UserError: a value out of range.
    """

    alpha: float = 0.01
    samples: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UserError(f"teacher_alpha = {self.alpha} is out of range; it must lie in [0, 1].")
        if self.samples is not None and self.samples < 1:
            raise UserError(f"teacher_samples = {self.samples} is no number of samples; give 1 or more.")


def taught(
    rule: EMPO | Majority,
    answers: Sequence[Sequence[str | None]],
    votes: Sequence[Sequence[str | None]],
    judge: Judge,
    questions: Sequence[str],
) -> list[list[float | None]]:
    """Return the rewards of the policy's answers, by the clusters of the teacher's.

    EMPO: the share of the teacher's answers that mean the same; Majority: 1 for the teacher's majority, else 0. A missing
    answer gets 0. A group whose teacher's answers the rule's threshold leaves out is left out.

    Args:
        rule: `EMPO(...)` or `Majority(...)`.
        answers: answers_P_G of the policy.
        votes: answers_P_K of the teacher.
        judge: of equivalence.
        questions: one per group.
    """
    joined = cluster(
        [[*teacher, *own] for teacher, own in zip(votes, answers, strict=True)], judge, questions
    )
    rewards: list[list[float | None]] = []
    for found, teacher in zip(joined, votes, strict=True):
        count = len(teacher)
        labels, missing = found.labels[:count], found.missing[:count]
        own = list(zip(found.labels[count:], found.missing[count:], strict=True))
        if isinstance(rule, EMPO):
            if not rule.keeps(labels):
                rewards.append([None] * len(own))
                continue
            rewards.append([0.0 if absent else labels.count(label) / count for label, absent in own])
        else:
            winners = rule.winners(labels, missing)
            rewards.append([float(not absent and label in winners) for label, absent in own])
    return rewards
