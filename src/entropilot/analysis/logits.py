"""Describe the distribution of a model's logits at generated positions, and how it shifts from model to model.

Logits are pooled over positions and vocabulary, as in the authors' study (arXiv:2505.20282, Fig. 3), but never kept: a
prompt leaves five power sums and a few counts, a model one histogram, however many tokens there were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MAX_BINS = 1024
FINEST = -8  # a bin is 2**−8 wide to begin with
TOP = (1, 10, 50)
# Means over positions; the moments are over positions × vocabulary.
PER_TOKEN = ("entropy", *(f"top{k}" for k in TOP), "candidates")
PER_VALUE = ("mean", "sd", "skewness", "kurtosis")
STATISTICS = PER_VALUE + PER_TOKEN


@dataclass(frozen=True)
class Moments:
    """Count, mean, and Σ(x − mean)^k for k = 2, 3, 4: mergeable without a value being kept.

    Merging is that of Chan, Golub and LeVeque (1979) with the higher powers of Pébay (SAND2008-6212, Eq. 1.5).
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    m4: float = 0.0

    @classmethod
    def of(cls, values: NDArray[Any]) -> Moments:
        """Return the moments of an array, in float64."""
        x = np.asarray(values, dtype=np.float64).ravel()
        if x.size == 0:
            return cls()
        mean = float(x.mean())
        d = x - mean
        square = d * d
        return cls(
            x.size, mean, float(square.sum()), float((square * d).sum()), float((square * square).sum())
        )

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both together."""
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        a, b = self.count, other.count
        n, delta = a + b, other.mean - self.mean
        m2 = self.m2 + other.m2 + delta**2 * a * b / n
        m3 = (
            self.m3
            + other.m3
            + delta**3 * a * b * (a - b) / n**2
            + 3 * delta * (a * other.m2 - b * self.m2) / n
        )
        m4 = (
            self.m4
            + other.m4
            + delta**4 * a * b * (a * a - a * b + b * b) / n**3
            + 6 * delta**2 * (a * a * other.m2 + b * b * self.m2) / n**2
            + 4 * delta * (a * other.m3 - b * self.m3) / n
        )
        return Moments(n, self.mean + delta * b / n, m2, m3, m4)

    def powers(self, centre: float) -> Array:
        """Return Σ(x − centre)^k for k = 0 … 4: sums, so that prompts can be added with weights."""
        n, d = self.count, self.mean - centre
        return np.array(
            [
                n,
                n * d,
                self.m2 + n * d**2,
                self.m3 + 3 * d * self.m2 + n * d**3,
                self.m4 + 4 * d * self.m3 + 6 * d**2 * self.m2 + n * d**4,
            ]
        )


@dataclass
class Histogram:
    """Counts in bins [i·2**exponent, (i + 1)·2**exponent), i from `first` on; they double in width where they must.

    Edges depend on no data but the range, so that the histograms of two models have a common refinement.
    """

    exponent: int = FINEST
    first: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def width(self) -> float:
        """Return the width of a bin."""
        return 2.0**self.exponent

    def coarsen(self, exponent: int) -> Histogram:
        """Return the histogram with bins 2**exponent wide, no narrower than its own."""
        first, counts = self.first, self.counts
        for _ in range(exponent - self.exponent):
            before, after = first % 2, (first + counts.size) % 2
            counts = np.pad(counts, (before, after)).reshape(-1, 2).sum(1)
            first = (first - before) // 2
        return Histogram(max(exponent, self.exponent), first, counts)

    def fit(self, low: float, high: float) -> None:
        """Make room for values between low and high.

        Raises:
            ValueError: an end that is not finite.
        """
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"A histogram has no bin for values from {low} to {high}; leave out what is not finite."
            )

        def reach() -> tuple[int, int]:
            ends = math.floor(low / self.width), math.floor(high / self.width)
            if self.counts.size == 0:
                return ends
            return min(self.first, ends[0]), max(self.first + self.counts.size - 1, ends[1])

        while (span := reach())[1] - span[0] >= MAX_BINS:
            wider = self.coarsen(self.exponent + 1)
            self.exponent, self.first, self.counts = wider.exponent, wider.first, wider.counts
        first, last = span
        if self.counts.size == 0:
            self.first, self.counts = first, np.zeros(last - first + 1, dtype=np.int64)
        else:
            after = last - (self.first + self.counts.size - 1)
            self.counts = np.pad(self.counts, (self.first - first, after))
            self.first = first

    def add(self, values: NDArray[Any]) -> None:
        """Count the values of an array."""
        x = np.asarray(values, dtype=np.float64).ravel()
        if x.size:
            self.fit(float(x.min()), float(x.max()))
            bins = np.floor(x / self.width).astype(np.int64) - self.first
            self.counts += np.bincount(bins, minlength=self.counts.size)


@dataclass
class PromptLogits:
    """Hold what is left of a prompt: its tokens, its values' moments, and sums over its positions by `PER_TOKEN`."""

    tokens: int = 0
    moments: Moments = Moments()
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PER_TOKEN, 0.0))

    def add(self, tokens: int, moments: Moments, sums: dict[str, float]) -> None:
        """Take in some positions."""
        self.tokens += tokens
        self.moments = self.moments.merge(moments)
        self.sums = {name: self.sums[name] + sums[name] for name in PER_TOKEN}


