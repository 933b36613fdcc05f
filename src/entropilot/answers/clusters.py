"""Answers of a group into classes of one meaning: sizes, shares, semantic entropy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from entropilot.answers.judge import Judge, Orders, verdicts
from entropilot.methods.empo import semantic_entropy


@dataclass(frozen=True)
class Clusters:
    """Hold the classes of one group of G answers.

    Attributes:
        labels: the cluster of each completion, numbered by first appearance; a missing answer is its own cluster.
        sizes: completions per cluster.
        shares: p(c|q) = size / G, per cluster.
        semantic_entropy: H(q) = −Σ_c p(c|q) ln p(c|q), in nats (arXiv:2302.09664; EMPO, arXiv:2504.05812);
            0 for an empty group.
        answers: what was clustered, None where an answer is missing (an empty or blank string is missing).
        leaders: per cluster, the place in the group of the answer that opened it, to which all others in it are
            equivalent; of a missing answer its own place.
        missing: per completion, whether it gave no answer.
    """

    labels: list[int]
    sizes: list[int]
    shares: list[float]
    semantic_entropy: float
    answers: list[str | None]
    leaders: list[int]
    missing: list[bool]

    @property
    def representatives(self) -> list[str | None]:
        """The answer that leads each cluster; None for a missing one."""
        return [self.answers[place] for place in self.leaders]


def cluster(
    groups: Sequence[Sequence[str | None]],
    judge: Judge,
    questions: Sequence[str | None] | None = None,
) -> list[Clusters]:
    """Put the equivalent answers of every group into one cluster, by greedy comparison with the clusters' leaders.

    The answers are taken in index order, which is the rule of EMPO's final code (`compute_metrics.py`); where the judge
    has `precedence` (the judge `math` does), the answers that commit themselves most are taken first, of equals the
    most frequent, and only then the first. An answer joins the first cluster whose leader is equivalent to it, else it
    leads a new one; a missing answer is always a cluster of its own. Equal strings are one string, so that the judge
    sees at most one pair (leader, answer) per distinct answer and cluster.

    The work goes in rounds, so that the judge sees large batches: round r makes the first distinct answer of each group
    that is still free its leader and compares it with the free answers after it, all groups in one call. An answer
    meets the leaders in the order in which they were opened and stops at the first that accepts it, and an answer that
    every earlier leader has refused leads the next cluster: that is the sequential rule, also where the judge is not
    transitive. (`missing` answers never meet the judge.)

    Args:
        groups: answers_P_G, one list per prompt, of any lengths.
        judge: `entropilot.answers.judge.Judge`; asked as (leader, answer), once per pair.
        questions: one per group, for judges that read them.

    Returns:
        One `Clusters` per group, in order.
    """
    if questions is not None and len(questions) != len(groups):
        raise ValueError(f"{len(questions)} questions for {len(groups)} groups; give one per group.")
    cleaned = [
        [answer if answer is not None and answer.strip() else None for answer in group] for group in groups
    ]
    free = [
        _taken_in_order(Counter(answer for answer in group if answer is not None), judge) for group in cleaned
    ]
    leaders: list[dict[str, str]] = [{} for _ in cleaned]  # distinct answer → the leader that took it
    while any(free):
        spans = [(index, waiting[0], waiting[1:]) for index, waiting in enumerate(free) if waiting]
        pairs = [(leader, answer) for _, leader, later in spans for answer in later]
        asked = None if questions is None else [questions[index] for index, _, later in spans for _ in later]
        found = iter(verdicts(judge, pairs, asked))
        for index, leader, later in spans:
            taken = leaders[index]
            taken[leader] = leader
            free[index] = []
            for answer in later:
                if next(found):
                    taken[answer] = leader
                else:
                    free[index].append(answer)
    return [_summary(group, taken) for group, taken in zip(cleaned, leaders, strict=True)]


def _taken_in_order(counts: Counter[str], judge: Judge) -> list[str]:
    answers = list(counts)  # by first appearance
    if not isinstance(judge, Orders) or len(answers) < 3:  # two answers are equal or not, in any order
        return answers
    places = dict(zip(answers, judge.precedence(answers), strict=True))
    return sorted(answers, key=lambda answer: (places[answer], -counts[answer]))


def _summary(answers: list[str | None], leaders: dict[str, str]) -> Clusters:
    numbers: dict[str | int, int] = {}
    labels = [
        # A missing answer's key is its own place in the group: a cluster that nothing else can join.
        numbers.setdefault(place if answer is None else leaders[answer], len(numbers))
        for place, answer in enumerate(answers)
    ]
    sizes = [0] * len(numbers)
    for label in labels:
        sizes[label] += 1
    shares = [size / len(labels) for size in sizes]
    return Clusters(
        labels=labels,
        sizes=sizes,
        shares=shares,
        semantic_entropy=semantic_entropy(labels) if labels else 0.0,
        answers=answers,
        leaders=[leader if isinstance(leader, int) else answers.index(leader) for leader in numbers],
        missing=[answer is None for answer in answers],
    )
