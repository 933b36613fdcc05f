"""Look up what a run logged, by what it means, whichever framework wrote it; smooth it, and measure its noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entropilot.records import ACCURACY, ENTROPY, REWARD, Run

Array = NDArray[np.float64]

# By meaning: the names of our own records, TRL, verl; the first that a run has counts. A leading `train/` is ignored.
NAMES: Mapping[str, tuple[str, ...]] = {
    "entropy": (ENTROPY, "entropy/train_token_mean", "entropy", "actor/entropy"),
    "reward": (REWARD, "reward", "critic/score/mean", "critic/rewards/mean"),
    "validation": (ACCURACY, "validation/reward"),
    "loss": ("loss", "actor/pg_loss"),
    "gradient": ("grad_norm", "actor/grad_norm"),
    "all right": ("groups/all_right",),
    "all wrong": ("groups/all_wrong",),
    "equal groups": ("frac_reward_zero_std",),
    "length": ("completion/length", "completions/mean_length", "response_length/mean"),
    "truncated": ("completion/truncated", "completions/clipped_ratio", "response_length/clip_ratio"),
    "kl": ("kl", "actor/kl_loss", "actor/ppo_kl"),
    "log ratio": ("log_ratio/p99",),
    "clip low": ("clip/low",),
    "clip high": ("clip/high",),
    "clip": ("clip_ratio/region_mean", "actor/pg_clipfrac"),
    # Of two engines. Our own two entropies are of one engine, one a mean over sequences and one over tokens.
    "rollout entropy": ("rollout/entropy", "rollout_entropy"),
    "training entropy": ("actor/entropy", "entropy"),
    "engine difference": ("sampling/sampling_logp_difference/mean", "training/rollout_probs_diff_mean"),
    "chosen": ("chosen/tokens",),
    "flip rate": ("semantic/flip_rate",),
}


@dataclass(frozen=True)
class Signal:
    """Hold one metric of a run where it was logged.

    Attributes:
        name: as the log calls it.
        steps, values: (n,) each, in order of step; values may be infinite or nan where the log says so.
    """

    name: str
    steps: Array
    values: Array

    @property
    def width(self) -> int:
        """Return how many points a mean is taken over: a tenth, 3 at least."""
        return min(max(3, self.values.size // 10), self.values.size)

    @property
    def smooth(self) -> Array:
        """(n − width + 1,) means over neighbouring points."""
        return np.convolve(self.values, np.full(self.width, 1 / self.width), "valid")

    @property
    def smooth_steps(self) -> Array:
        """Return the last step of each mean."""
        return self.steps[self.width - 1 :]

    @property
    def start(self) -> float:
        """Return the mean of the first tenth."""
        return float(self.values[: self.width].mean())

    @property
    def end(self) -> float:
        """Return the mean of the last tenth."""
        return float(self.values[-self.width :].mean())

    @property
    def noise(self) -> float:
        """Return the standard deviation of a value around its course, from neighbouring differences."""
        return float(np.sqrt(np.mean(np.diff(self.values) ** 2) / 2)) if self.values.size > 1 else 0.0

    @property
    def mean_noise(self) -> float:
        """Return the standard deviation of a mean over a tenth, were its points independent."""
        return self.noise / math.sqrt(self.width)

    @property
    def rises(self) -> bool:
        """Tell whether the end lies above the start, by two standard deviations of such a difference or more."""
        return self.end - self.start > 2 * math.sqrt(2) * self.mean_noise

    def since(self, share: float) -> Signal:
        """Return the part after a share of the points."""
        first = int(share * self.values.size)
        return Signal(self.name, self.steps[first:], self.values[first:])


class Signals:
    """Hold what a run logged, by meaning.

    Args:
        run: the run.
        entropy: the name of its entropy in the rows, where it was chosen.
        performance: the name of its performance, likewise.
    """

    def __init__(self, run: Run, entropy: str | None = None, performance: str | None = None) -> None:
        self.run = run
        self._chosen = {"entropy": entropy}
        if performance is not None:
            self._chosen["reward" if performance.startswith("reward/") else "validation"] = performance
        self._asked = {name for names in NAMES.values() for name in names}
        self._asked |= {name for name in self._chosen.values() if name}

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one more row, later than all before; the run's own rows stay as they are."""
        self._take(self._columns, row)

    def get(self, meaning: str, least: int = 3) -> Signal | None:
        """Return a metric with `least` values or more; None where the run has none."""
        chosen = self._chosen.get(meaning)
        names = (chosen, *NAMES[meaning]) if chosen else NAMES[meaning]
        for name in names:
            for logged in (name, f"train/{name}"):
                signal = self._read(logged)
                if signal is not None and signal.values.size >= least:
                    return signal
        return None

    def total(self, *meanings: str) -> Signal | None:
        """Return the sum of several metrics at the steps that have all; None where one is missing."""
        parts = [self.get(meaning) for meaning in meanings]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return Signal(
            " + ".join(part.name for part in known), *_joined([(part.steps, part.values) for part in known])
        )

    def pair(self, first: str, second: str) -> tuple[Signal, Signal] | None:
        """Return two metrics at the steps that have both, 3 or more; None where there are fewer."""
        one, two = self.get(first), self.get(second)
        if one is None or two is None or one.name == two.name:
            return None
        steps, i, j = np.intersect1d(one.steps, two.steps, return_indices=True)
        if steps.size < 3:
            return None
        return Signal(one.name, steps, one.values[i]), Signal(two.name, steps, two.values[j])

    def _read(self, name: str) -> Signal | None:
        points = self._columns.get(name)
        return Signal(name, *np.array(points).T) if points else None

    @cached_property
    def _columns(self) -> dict[str, list[tuple[float, float]]]:
        """(step, value) of every metric that a check may ask for."""
        columns: dict[str, list[tuple[float, float]]] = {}
        for name in filter(self._is_asked, set(chain.from_iterable(self.run.rows))):
            points = [(float(step), _number(logged)) for step, logged in self.run.column(name)]
            if kept := [(step, value) for step, value in points if value is not None]:
                columns[name] = kept
        return columns

    def _is_asked(self, name: str) -> bool:
        return name in self._asked or name.removeprefix("train/") in self._asked

    def _take(self, columns: dict[str, list[tuple[float, float]]], row: Mapping[str, Any]) -> None:
        step = float(row["step"])
        for name, logged in row.items():
            if self._is_asked(name):
                value = _number(logged)
                if value is not None:
                    columns.setdefault(name, []).append((step, value))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _joined(parts: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the steps that all parts have, and the sum of their values there."""
    steps, total = parts[0]
    for other, values in parts[1:]:
        common, i, j = np.intersect1d(steps, other, return_indices=True)
        steps, total = common, total[i] + values[j]
    return steps, total