@dataclass
class ModelLogits:
    """Hold a model's prompts, in the order of the data, and the histogram of all their values."""

    name: str
    prompts: list[PromptLogits] = field(default_factory=list)
    histogram: Histogram = field(default_factory=Histogram)


def _statistics(powers: Array, sums: Array, tokens: Array, centre: float) -> Array:
    """Return `STATISTICS` along the last axis, from power sums (…, 5), token sums (…, |PER_TOKEN|) and counts (…)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        raw = powers[..., 1:] / powers[..., :1]
        shift = raw[..., 0]
        m2 = raw[..., 1] - shift**2
        m3 = raw[..., 2] - 3 * shift * raw[..., 1] + 2 * shift**3
        m4 = raw[..., 3] - 4 * shift * raw[..., 2] + 6 * shift**2 * raw[..., 1] - 3 * shift**4
        # Not m2 > 0 alone: where all values are equal only rounding is left of it.
        m2 = np.where(m2 > 1e-20 * (centre + shift) ** 2, m2, 0.0)
        moments = np.stack([centre + shift, np.sqrt(m2), m3 / m2**1.5, m4 / m2**2 - 3], axis=-1)
        return np.concatenate([moments, sums / tokens[..., None]], axis=-1)


def compare(
    models: Sequence[ModelLogits], *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Return the statistics of every model, and the difference of each to the first, with bootstrap intervals.

    Prompts are drawn with replacement, the same for all models, so that differences are paired; intervals are
    percentiles. Skewness is m3/m2^1.5 and kurtosis m4/m2² − 3, as scipy's by default; sd divides by n. With one prompt
    there are no intervals.

    Returns:
        {"models": [{"name", "prompts", "tokens", "values", "histogram", statistic: {"value", "low", "high"}, …}],
        "differences": [{"model", "minus", statistic: {"value", "low", "high"}, …}], "level", "draws"}.

    Raises:
        ValueError: no model, models with different numbers of prompts, or a model without a token.
    """
    if not models:
        raise ValueError("There is no model to describe; give at least one.")
    count = len(models[0].prompts)
    if count == 0 or any(len(model.prompts) != count for model in models):
        numbers = ", ".join(f"{model.name}: {len(model.prompts)}" for model in models)
        raise ValueError(f"Models are compared prompt by prompt, but their numbers of prompts are {numbers}.")
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    tails = [(1 - level) / 2, (1 + level) / 2]
    found = [_with_draws(model, weights.astype(np.float64)) for model in models]

    def cells(value: Array, drawn: Array) -> dict[str, dict[str, float | None]]:
        ends = np.full((2, len(STATISTICS)), np.nan)
        if count > 1:
            ends = np.quantile(drawn, tails, axis=0)
        return {
            name: {"value": _plain(value[i]), "low": _plain(ends[0, i]), "high": _plain(ends[1, i])}
            for i, name in enumerate(STATISTICS)
        }

    described = []
    for model, (value, drawn) in zip(models, found, strict=True):
        values = sum(prompt.moments.count for prompt in model.prompts)
        histogram = {
            "first_edge": model.histogram.first * model.histogram.width,
            "width": model.histogram.width,
            "counts": model.histogram.counts.tolist(),
        }
        about = {"name": model.name, "prompts": count, "tokens": sum(p.tokens for p in model.prompts)}
        described.append(about | {"values": values} | cells(value, drawn) | {"histogram": histogram})
    (base, base_drawn), *others = found
    differences = [
        {"model": model.name, "minus": models[0].name} | cells(value - base, drawn - base_drawn)
        for model, (value, drawn) in zip(models[1:], others, strict=True)
    ]
    return {"models": described, "differences": differences, "level": level, "draws": draws}


def _with_draws(model: ModelLogits, weights: Array) -> tuple[Array, Array]:
    """Return a model's statistics, (k,), and those of every draw of prompts, (draws, k)."""
    pooled = Moments()
    for prompt in model.prompts:
        pooled = pooled.merge(prompt.moments)
    tokens = np.array([prompt.tokens for prompt in model.prompts], dtype=np.float64)
    if tokens.sum() == 0 or pooled.count == 0:
        raise ValueError(f"{model.name} generated no token; there are no logits to describe.")
    powers = np.stack([prompt.moments.powers(pooled.mean) for prompt in model.prompts])
    sums = np.array([[prompt.sums[name] for name in PER_TOKEN] for prompt in model.prompts])
    value = _statistics(pooled.powers(pooled.mean), sums.sum(0), tokens.sum(), pooled.mean)
    return value, _statistics(weights @ powers, weights @ sums, weights @ tokens, pooled.mean)


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
