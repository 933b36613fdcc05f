"""Predict with the law alone: the paper's protocol, told the later entropies, and a continuation in time, not told them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropilot.analysis.values import Interval, check_level, check_nats, flat
from entropilot.errors import UserError
from entropilot.law.courses import continuations
from entropilot.law.law import LawFit, fit_law
from entropilot.records import Run, finite_number

Array = NDArray[np.float64]

SHARE = 0.15  # the paper's: 36 of 236 steps
LEAST_ENTROPIES, LEAST_PAIRS = 8, 5


@dataclass(frozen=True)
class Backtest:
    """Hold a law fitted on the first share of the points and held against the rest, at their measured entropies.

    Attributes:
        fit: of the first points.
        fitted: how many those were.
        predicted: (m,) R of the others, from their measured H.
        measured: (m,) their R.
        rmse: over all predicted points.
        final_error: |predicted − measured| at the last one.
        naive_rmse: of predicting no change, the mean of the last three R of the first points.
        inside: the share of the others within their own 95 % interval.
    """

    fit: LawFit
    fitted: int
    predicted: Array
    measured: Array
    rmse: float
    final_error: float
    naive_rmse: float
    inside: float


def backtest(entropy: ArrayLike, performance: ArrayLike, share: float = SHARE) -> Backtest:
    """Run the paper's protocol: fit on the first share of the points, predict R at every later measured H.

    Raises:
        UserError: fewer than 3 points in the first share, or none after it.
    """
    h, r = flat("entropy", entropy), flat("performance", performance)
    if h.shape != r.shape:
        raise UserError(f"The law needs as many values of each, but there are {h.size} and {r.size}.")
    check_share(share)
    keep = np.isfinite(h) & np.isfinite(r)
    h, r = h[keep], r[keep]
    first = round(share * h.size)
    if first < 3 or first == h.size:
        raise UserError(
            f"The first {100 * share:g} % of {h.size} points are {first}, but the law needs 3 or more, and some after "
            "them to predict; take a larger share or validate more often."
        )
    fit = fit_law(h[:first], r[:first])
    check_nats(h)
    predicted, measured = fit.predict(h[first:]), r[first:]
    low, high = fit.interval_at(h[first:], measured=True)
    naive = r[max(0, first - 3) : first].mean()
    return Backtest(
        fit=fit,
        fitted=first,
        predicted=predicted,
        measured=measured,
        rmse=float(np.sqrt(np.mean((predicted - measured) ** 2))),
        final_error=float(abs(predicted[-1] - measured[-1])),
        naive_rmse=float(np.sqrt(np.mean((naive - measured) ** 2))),
        inside=float(np.mean((low <= measured) & (measured <= high))),
    )


def paper_protocol(run: Run, share: float, entropy: str, performance: str) -> dict[str, float] | None:
    """Run the paper's protocol on a run; return its numbers, or None where the run has too few points for it."""
    rows = run.column(entropy, performance)
    known = [(finite_number(h), finite_number(r)) for _, h, r in rows]
    h = [math.nan if value is None else value for value, _ in known]
    r = [math.nan if value is None else value for _, value in known]
    try:
        result = backtest(h, r, share)
    except UserError:
        return None
    return {
        "fitted": result.fitted,
        "predicted": len(result.predicted),
        "rmse": result.rmse,
        "final_error": result.final_error,
        "naive_rmse": result.naive_rmse,
    }


@dataclass(frozen=True)
class Continuation:
    """Hold what the law says of the end of a run, from a prefix. Intervals come from draws of the models.

    They hold what the models leave open, and not that the models may be wrong: on public runs they are too narrow
    (docs/results/real_runs.md). `forecast.forecast` gives intervals that are calibrated on those runs.

    Attributes:
        last_step: the step spoken of.
        model: of entropy over steps, the best by AIC on the prefix.
        models: the share of each model in the draws.
        entropy, entropy_interval: H at the last step, nats.
        performance, interval: R by the law at the last step.
        measured_interval: of one R measured there, which has noise of its own.
        spent_now, spent: (exp H₀ − exp H_t)/(exp H₀ − 1), the share of what entropy can buy, at the end of the prefix
            and at the last step; nan where entropy began at 0.
        ninety_step, ninety_interval: the step at which 90 % of the gain until the last step is had; None where
            entropy is not expected to fall.
        fit: the law on the prefix.
        steps, path: the best model's course of R from the first to the last step.
    """

    last_step: float
    model: str
    models: dict[str, float]
    entropy: float
    entropy_interval: Interval
    performance: float
    interval: Interval
    measured_interval: Interval
    spent_now: float
    spent: float
    ninety_step: float | None
    ninety_interval: Interval | None
    fit: LawFit
    steps: Array = field(repr=False, compare=False)
    path: Array = field(repr=False, compare=False)


