"""Measure how well a score tells two classes apart: the area under the ROC curve, with ties, and its interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import mannwhitneyu

DRAWS = 4000  # bootstrap draws, as in passk.py


class Auroc(NamedTuple):
    """Hold an area under the ROC curve.

    Attributes:
        value: P(a positive scores higher than a negative) + ½ P(they score alike); None where one class is empty.
        low, high: of a percentile bootstrap over rows; None where the value is None, 0 or 1, because no resample of
            separated classes shows any spread.
        positive, negative: how many rows each class has.
    """

    value: float | None
    low: float | None
    high: float | None
    positive: int
    negative: int


def auroc(
    scores: ArrayLike, positive: ArrayLike, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Auroc:
    """Return the area under the ROC curve of a score as predictor of a class.

    Args:
        scores: (n,) finite.
        positive: (n,) whether a row is of the class that high scores should mark.
        level: of the interval.
        draws: resamples; those without one of the classes are left out.
        seed: of the resampling.
    """
    values, marked = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if values.shape != marked.shape or values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("scores and positive must be vectors of one length, the scores finite")
    n, m = int(marked.sum()), int((~marked).sum())
    if not n or not m:
        return Auroc(None, None, None, n, m)
    value = float(mannwhitneyu(values[marked], values[~marked]).statistic) / (n * m)
    if value in (0.0, 1.0):
        return Auroc(value, None, None, n, m)
    # Rows of one score and class are exchangeable, so that resampling rows is drawing how many fall into each cell.
    places = np.unique(values, return_inverse=True)[1]
    cells = np.bincount(2 * places + marked, minlength=2 * (places.max() + 1))
    drawn = np.random.default_rng(seed).multinomial(n + m, cells / (n + m), size=draws)
    means = _areas(drawn[:, 1::2], drawn[:, ::2])
    tail = (1 - level) / 2
    low, high = (float(end) for end in np.quantile(means, [tail, 1 - tail]))
    return Auroc(value, low, high, n, m)


def _areas(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the areas of counts per score in rising order, (draws, scores) each; draws without a class are left out."""
    lower = negative.cumsum(1) - negative
    wins = (positive * (lower + negative / 2)).sum(1)
    pairs = positive.sum(1) * negative.sum(1)
    return wins[pairs > 0] / pairs[pairs > 0]
