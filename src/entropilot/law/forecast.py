"""Forecast a run from its first part, with intervals calibrated on public runs.

The forecast is "no change". On public runs neither the law nor any shape over the steps beat it reliably when every
choice was made on other repositories' runs (docs/results/real_runs.md), so what they say stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropilot.analysis.values import Interval, check_nats, flat
from entropilot.errors import UserError
from entropilot.law.assess import Assessment, assess
from entropilot.law.by_law import LEAST_ENTROPIES, LEAST_PAIRS, Continuation, check_share, continue_by_law
from entropilot.law.calibration import (
    MOST_NATS,
    allowed_range,
    constants_for,
    entropy_interval,
    performance_interval,
    table,
)
from entropilot.law.law import LawFit, fit_law, need_metric
from entropilot.law.rivals import errors_on_own_end, predict_all, recent
from entropilot.records import ACCURACY, ENTROPY, REWARD, Run, finite_number

Array = NDArray[np.float64]

SHARE = 0.15  # the paper's: 36 of 236 steps


@dataclass(frozen=True)
class Forecast:
    """Hold what is expected at a later step of a run. Intervals are for one measurement there, at 95 %.

    Attributes:
        last_step: the step of the forecast.
        performance_name: the metric taken as R.
        performance, interval: R, "no change" from the mean of the last tenth of the prefix.
        held: the share of public runs whose last measurement such an interval held, made without their repository; None
            where the prefix is too short a share of the run for that to have been measured.
        entropy, entropy_interval: H in nats, likewise.
        verdict: what `assess` says of the law on the prefix, or why it can't be fitted.
        silent: why the law says nothing of the end; None where it does.
        law: what the law says of R at the end, at the entropy that the courses continue to; None where it is silent.
        predictions: what each rival says of R (`rivals.RIVALS`), and the law under "law" where it is not silent.
        errors_on_own_end: by how much each rival misses the end of the prefix, fitted on two thirds of it; empty where
            the prefix is too short.
        continuation: the law's own continuation, with its course of entropy; None where it is silent.
        fit: the law on the prefix; None where it can't be fitted.
        points: how many values of R the prefix holds.
        notes: sentences on choices that the reader should know.
        measured: step and value of the run's last R after the prefix and up to the step of the forecast; None where there
            is none.
    """

    last_step: float
    performance_name: str
    performance: float
    interval: Interval
    held: float | None
    entropy: float
    entropy_interval: Interval
    verdict: str
    silent: str | None
    law: float | None
    predictions: dict[str, float]
    errors_on_own_end: dict[str, float]
    continuation: Continuation | None
    fit: LawFit | None
    points: int
    notes: tuple[str, ...] = field(default=())
    measured: tuple[float, float] | None = None

    @property
    def best(self) -> tuple[str, float] | None:
        """Return the rival that did best on the prefix's own end, and its error there; None where that is not known."""
        return min(self.errors_on_own_end.items(), key=lambda item: item[1], default=None)

    def document(self) -> dict[str, Any]:
        """Return the forecast as plain values, for JSON."""
        plain = (
            "last_step performance_name performance interval held entropy entropy_interval verdict silent law predictions "
            "points notes measured"
        )
        values = {name: getattr(self, name) for name in plain.split()}
        ahead = self.continuation
        return values | {
            "best_on_own_end": None if self.best is None else self.best[0],
            "best_error": None if self.best is None else self.best[1],
            "ceiling": None if self.fit is None else self.fit.ceiling,
            "entropy_model": None if ahead is None else ahead.model,
            "spent_now": None if ahead is None else ahead.spent_now,
            "spent": None if ahead is None else ahead.spent,
            "ninety_step": None if ahead is None else ahead.ninety_step,
        }