def continue_by_law(
    steps: ArrayLike,
    entropy: ArrayLike,
    performance: ArrayLike,
    last_step: float,
    *,
    level: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
    most: float = math.inf,
) -> Continuation:
    """Continue entropy from a prefix, and put it through the law: R at a later step.

    The models of H(t) in `courses` are fitted to all entropies, the law to the points that have both; draws of
    the one are put through draws of the other, so the interval holds what either leaves open.

    Args:
        steps: increasing.
        entropy: H at each, nats; a value that is not finite counts as not measured.
        performance: R at each, likewise.
        last_step: the step to speak of, after the prefix.
        level: of the intervals.
        draws: how many courses are drawn.
        seed: of the draws.
        most: the largest entropy there can be, ln of the vocabulary.

    Raises:
        UserError: the prefix holds fewer than 8 entropies or 5 points with both, or the law can't be fitted to it.
    """
    t, h, r = flat("steps", steps), flat("entropy", entropy), flat("performance", performance)
    if not t.shape == h.shape == r.shape:
        raise UserError(
            f"A forecast needs as many values of each, but there are {t.size} steps, {h.size} entropies "
            f"and {r.size} values of performance."
        )
    check_level(level)
    if draws < 100:
        raise UserError(f"A forecast needs 100 draws or more for its interval, but draws is {draws}.")
    if not (np.isfinite(t).all() and (np.diff(t) > 0).all()):
        raise UserError("A forecast needs steps that are finite and increasing.")
    known = np.isfinite(h)
    pairs = known & np.isfinite(r)
    if known.sum() < LEAST_ENTROPIES or pairs.sum() < LEAST_PAIRS:
        raise UserError(
            f"A forecast needs {LEAST_ENTROPIES} entropies and {LEAST_PAIRS} points that also have a performance, but "
            f"the prefix holds {known.sum()} and {pairs.sum()}; give a longer prefix or validate more often."
        )
    if not (math.isfinite(last_step) and last_step > t[known][-1]):
        raise UserError(
            f"The step to forecast, {last_step:g}, must come after the prefix, which ends at {t[known][-1]:g}."
        )
    check_nats(h[known])
    fit = fit_law(h[pairs], r[pairs], steps=t[pairs])

    rng = np.random.default_rng(seed)
    t, h = t[known], h[known]
    at = np.linspace(t[0], last_step, 201)
    ahead = continuations(t, h, at, draws, rng, most)
    law = fit.resample(draws, seed=int(rng.integers(2**63)))
    power = np.exp(np.minimum(ahead.paths, 700.0))
    final = law.b - law.a * power[:, -1]
    noisy = final + law.noise * rng.standard_normal(draws)
    tails = [(1 - level) / 2, (1 + level) / 2]
    best = np.exp(ahead.best)
    start, now = float(np.exp(h[0])), float(np.exp(h[-max(1, h.size // 10) :].mean()))
    ninety, ninety_interval = _ninety(at, best, power, tails)
    middle = float(np.median(power[:, -1]))
    return Continuation(
        last_step=float(last_step),
        model=ahead.model,
        models=ahead.weights,
        entropy=math.log(middle),
        entropy_interval=Interval(*np.quantile(ahead.paths[:, -1], tails).tolist()),
        performance=float(np.median(final)),
        interval=Interval(*np.quantile(final, tails).tolist()),
        measured_interval=Interval(*np.quantile(noisy, tails).tolist()),
        spent_now=(start - now) / (start - 1) if start > 1 else math.nan,
        spent=(start - middle) / (start - 1) if start > 1 else math.nan,
        ninety_step=ninety,
        ninety_interval=ninety_interval,
        fit=fit,
        steps=at,
        path=fit.b - fit.a * best,
    )


def _ninety(at: Array, best: Array, power: Array, tails: list[float]) -> tuple[float | None, Interval | None]:
    """Return the step at which exp(H) has fallen by 90 % of its fall, on the best course and over the draws."""

    def reached(paths: Array) -> Array:
        goal = 0.1 * paths[:, :1] + 0.9 * paths[:, -1:]
        return at[(paths <= goal).argmax(axis=1)]

    falling = power[:, -1] < power[:, 0] * (1 - 1e-9)
    if best[-1] >= best[0] * (1 - 1e-9) or falling.mean() < 0.5:
        return None, None
    return float(reached(best[None])[0]), Interval(*np.quantile(reached(power[falling]), tails).tolist())


def check_share(share: float) -> None:
    """Refuse a first share of a run that is not strictly between 0 and 1."""
    if not 0 < share < 1:
        raise UserError(
            f"The first share of a run must be between 0 and 1, such as 0.15, but it is {share:g}."
        )
