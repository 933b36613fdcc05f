"""Compute t intervals over seeds, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats


def interval(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Return the mean and half of its 95 % t interval over seeds; a half of nan for one value, None for none."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    if not known:
        return None
    if len(known) == 1:
        return float(known[0]), math.nan
    half = stats.t.ppf(0.975, len(known) - 1) * np.std(known, ddof=1) / math.sqrt(len(known))
    return float(np.mean(known)), float(half)


def differences(one: Sequence[float | None], other: Sequence[float | None]) -> list[float | None]:
    """Return one − other seed by seed; None where either is missing."""
    return [None if a is None or b is None else a - b for a, b in zip(one, other, strict=True)]


def mean_difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Return the mean difference over seeds and half of its 95 % t interval, nan where there are too few seeds."""
    return interval(differences(one, other)) or (math.nan, math.nan)


def cell(values: Sequence[float | None], spec: str = ".3f", sign: bool = False) -> str:
    """Return `mean ± half` for a table; a dash where nothing was measured."""
    found = interval(values)
    if found is None:
        return "–"
    mean = format(found[0], f"+{spec}" if sign else spec)
    return mean if np.isnan(found[1]) else f"{mean} ± {found[1]:{spec}}"


def ratio_cell(one: Sequence[float], other: Sequence[float], spec: str = ".1f") -> str:
    """Return the geometric mean of ratios, seed by seed, with the ends of its 95 % t interval."""
    found = interval([float(np.log(a / b)) for a, b in zip(one, other, strict=True) if a > 0 and b > 0])
    if found is None:
        return "–"
    mean, half = found
    if np.isnan(half):
        return f"{np.exp(mean):{spec}}"
    return f"{np.exp(mean):{spec}} ({np.exp(mean - half):{spec}} to {np.exp(mean + half):{spec}})"
