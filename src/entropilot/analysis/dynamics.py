"""Test the theory of arXiv:2505.22617: does the covariance say how entropy changes?

Exactly, for a tabular softmax policy (Theorems 1 and 2), and on the record of a run, by the protocol of the paper's
Fig. 8: the covariance of a rollout's responses against what the update made of the entropy on fixed completions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter1d
from scipy.special import log_softmax
from scipy.stats import norm, rankdata

from entropilot.analysis.values import flat
from entropilot.errors import UserError
from entropilot.records import finite_number

Array = NDArray[np.float64]
STEP_SIZES = (1e-1, 1e-2, 1e-3, 1e-4)
TOP = "covariance/top_"


class TabularCheck(NamedTuple):
    """Hold how well ΔH ≈ −η·Cov holds for one exact update of a tabular softmax policy.

    Attributes:
        step_sizes: η, (k,).
        errors: |ΔH + η·Cov| / |ΔH| of every draw, (draws, k).
        slopes: of log error on log η, per draw, (draws,); 1 where the error is of first order in η.
        slope: of the median error over draws.
    """

    step_sizes: Array
    errors: Array
    slopes: Array
    slope: float


def tabular_check(
    rule: str = "pg",
    *,
    actions: int = 6,
    draws: int = 100,
    step_sizes: Sequence[float] = STEP_SIZES,
    seed: int = 0,
) -> TabularCheck:
    """Return the relative error of ΔH ≈ −η·Cov over random policies and advantages, for ever smaller steps.

    Args:
        rule: "pg": Δz = η·π·A and Cov(log π, π·A) (Theorem 1); "npg": Δz = η·A and Cov(log π, A) (Theorem 2).
        actions: of the state.
        draws: of standard normal logits z, and of standard normal A, centred under π.
        step_sizes: η.
        seed: of the draws.

    Raises:
        UserError: an unknown rule, or fewer than 2 step sizes.
    """
    if rule not in ("pg", "npg"):
        raise UserError(f"The rule {rule!r} is none of pg and npg; choose one of them.")
    eta = flat("step_sizes", step_sizes)
    if eta.size < 2 or not (eta > 0).all():
        raise UserError("A slope needs two or more step sizes above 0.")
    generator = np.random.default_rng(seed)
    z, advantages = generator.standard_normal((2, draws, actions))
    logp = log_softmax(z, axis=1)
    p = np.exp(logp)
    advantages = advantages - (p * advantages).sum(1, keepdims=True)
    direction = p * advantages if rule == "pg" else advantages
    mean = (p * logp).sum(1, keepdims=True)
    covariance = (p * (logp - mean) * (direction - (p * direction).sum(1, keepdims=True))).sum(1)
    errors = []
    for step in eta:
        change = _entropy_change(logp, step * direction)
        errors.append(np.abs(change + step * covariance) / np.abs(change))
    found = np.stack(errors, axis=1)
    log_eta = np.log(eta) - np.log(eta).mean()
    slopes = np.log(found) @ log_eta / (log_eta @ log_eta)
    overall = float(np.log(np.median(found, axis=0)) @ log_eta / (log_eta @ log_eta))
    return TabularCheck(eta, found, slopes, overall)


def _entropy_change(logp: Array, delta: Array) -> Array:
    """Return by how much the entropy of a softmax policy p changes when delta is added to its logits, nats.

    With q the policy after that step, and sums over the actions (the last axis):

        H(q) − H(p) = −Σ (q − p)·(log p + H(p)) − Σ q·log(q/p)

    For a small step both sums have small terms and keep their digits. The difference of two entropies, which are nearly
    equal then, would lose most of them.
    """
    p = np.exp(logp)
    ratio = delta - (p * delta).sum(-1, keepdims=True)
    ratio = ratio - np.log1p((p * np.expm1(ratio)).sum(-1, keepdims=True))  # log(q/p)
    moved = p * np.expm1(ratio)  # q − p
    surprise = logp - (p * logp).sum(-1, keepdims=True)
    return -(moved * surprise).sum(-1) - ((p + moved) * ratio).sum(-1)


class Correlation(NamedTuple):
    """Hold a correlation with its 95 % interval, nan where one of the series is constant or too short."""

    value: float
    low: float
    high: float


class Agreement(NamedTuple):
    """Hold what a covariance says of the fall of entropy, −ΔH, update by update.

    Attributes:
        updates: n.
        pearson: correlation of the values as they are. Both fall over a run, so part of it may be that alone.
        spearman: of their ranks.
        detrended: Pearson's, of what is left when a running mean over `window` updates is taken from both: whether an
            update with more covariance than its neighbours also costs more entropy than they.
        same_sign: share of updates at which covariance and −ΔH have the same sign.
        positive: (share of updates with covariance > 0, share with −ΔH > 0): what same_sign is to be held against.
        step_size: the η for which −ΔH = η·covariance fits best (through the origin).
        window: updates.
    """

    updates: int
    pearson: Correlation
    spearman: Correlation
    detrended: Correlation
    same_sign: float
    positive: tuple[float, float]
    step_size: float
    window: int


def agreement(covariance: ArrayLike, entropy_fall: ArrayLike, window: int | None = None) -> Agreement:
    """Correlate the covariance of every update with the fall of entropy that it caused.

    Args:
        covariance: of the responses that the update was made of, (n,).
        entropy_fall: −ΔH on fixed completions, nats, (n,).
        window: of the running mean that `detrended` takes off, in updates; default: a tenth of them, 5 or more.

    Raises:
        UserError: they are not as many, or fewer than 8 pairs of finite values.
    """
    x, y = flat("covariance", covariance), flat("entropy_fall", entropy_fall)
    if x.shape != y.shape:
        raise UserError(f"Covariances and entropies must be as many, but are {x.size} and {y.size}.")
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if x.size < 8:
        raise UserError(f"Agreement needs 8 or more updates, but there are {x.size}; train longer.")
    window = max(5, x.size // 10) if window is None else window
    rest_x, rest_y = (series - uniform_filter1d(series, window, mode="nearest") for series in (x, y))
    square = float(x @ x)
    return Agreement(
        updates=x.size,
        pearson=_correlation(x, y),
        spearman=_correlation(rankdata(x), rankdata(y)),
        detrended=_correlation(rest_x, rest_y),
        same_sign=float((np.sign(x) == np.sign(y)).mean()),
        positive=(float((x > 0).mean()), float((y > 0).mean())),
        step_size=float(x @ y) / square if square > 0 else math.nan,
        window=window,
    )


def _correlation(x: Array, y: Array, level: float = 0.95) -> Correlation:
    """Return Pearson's correlation; its interval is Fisher's, on as many values as two AR(1) series are worth.

    n·(1 − φ_x·φ_y)/(1 + φ_x·φ_y) (Bartlett): two autocorrelated series agree by chance more often than n says.
    """
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    if size == 0:
        return Correlation(math.nan, math.nan, math.nan)
    value = float(x @ y) / size
    product = float(x[1:] @ x[:-1]) * float(y[1:] @ y[:-1]) / size**2
    worth = x.size * min(1.0, (1 - product) / (1 + product))
    if worth <= 4 or abs(value) >= 1:
        return Correlation(value, math.nan, math.nan)
    half = float(norm.ppf(0.5 + level / 2)) / math.sqrt(worth - 3)
    return Correlation(value, math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half))


class Level(NamedTuple):
    """Prompts of one accuracy: how many there were, and the mean covariance of their responses, nats."""

    accuracy: float
    prompts: int
    covariance_pg: float
    covariance_npg: float


def by_difficulty(rows: Iterable[Mapping[str, Any]]) -> list[Level]:
    """Return the mean covariances per accuracy of a prompt's group, over all rows that hold `dynamics/by_accuracy`."""
    sums: dict[float, list[float]] = {}
    for row in rows:
        levels = row.get("dynamics/by_accuracy")
        for level in levels if isinstance(levels, list) else []:
            values = [finite_number(value) for value in level] if isinstance(level, list) else []
            if len(values) != 4 or None in values or values[1] < 1:  # type: ignore[operator]
                continue
            accuracy, prompts, pg, npg = cast(list[float], values)
            here = sums.setdefault(accuracy, [0.0, 0.0, 0.0])
            for i, value in enumerate((prompts, prompts * pg, prompts * npg)):
                here[i] += value
    return [Level(a, int(n), pg / n, npg / n) for a, (n, pg, npg) in sorted(sums.items())]


def _is_share(name: str) -> bool:
    try:
        return 0 < float(name.removeprefix(TOP)) <= 1
    except ValueError:
        return False


def covariance_over_training(
    rows: Sequence[Mapping[str, Any]], parts: int = 3
) -> list[tuple[int, int, dict[str, float]]]:
    """Return (first step, last step, mean of every `covariance/top_*`) of equal parts of a run: Table 1 over time."""
    tables = []
    for row in rows:
        values = {
            name.removeprefix(TOP): number
            for name, value in row.items()
            if name.startswith(TOP) and _is_share(name) and (number := finite_number(value)) is not None
        }
        if values:
            tables.append((row["step"], values))
    found = []
    for part in np.array_split(np.arange(len(tables)), min(parts, len(tables)) or 1):
        here = [tables[i] for i in part]
        if here:
            shares = [share for share in here[0][1] if all(share in values for _, values in here)]
            means = {share: float(np.mean([values[share] for _, values in here])) for share in shares}
            found.append((here[0][0], here[-1][0], means))
    return found