def forecast(
    steps: ArrayLike,
    entropy: ArrayLike,
    performance: ArrayLike,
    last_step: float,
    *,
    performance_name: str = ACCURACY,
    vocabulary: int | None = None,
    share: float | None = None,
    seed: int = 0,
) -> Forecast:
    """Forecast R and H at a later step from a prefix alone.

    Args:
        steps: increasing.
        entropy: H at each, nats; a value that is not finite counts as not measured.
        performance: R at each, likewise.
        last_step: the step of the forecast, after the prefix.
        performance_name: the metric taken as R; an accuracy lies between 0 and 1.
        vocabulary: tokens in the model's vocabulary, whose logarithm bounds H; 12.5 nats where it is not given.
        share: of the steps up to the forecast's that the prefix was cut at; by default up to its last row, which may come
            a little earlier.
        seed: of the draws behind the law's own continuation.

    Raises:
        UserError: the prefix holds no value of R or H, or steps are not increasing, or end after `last_step`.
    """
    t, h, r = flat("steps", steps), flat("entropy", entropy), flat("performance", performance)
    if not t.shape == h.shape == r.shape:
        raise UserError(
            f"A forecast needs as many values of each, but there are {t.size} steps, {h.size} entropies "
            f"and {r.size} values of performance."
        )
    if not (np.isfinite(t).all() and (np.diff(t) > 0).all()):
        raise UserError("A forecast needs steps that are finite and increasing.")
    if vocabulary is not None and vocabulary < 2:
        raise UserError(
            f"A vocabulary has 2 tokens or more, but it is {vocabulary}; give the model's number of tokens."
        )
    with_h, with_r = np.isfinite(h), np.isfinite(r)
    if not with_h.any() or not with_r.any():
        raise UserError(
            f"A forecast needs an entropy and a performance, but the prefix holds {with_h.sum()} and {with_r.sum()}; "
            "give a longer prefix or validate more often."
        )
    if not (math.isfinite(last_step) and last_step > t[with_h | with_r][-1]):
        raise UserError(
            f"The step to forecast, {last_step:g}, must come after the prefix, which ends at "
            f"{t[with_h | with_r][-1]:g}."
        )
    check_nats(h[with_h])
    most = MOST_NATS if vocabulary is None else math.log(vocabulary)
    known, at = r[with_r], t[with_r]
    allowed = allowed_range(known, performance_name == ACCURACY)
    constants = constants_for((t[-1] - t[0]) / (last_step - t[0]) if share is None else share)
    now, entropy_now = recent(known), min(recent(h[with_h]), most)
    predictions = predict_all(at, known, last_step, allowed)
    errors = errors_on_own_end(at, known, allowed)
    fit, assessment, silent = _law(t, h, r, performance_name)
    continuation, law = None, None
    if silent is None:
        continuation = continue_by_law(t, h, r, last_step, seed=seed, most=most)
        law = min(max(continuation.performance, allowed.low), allowed.high)
        predictions["law"] = law
    return Forecast(
        last_step=float(last_step),
        performance_name=performance_name,
        performance=now,
        interval=performance_interval(now, known, allowed, constants),
        held=constants.held,
        entropy=entropy_now,
        entropy_interval=entropy_interval(entropy_now, constants, most),
        verdict=assessment.verdict if assessment is not None else str(silent),
        silent=silent,
        law=law,
        predictions=predictions,
        errors_on_own_end=errors,
        continuation=continuation,
        fit=fit,
        points=int(with_r.sum()),
    )


def forecast_run(
    run: Run,
    prefix: float = SHARE,
    last_step: float | None = None,
    entropy: str = ENTROPY,
    performance: str | None = None,
    *,
    default: str = ACCURACY,
    training_reward: str = REWARD,
    seed: int = 0,
) -> Forecast:
    """Forecast the end of a run from its first share of steps, or, with `prefix=1`, a step it has not reached.

    Args:
        run: a run read by `records.read_run` or `readers.read`.
        prefix: the first share of the steps that is used.
        last_step: the step of the forecast; by default the run's last.
        entropy: the metric taken as H.
        performance: the metric taken as R, whatever the prefix holds of it.
        default: the metric taken as R where none is given; the training reward where the prefix holds fewer than 5 of
            it (a note says so).
        training_reward: the name of the training reward.
        seed: of the draws behind the law's own continuation.

    Raises:
        UserError: a metric is missing, or there is nothing to forecast.
    """
    if prefix != 1:
        check_share(prefix)
    need_metric(run, "entropy", entropy, "a forecast")
    measured = [row for row in run.rows if finite_number(row.get(entropy)) is not None]
    end = max(row["step"] for row in run.rows)
    if prefix == 1 and last_step is None:
        raise UserError(
            f"The whole run {run.name} ends at step {end}; say which later step to forecast with --last-step."
        )
    begin = measured[0]["step"]
    kept = [row for row in run.rows if 0 <= row["step"] - begin <= prefix * (end - begin)]
    notes: tuple[str, ...] = ()
    if performance is None:
        performance, notes = _choose(kept, default, training_reward)
    to = end if last_step is None else last_step
    share = prefix * (end - begin) / (to - begin) if to > begin else None
    t = np.array([row["step"] for row in kept], dtype=float)
    h, r = (_values(kept, name) for name in (entropy, performance))
    try:
        result = forecast(t, h, r, to, performance_name=performance, share=share, seed=seed)
    except UserError as error:
        raise UserError(f"Run {run.name}, the first {100 * prefix:g} %, {performance}: {error}") from error
    later = [
        (float(row["step"]), value)
        for row in run.rows
        if t[-1] < row["step"] <= result.last_step
        and (value := finite_number(row.get(performance))) is not None
    ]
    return Forecast(**{**vars(result), "notes": notes, "measured": later[-1] if later else None})


