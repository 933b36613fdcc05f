"""Compute avg@K, unbiased pass@k and maj@K of K samples for each of P problems, with intervals of their means.

Problems are the units that are drawn: every interval is a percentile bootstrap over problems, so that it answers
"what if the benchmark had held other problems of the same kind". What sampling the same problems again would change is
a second question, which `sampling_error` answers, and which one sample per problem leaves open.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropilot.errors import UserError

Array = NDArray[np.float64]
DRAWS = 4000  # bootstrap draws: the ends of a 95 % interval then move by about 2 % of its width between seeds
_CELLS = 4_000_000  # problems times draws in memory at once


class Estimate(NamedTuple):
    """Hold a mean over problems and the ends of its interval; the ends are None for fewer than two problems."""

    value: float
    low: float | None
    high: float | None
    problems: int


class Difference(NamedTuple):
    """Hold a mean of paired differences over problems, b − a.

    Attributes:
        value, low, high: the mean and its interval; the ends are None for fewer than two problems.
        problems: how many are paired.
        better, worse, equal: problems where b is above, below and at a.
    """

    value: float
    low: float | None
    high: float | None
    problems: int
    better: int
    worse: int
    equal: int


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return 1 − C(n−c, k)/C(n, k): the chance that k of n samples, c of them right, hold a right one (2107.03374).

    Raises:
        UserError: k is larger than n; more samples are needed then.
    """
    if not 1 <= k <= n:
        raise UserError(f"pass@{k} can't be estimated from {n} samples; draw at least {k}.")
    return 1.0 - comb(n - c, k) / comb(n, k)


def ladder(samples: int) -> list[int]:
    """Return k = 1, 2, 4, … up to the number of samples, and that number itself."""
    return sorted({*(2**i for i in range(samples.bit_length()) if 2**i <= samples), samples})


def pass_values(scores_P_G: Sequence[Sequence[float]], k: int) -> Array:
    """Return unbiased pass@k of each problem, (p,); a sample passes where its score is above 1/2.

    Raises:
        UserError: a problem has fewer than k samples.
    """
    counts = [(len(scores), sum(score > 0.5 for score in scores)) for scores in scores_P_G]
    known = {count: pass_at_k(*count, k) for count in set(counts)}
    return np.array([known[count] for count in counts])


def majority(labels_G: Sequence[Hashable], scores_G: Sequence[float], missing_G: Sequence[bool]) -> float:
    """Return maj@K of one problem: the score of the answer that most samples gave.

    Samples without an answer have no vote; where nobody has one the value is 0. Where several answers lead, it is the
    mean of theirs, which is what choosing among them at random gives on average. The score of an answer is the mean of
    its samples' scores: one value wherever samples of one cluster were judged alike.
    """
    votes: dict[Hashable, list[float]] = {}
    for label, score, missing in zip(labels_G, scores_G, missing_G, strict=True):
        if not missing:
            votes.setdefault(label, []).append(score)
    most = max(map(len, votes.values()), default=0)
    leading = [sum(scores) / most for scores in votes.values() if len(scores) == most]
    return sum(leading) / len(leading) if leading else 0.0


