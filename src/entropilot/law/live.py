"""Compute the law while a run is training: what to log every few steps, and when to warn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropilot.analysis.values import check_nats, flat
from entropilot.errors import UserError
from entropilot.law.advice import FEWER_UPDATES, on_repeated_problems
from entropilot.law.assess import assess
from entropilot.law.law import LawFit, fit_law
from entropilot.methods import registry
from entropilot.records import ACCURACY

Array = NDArray[np.float64]

LEAST = 5  # points with both entropy and performance, below which no law is logged
MOST = 250  # points behind the interval; longer histories are averaged in blocks, as the law holds for means of exp(H)
NEARLY = 0.9  # spent, at which the alarm speaks
TENTH = 0.1  # of the first entropy, below which it speaks too


def smoothed_entropy(entropy: ArrayLike) -> float:
    """Return the mean of the last twentieth of the entropies, of 3 at least and of 20 at most; nan where there are none."""
    h = flat("entropy", entropy)
    h = h[np.isfinite(h)]
    return float(h[-min(max(3, h.size // 20), 20) :].mean()) if h.size else math.nan


def spent(entropy: ArrayLike) -> float:
    """Return (exp H₀ − exp H_t)/(exp H₀ − 1): the share that is gone of what entropy can buy under the law.

    H₀ is the first entropy, H_t the smoothed last; nan where entropy began at 0 or was never measured.
    """
    h = flat("entropy", entropy)
    h = h[np.isfinite(h)]
    if not h.size or h[0] <= 0:
        return math.nan
    check_nats(h)
    # (exp H₀ − exp H_t)/(exp H₀ − 1) = (1 − exp(H_t − H₀))/(1 − exp(−H₀))
    return float(np.expm1(smoothed_entropy(h) - h[0]) / np.expm1(-h[0]))


def law_metrics(steps: ArrayLike, entropy: ArrayLike, performance: ArrayLike) -> dict[str, float]:
    """Return what to log: `law/ceiling`, `law/ceiling_low`, `law/ceiling_high` (95 %), `law/r2` and `law/spent`.

    What can't be said yet is absent: the law before 5 points with both values, or where they can't be fitted; nothing
    is raised for the sake of what was measured.

    Args:
        steps: in order of training.
        entropy: H, nats; a value that is not finite counts as not measured.
        performance: R, likewise.
    """
    metrics: dict[str, float] = {}
    t, h, r = flat("steps", steps), flat("entropy", entropy), flat("performance", performance)
    if not t.shape == h.shape == r.shape:
        raise UserError(
            f"Steps, entropies and performances must be as many, but are {t.size}, {h.size}, {r.size}."
        )
    fitted = _fit(t, h, r)
    if fitted is not None:
        fit, half = fitted
        metrics = {
            "law/ceiling": fit.ceiling,
            "law/ceiling_low": fit.ceiling - half,
            "law/ceiling_high": fit.ceiling + half,
            "law/r2": fit.r2,
        }
    with suppress(UserError):
        metrics["law/spent"] = spent(h)
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def alarm(
    steps: ArrayLike,
    entropy: ArrayLike,
    performance: ArrayLike | None = None,
    *,
    performance_name: str = ACCURACY,
    settings: Mapping[str, Any] | None = None,
    raised: bool = False,
) -> str | None:
    """Return one sentence when 90 % of what entropy can buy is spent, or entropy is below a tenth of its start.

    It says what is happening, what the evidence is, and which settings to try and why. None before that, and where
    `raised` says that it was said.

    Args:
        steps, entropy, performance: as of `law_metrics`.
        performance_name: the metric taken as R.
        settings: of the run, as far as known: `method`, `restrain`, `updates_per_rollout`, `epsilon`, `epsilon_high`,
            `entropy_coef`, `beta`; what is set already is not advised again.
        raised: whether the sentence was said before.
    """
    h = flat("entropy", entropy)
    known = np.isfinite(h)
    if raised or known.sum() < LEAST:
        return None
    try:
        gone = spent(h)
    except UserError:
        return None
    start, now = float(h[known][0]), smoothed_entropy(h)
    if not (gone >= NEARLY or now < TENTH * start):
        return None
    step = flat("steps", steps)[known][-1]
    evidence = (
        f"Entropy is nearly spent at step {step:g}: it fell from {start:.3g} to {now:.2g} nats, which is "
        f"{100 * gone:.0f} % of what the law R = -a*exp(H) + b can buy with it"
    )
    if performance is not None:
        evidence += _prospect(flat("steps", steps), h, flat("performance", performance), performance_name)
    return f"{evidence}; {_advice(settings or {})}."


def _prospect(t: Array, h: Array, r: Array, name: str) -> str:
    """Say where R stands and what the law makes of it, in the words of `assess`."""
    fitted = _fit(t, h, r)
    if fitted is None:
        return ", though the law can't be fitted yet"
    fit, half = fitted
    assessment = assess(fit, performance_name=name)
    if not assessment.trusted:
        return f", though {assessment.short} (`entropilot fit` says more)"
    latest = r[np.isfinite(r)]
    return (
        f", and {name}, now {latest[-min(3, latest.size) :].mean():.3g}, has its ceiling near {fit.ceiling:.3g} "
        f"(95 % interval {fit.ceiling - half:.3g} to {fit.ceiling + half:.3g}; {assessment.short})"
    )


def _advice(settings: Mapping[str, Any]) -> str:
    method = str(settings.get("method") or "none")
    holding = {name: entry.stronger for name, entry in registry.REGISTRY.items() if entry.stronger}
    tries = [FEWER_UPDATES] if settings.get("updates_per_rollout") != 1 else []
    if method in holding:
        share, *others = holding[method]
        fields = [share if settings.get("restrain") is None else "restrain", *others]
        stronger = " or ".join(f"`{name}`" for name in fields)
        tries.append(
            f"raise its {stronger}, because {method} held back too few of the tokens that drive the fall"
        )
    else:
        tries.append(on_repeated_problems(method))
        low, high = settings.get("epsilon", 0.2), settings.get("epsilon_high")
        if not settings.get("beta"):
            tries.append("set `beta: 0.1`, a reference KL")
        if high is None or high <= low:
            tries.append(
                "raise `epsilon_high` to 0.28 (clip-higher), which lets rare tokens that paid off grow"
            )
    bonus = settings.get("entropy_coef") or 0
    if not bonus:
        tries.append(
            "add an entropy bonus, which pushes on all tokens and is touchy: the paper's 0.005 held, 0.01 exploded"
        )
    return "to keep exploring from an earlier checkpoint, " + ", or ".join(tries)


def _fit(t: Array, h: Array, r: Array) -> tuple[LawFit, float] | None:
    """Return the law and half of its ceiling's 95 % interval, from quick noise models; None where there is no fit."""
    both = np.isfinite(h) & np.isfinite(r)
    t, h, r = t[both], h[both], r[both]
    if h.size < LEAST:
        return None
    try:
        increasing = bool(np.isfinite(t).all() and (np.diff(t) > 0).all())
        fit = fit_law(h, r, steps=t if increasing else None)
        block = -(-h.size // MOST)
        rest = h.size % block
        power = np.exp(h[rest:] - h.max()).reshape(-1, block).mean(axis=1)
        thin = (
            fit if block == 1 else fit_law(np.log(power) + h.max(), r[rest:].reshape(-1, block).mean(axis=1))
        )
    except UserError:
        return None
    assert thin.line is not None
    noise = thin.line.noise(quick=True)
    return fit, float(noise.half_width(thin.line.loadings("ceiling"), 0.95)[0])