def describe(ahead: Forecast, prefix: float, protocol: Mapping[str, float] | None = None) -> list[str]:
    """Write a forecast as lines for people: the verdict on the prefix first, then the numbers.

    Args:
        ahead: of `forecast_run`.
        prefix: the share of the run that was used.
        protocol: of `by_law.paper_protocol`, where there is one.
    """
    where = f"the first {100 * prefix:g} % of the run" if prefix < 1 else "the whole run"
    low, high, entropy_low, entropy_high = (
        f"{value:.3g}" for value in (*ahead.interval, *ahead.entropy_interval)
    )
    law = (
        f"no forecast from the law: {ahead.silent}"
        if ahead.silent is not None
        else f"the law predicts {ahead.law:.3g}; on public runs it was no better than no change, so it is not the forecast"
    )
    lines = [
        *ahead.notes,
        *([f"{where}: {ahead.verdict}"] if ahead.fit is not None else []),
        law,
        f"forecast: {ahead.performance_name} at step {ahead.last_step:g} is {ahead.performance:.3g}, no change "
        f"(95 % interval of one measurement: {low} to {high}; {_held(ahead.held)})",
        f"entropy at step {ahead.last_step:g}: {ahead.entropy:.3g} nats, no change (95 % interval: {entropy_low} to "
        f"{entropy_high})",
    ]
    if ahead.measured is not None:
        at, value = ahead.measured
        where = "inside" if ahead.interval[0] <= value <= ahead.interval[1] else "outside"
        if at >= ahead.last_step:
            lines.append(f"the run itself measured {value:.3g} at step {at:g}, {where} the interval")
        else:
            lines.append(
                f"the run itself measured {value:.3g} at step {at:g}, its last before the step of the forecast"
            )
    if len(ahead.predictions) > 1:
        lines += [
            "",
            f"for comparison, {ahead.performance_name} at step {ahead.last_step:g} as each of these predicts it:",
        ]
        lines += _predictions(ahead)
    if protocol is not None:
        lines.append(
            f"the paper's method, which is told the later entropies: fitted on the first {protocol['fitted']} points, it "
            f"misses the other {protocol['predicted']} by {protocol['rmse']:.3g} (root mean square; no change: "
            f"{protocol['naive_rmse']:.3g}) and the last one by {protocol['final_error']:.3g}"
        )
    return lines


def _held(share: float | None) -> str:
    if share is None:
        least = f"{100 * table()[0].share:g} %"
        return f"how many such intervals hold is not known for less than {least} of a run"
    return f"on public runs, {100 * share:.0f} % of such intervals held the measurement"


def _predictions(ahead: Forecast) -> list[str]:
    """Write what each shape predicts, and by how much it missed the last third of the prefix."""
    errors = ahead.errors_on_own_end
    rows = [
        (name, f"{value:.3g}", f"{errors[name]:.3g}" if name in errors else "-")
        for name, value in ahead.predictions.items()
    ]
    if errors:
        rows.insert(0, ("", "prediction", "error on the last third"))
    width, column = (max(len(row[place]) for row in rows) for place in (0, 1))
    return [
        f"  {name:<{width}}  {value:>{column}}" + (f"  {error}" if errors else "")
        for name, value, error in rows
    ]


def _choose(rows: list[dict[str, Any]], default: str, training_reward: str) -> tuple[str, tuple[str, ...]]:
    """Choose the default metric, or the training reward where the prefix holds too few values of it."""
    values, rewards = (int(np.isfinite(_values(rows, name)).sum()) for name in (default, training_reward))
    if default == training_reward or values >= LEAST_PAIRS or rewards <= values:
        return default, ()
    return training_reward, (
        f"the first part of the run holds {values} value{'s' * (values != 1)} of {default} and {LEAST_PAIRS} are "
        "needed, so this forecasts the training reward; validate more often, or name a metric with --performance",
    )


def _values(rows: list[dict[str, Any]], name: str) -> Array:
    return np.array([math.nan if (x := finite_number(row.get(name))) is None else x for row in rows])


def _law(
    t: Array, h: Array, r: Array, performance_name: str
) -> tuple[LawFit | None, Assessment | None, str | None]:
    """Fit and assess the law on the prefix; say why it is silent about the end, or None where it is not."""
    known = np.isfinite(h)
    pairs = known & np.isfinite(r)
    try:
        fit = fit_law(h[pairs], r[pairs], steps=t[pairs])
    except UserError as error:
        return None, None, f"the law can't be fitted: {str(error).rstrip('.')}"
    assessment = assess(fit, performance_name=performance_name)
    return fit, assessment, _silent(fit, assessment, h[known], int(pairs.sum()))


def _silent(fit: LawFit, assessment: Assessment, h: Array, pairs: int) -> str | None:
    if assessment.grade == "none":
        return "R is the same at all points"
    if assessment.grade == "fails":
        return "R rose with entropy, against the law"
    if recent(h) >= float(h[: max(1, h.size // 10)].mean()):
        return "entropy has not fallen"
    if any(finding.name == "trend" for finding in assessment.findings):
        return "R drifts at equal entropy"
    if h.size < LEAST_ENTROPIES or pairs < LEAST_PAIRS:
        return (
            f"it needs {LEAST_ENTROPIES} entropies and {LEAST_PAIRS} points that also have a performance, and there "
            f"are {h.size} and {pairs}"
        )
    return None