def bootstrap_means(values: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> Array:
    """Return the means of `draws` resamples of the rows of (p, m) values, (draws, m); the same rows for every column."""
    table = np.asarray(values, dtype=np.float64)
    p = len(table)
    rng = np.random.default_rng(seed)
    found = np.empty((draws, table.shape[1]))
    step = max(1, _CELLS // p)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        places = rng.integers(p, size=(rows, p)) + p * np.arange(rows)[:, None]
        times_drawn = np.bincount(places.ravel(), minlength=rows * p).reshape(rows, p)
        found[start : start + rows] = times_drawn @ table / p
    return found


def estimate(values: ArrayLike, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Return the mean of (p,) values in [0, 1] or of any range; see `estimates`."""
    return estimates({"value": values}, level=level, draws=draws, seed=seed)["value"]


def _resampled(table: Array, share: Sequence[bool], draws: int, seed: int) -> Array:
    """Return bootstrap means, (draws, m); where a share is 0 (or 1) of every problem, means that could still hide.

    A resample of equal values shows no spread. For values in [0, 1] that are 0 in all of p problems, a mean above
    1 − u^(1/p) had a chance below u, whatever the distribution; u is drawn uniformly, so that the upper α/2 point of
    these draws is the exact bound 1 − (α/2)^(1/p).
    """
    means = bootstrap_means(table, draws=draws, seed=seed)
    hidden = 1 - np.random.default_rng([seed, 1]).random(draws) ** (1 / len(table))
    for column, bounded in enumerate(share):
        if bounded and (table[:, column] == 0).all():
            means[:, column] = hidden
        elif bounded and (table[:, column] == 1).all():
            means[:, column] = 1 - hidden
    return means


def _ends(means: Array, value: float, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = (float(end) for end in np.quantile(means, [tail, 1 - tail]))
    return min(low, value), max(high, value)


def estimates(
    columns: Mapping[str, ArrayLike],
    *,
    share: Collection[str] = (),
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return mean and percentile-bootstrap interval of several measures of the same problems.

    Args:
        columns: (p,) values per problem and measure; nan where a problem has none.
        share: measures with values in [0, 1]; their intervals keep a width where all problems have 0, or all 1.
        level: of the intervals.
        draws: resamples.
        seed: of the resampling.
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    together: dict[
        tuple[int, bytes], list[str]
    ] = {}  # measures that the same problems have, resampled at once
    for name, values in arrays.items():
        together.setdefault((len(values), np.isfinite(values).tobytes()), []).append(name)
    found: dict[str, Estimate] = {}
    for names in together.values():
        table = np.stack([arrays[name] for name in names], axis=1)
        table = table[np.isfinite(table[:, 0])]
        p = len(table)
        means = _resampled(table, [name in share for name in names], draws, seed) if p > 1 else None
        for column, name in enumerate(names):
            value = float(table[:, column].mean()) if p else float("nan")
            low, high = (None, None) if means is None else _ends(means[:, column], value, level)
            found[name] = Estimate(value, low, high, p)
    return {name: found[name] for name in columns}


def mean_of_files(
    files: Sequence[ArrayLike],
    *,
    share: bool = False,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Return the mean of the files' means (every file weighs the same), problems resampled within each file."""
    values = [np.asarray(file, dtype=np.float64) for file in files]
    values = [file[np.isfinite(file)] for file in values]
    total = sum(map(len, values))
    if not values or any(len(file) == 0 for file in values):
        return Estimate(float("nan"), None, None, total)
    value = float(np.mean([file.mean() for file in values]))
    if any(len(file) < 2 for file in values):
        return Estimate(value, None, None, total)
    # Each file has its own stream, or files of one length would be resampled in step.
    means = [
        _resampled(file[:, None], [share], draws, seed + 7919 * number)[:, 0]
        for number, file in enumerate(values)
    ]
    return Estimate(value, *_ends(np.mean(means, axis=0), value, level), total)


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """Return the mean of b − a over problems, (p,) each; problems where one of them is nan are left out.

    Pairing takes out what makes a problem hard for both, so that the interval is narrower than two of single models.
    """
    change = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    change = change[np.isfinite(change)]
    change = np.where(np.abs(change) < 1e-12, 0.0, change)
    result = estimate(change, level=level, draws=draws, seed=seed)
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    return Difference(*result, better, worse, len(change) - better - worse)


def sampling_error(scores_P_G: Sequence[Sequence[float]]) -> float | None:
    """Return the standard error of avg@K if the same problems were sampled again; None with one sample for a problem.

    sqrt(Σ_i s_i² / K_i) / P with s_i² the unbiased variance of problem i's scores.
    """
    if not scores_P_G or any(len(scores) < 2 for scores in scores_P_G):
        return None
    total = sum(float(np.var(scores, ddof=1)) / len(scores) for scores in scores_P_G)
    return total**0.5 / len(scores_P_G)
