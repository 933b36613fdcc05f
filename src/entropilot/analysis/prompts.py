"""Rank prompts by how much there is to learn from them: the variance of k graded samples, and measures without labels.

    acc(x) = (1/k) Σ_i 1[correct_i],    Var(x) = (1/k) Σ_i (1[correct_i] − acc)² = acc·(1 − acc)

the rule of One-shot Entropy Minimization (arXiv:2505.20282): train on the prompt whose variance is largest. Gold
answers are needed for the choice only. k samples leave much open: with k = 8 there are five values of the variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, spearmanr

from entropilot.analysis.values import Interval
from entropilot.errors import UserError

RULES = ("variance", "semantic_entropy", "majority_share", "token_entropy")
_DRAWS = 20_000  # of two posteriors, to compare them


class PromptScore(NamedTuple):
    """Hold what k samples say about one prompt; None where it is not known.

    Attributes:
        samples: k.
        correct: how many are right.
        accuracy: correct / k.
        accuracy_interval: Jeffreys' interval of the chance that a sample is right.
        variance: accuracy·(1 − accuracy).
        variance_interval: of p·(1 − p) over that interval.
        semantic_entropy: −Σ_c p(c) ln p(c) of the clusters, nats; a missing answer is a cluster of its own.
        majority_share: share of the samples in the largest cluster of answers; 0 where nobody answered.
        token_entropy: mean entropy of the tokens, nats; over samples, each by its own mean.
    """

    samples: int
    correct: int | None
    accuracy: float | None
    accuracy_interval: Interval | None
    variance: float | None
    variance_interval: Interval | None
    semantic_entropy: float
    majority_share: float
    token_entropy: float | None


class Ranking(NamedTuple):
    """Prompts in order, the one to train on first.

    Attributes:
        by: the rule.
        order: (p,) indices of the prompts; those without a value come last.
        values: (p,) what they were ranked by, in the order of the prompts; None where it is not known.
        tied: how many prompts have the first one's value.
        unclear: under `variance`, how many others may well be the better choice: the first has the larger p·(1 − p)
            with a probability below `level` (independent Beta(c + ½, k − c + ½) of both). None under the other rules.
        unknown: how many have no value.
    """

    by: str
    order: list[int]
    values: list[float | None]
    tied: int
    unclear: int | None
    unknown: int


def jeffreys(correct: int, samples: int, level: float = 0.95) -> Interval:
    """Return Jeffreys' interval of a proportion (Brown, Cai and DasGupta 2001).

    Where no sample is right it begins at 0, where all are it ends at 1.

    Raises:
        UserError: not 0 ≤ correct ≤ samples, no sample, or a level that is not between 0 and 1.
    """
    if not 0 <= correct <= samples or samples < 1 or not 0 < level < 1:
        raise UserError(
            f"{correct} right of {samples} samples at level {level:g} has no interval; give 0 to k right of k ≥ 1, and "
            "a level between 0 and 1."
        )
    tail = (1 - level) / 2
    low, high = beta.ppf([tail, 1 - tail], correct + 0.5, samples - correct + 0.5)
    return Interval(0.0 if correct == 0 else float(low), 1.0 if correct == samples else float(high))


def variance_interval(accuracy: Interval) -> Interval:
    """Return the range of p·(1 − p) where p runs over an interval."""
    ends = [p * (1 - p) for p in accuracy]
    return Interval(min(ends), 0.25 if accuracy.low <= 0.5 <= accuracy.high else max(ends))


def score_prompt(
    labels: Sequence[int],
    missing: Sequence[bool],
    correct: Sequence[bool] | None = None,
    token_entropy: float | None = None,
    level: float = 0.95,
) -> PromptScore:
    """Score the samples of one prompt.

    Args:
        labels: (k,) cluster of each sample; every missing answer has one of its own.
        missing: (k,) whether a sample gave no answer.
        correct: (k,) whether it is right; None where that is not known.
        token_entropy: mean over the samples, nats.
        level: of the intervals.

    Raises:
        UserError: there is no sample, or the lists differ in length.
    """
    k = len(labels)
    if k == 0 or len(missing) != k or (correct is not None and len(correct) != k):
        raise UserError(
            f"A prompt is scored by k ≥ 1 samples, each with a label, but there are {k} labels, {len(missing)} flags and "
            f"{'no' if correct is None else len(correct)} grades; give as many of each."
        )
    sizes = np.unique(np.asarray(labels), return_counts=True)[1]
    shares = np.sort(sizes) / k  # sorted, so that equal sizes give equal bits
    answered = np.asarray(labels)[~np.asarray(missing, dtype=bool)]
    most = int(np.unique(answered, return_counts=True)[1].max()) if answered.size else 0
    right = None if correct is None else int(sum(map(bool, correct)))
    interval = None if right is None else jeffreys(right, k, level)
    return PromptScore(
        samples=k,
        correct=right,
        accuracy=None if right is None else right / k,
        accuracy_interval=interval,
        # Not acc·(1 − acc): rounding would tell 1/6 from 5/6.
        variance=None if right is None else right * (k - right) / k**2,
        variance_interval=None if interval is None else variance_interval(interval),
        semantic_entropy=max(0.0, float(-(shares * np.log(shares)).sum())),
        majority_share=most / k,
        token_entropy=token_entropy,
    )


def value_of(score: PromptScore, by: str) -> float | None:
    """Return what a rule ranks by, largest first.

    `variance`: acc·(1 − acc). `semantic_entropy` and `token_entropy`: as they are. `majority_share`: s·(1 − s), which is
    the variance where the majority's answer is taken for the gold one.

    Raises:
        UserError: there is no such rule.
    """
    if by not in RULES:
        raise UserError(f"There is no rule {by!r} to rank prompts by; choose one of {', '.join(RULES)}.")
    if by != "majority_share":
        return getattr(score, by)
    most = round(score.majority_share * score.samples)
    return most * (score.samples - most) / score.samples**2


def rank_prompts(
    scores: Sequence[PromptScore], by: str = "variance", level: float = 0.95, seed: int = 0
) -> Ranking:
    """Rank prompts by a rule, the largest value first; ties go to the larger semantic entropy, then to the earlier prompt.

    Args:
        scores: (p,) of the prompts.
        by: variance, semantic_entropy, majority_share or token_entropy; see `value_of`.
        level: of `Ranking.unclear`.
        seed: of the draws behind it.

    Raises:
        UserError: no such rule, or no prompt has a value.
    """
    values = [value_of(score, by) for score in scores]
    known = [i for i, value in enumerate(values) if value is not None]
    if not known:
        raise UserError(
            f"No prompt can be ranked by {by}: "
            + (
                "there are none."
                if not scores
                else f"none of the {len(scores)} has a value; rank by another rule."
            )
        )
    order = sorted(known, key=lambda i: (-_number(values[i]), -scores[i].semantic_entropy, i))
    first = values[order[0]]
    unclear = None
    if by == "variance":
        unclear = _unclear([scores[i] for i in order], level, seed)
    return Ranking(
        by=by,
        order=order + [i for i, value in enumerate(values) if value is None],
        values=values,
        tied=sum(value == first for value in values),
        unclear=unclear,
        unknown=len(scores) - len(known),
    )


def agreement(scores: Sequence[PromptScore], by: str) -> float | None:
    """Return Spearman's correlation of a label-free rule with the variance, over prompts that have both.

    None for fewer than 3 of them, or where one of the two is the same everywhere.
    """
    pairs = [(score.variance, value_of(score, by)) for score in scores]
    both = np.array([pair for pair in pairs if None not in pair], dtype=np.float64)
    if len(both) < 3 or (both == both[0]).all(axis=0).any():
        return None
    return float(spearmanr(both[:, 0], both[:, 1]).statistic)  # type: ignore[union-attr]


def _number(value: float | None) -> float:
    assert value is not None
    return value


def _unclear(ordered: Sequence[PromptScore], level: float, seed: int) -> int:
    """Count the prompts that the first one beats with a probability below `level`."""
    rng = np.random.default_rng(seed)

    def draws(correct: int, samples: int) -> NDArray[np.float64]:
        p = rng.beta(correct + 0.5, samples - correct + 0.5, size=_DRAWS)
        return p * (1 - p)

    counts = [(int(_number(score.correct)), score.samples) for score in ordered]
    first = draws(*counts[0])
    doubtful = {pair: np.mean(first > draws(*pair)) < level for pair in dict.fromkeys(counts[1:])}
    return sum(bool(doubtful[pair]) for pair in counts[1:])
