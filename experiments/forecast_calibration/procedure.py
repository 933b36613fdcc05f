"""Make forecasts of a source's runs by choices and constants that were made without that source.

A source is held out, and everything is chosen on the others: what to predict R by, how far to go from "no change"
towards it, where to speak at all, whether to speak at all, and the constants of the intervals. Within them each source
is held out once more: the errors behind the constants are those of choices that were made without their own source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entropilot.law.calibration import (
    MOST_NATS,
    SMALL,
    Constants,
    entropy_interval,
    error_scale,
    performance_interval,
)
from entropilot.law.rivals import RIVALS
from entropilot.records import REWARD
from experiments.forecast_calibration.cases import NONE, SHARES, Case

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Sources = frozenset[str]
Table = dict[float, Constants]
Chooser = Callable[[Sources], "Choice"]

FLOORS = (0.03, 0.1, 0.3, 1.0, 3.0)
TAILS = (0.025, 0.975)
PULLS = (0.25, 0.5, 1.0)  # how far from "no change" towards a prediction
OWN_END = "best on the prefix's own end"
SPOKEN = (0.15, 0.3)  # the shares at which a procedure must be better than "no change"
LEAST_SPOKEN, LEAST_SOURCES = 0.25, 4  # of the runs, and sources, on which it must speak


class Choice(NamedTuple):
    """Hold what R is predicted by, how far towards it, and where: always, or by a name of `RULES`."""

    name: str = NONE
    pull: float = 0.0
    rule: str = "everywhere"


STILL = Choice()
RULES: dict[str, Callable[[Case], bool]] = {
    "everywhere": lambda case: True,
    "where the law speaks": lambda case: "law" in case.predictions,
    "where a shape did best on the prefix's own end": lambda case: case.chosen != NONE,
}
OPTIONS = [
    STILL,
    *(
        Choice(name, pull, rule)
        for name in (*list(RIVALS)[1:], "law", OWN_END)
        for pull in PULLS
        for rule in RULES
    ),
]


def be_still(sources: Sources) -> Choice:
    """Choose "no change", whatever the sources say."""
    return STILL


def speaks(case: Case, choice: Choice) -> bool:
    """Whether a choice predicts something else than "no change" for a case, from its prefix alone."""
    name = case.chosen if choice.name == OWN_END else choice.name
    return name != NONE and name in case.predictions and RULES[choice.rule](case)


def predict(case: Case, choice: Choice) -> float:
    """Return the prediction of R by a choice; "no change" where it does not speak."""
    still = case.predictions[NONE]
    if not speaks(case, choice):
        return still
    name = case.chosen if choice.name == OWN_END else choice.name
    return still + choice.pull * (case.predictions[name] - still)


def quantile(values: Array, weight: Array, level: float) -> float:
    """Return the smallest value with at least `level` of the weight at or below it."""
    order = np.argsort(values)
    share = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(np.searchsorted(share, level - 1e-12), values.size - 1)])


def tails(values: Array, weight: Array) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles."""
    low, high = (quantile(values, weight, tail) for tail in TAILS)
    return low, high


def interval_score(target: float, low: float, high: float) -> float:
    """Score an interval: its width, and 40 times what the target lies outside of it (Gneiting and Raftery, 2007)."""
    return high - low + 40 * (max(low - target, 0.0) + max(target - high, 0.0))


@dataclass(frozen=True)
class Row:
    """A case that was predicted by constants and choices of the other sources."""

    case: Case
    choice: Choice
    predicted: float
    low: float
    high: float
    entropy_low: float
    entropy_high: float

    @property
    def speaks(self) -> bool:
        """Whether something else than "no change" was predicted."""
        return speaks(self.case, self.choice)

    @property
    def inside(self) -> bool:
        """Whether the interval held the target."""
        return self.low <= self.case.target <= self.high

    def reward_from(self, share: float) -> bool:
        """Whether this is the training reward from one share of a run."""
        return self.case.share == share and self.case.metric == REWARD

    @property
    def score(self) -> float:
        """The interval score, in units of R."""
        return interval_score(self.case.target, self.low, self.high)

    @property
    def gain(self) -> float:
        """The absolute error less that of "no change", in units of the run."""
        error, still = (
            abs(value - self.case.target) for value in (self.predicted, predict(self.case, STILL))
        )
        return (error - still) / self.case.allowed.unit


class Study:
    """Hold the cases, and make every choice for a set of sources once.

    Args:
        cases: of all runs, shares and metrics. Choices and constants are made on the training reward alone.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = list(cases)
        self.sources: Sources = frozenset(case.source for case in cases)
        self._rewards = [case for case in cases if case.metric == REWARD]
        self._source = np.array([case.source for case in self._rewards])
        self._share = np.array([case.share for case in self._rewards])
        target = np.array([case.target for case in self._rewards])
        unit = np.array([case.allowed.unit for case in self._rewards])
        predicted = {option: [predict(case, option) for case in self._rewards] for option in OPTIONS}
        self._errors = {option: target - np.array(values) for option, values in predicted.items()}
        self._gains = {
            option: (np.abs(errors) - np.abs(self._errors[STILL])) / unit
            for option, errors in self._errors.items()
        }
        self._speaks = {
            option: np.array([speaks(case, option) for case in self._rewards]) for option in OPTIONS
        }
        self._scales = {
            floor: np.array([error_scale(case.values, case.allowed, floor) for case in self._rewards])
            for floor in FLOORS
        }
        self._ratios = np.array(
            [np.log((case.entropy_target + SMALL) / (case.entropies[NONE] + SMALL)) for case in self._rewards]
        )
        self.choose = cache(self._choose)
        self.choose_or_be_still = cache(self._choose_or_be_still)
        self.fit = cache(self._fit)

    def _of(self, sources: Sources) -> tuple[Mask, Array]:
        """Return which rewards are of some sources, and weights by which each of these counts equally."""
        mask = np.isin(self._source, list(sources))
        names, counts = np.unique(self._source[mask], return_counts=True)
        count = dict(zip(names, counts, strict=True))
        return mask, np.array([1 / count.get(source, 1) for source in self._source])

    def _choose(self, sources: Sources) -> Choice:
        """Choose the least median of the paired differences of errors, of options that speak often enough."""
        mask, weight = self._of(sources)
        best, least = STILL, 0.0
        for option in OPTIONS:
            gains, spoken = self._gains[option], self._speaks[option] & mask
            enough = spoken.sum() >= LEAST_SPOKEN * mask.sum()
            if not enough or np.unique(self._source[spoken]).size < LEAST_SOURCES:
                continue
            median = quantile(gains[spoken], weight[spoken], 0.5)
            if median < least:
                best, least = option, median
        return best

    def _choose_or_be_still(self, sources: Sources) -> Choice:
        """Take the choice only where, with each source held out, it meets what is required of a forecast that speaks."""
        rows, still = self.held_out(sources, self.choose), self.held_out(sources, be_still)
        met = all(required(rows, still, share).met for share in SPOKEN)
        return self.choose(sources) if met else STILL

    def table(self, sources: Sources, choices: dict[str, Choice], floor: float) -> Table:
        """Make the constants of all shares from the errors of some sources, each under its own choice."""
        mask, weight = self._of(sources)
        errors = np.zeros(mask.size)
        for source in sources:
            own = self._source == source
            errors[own] = self._errors[choices[source]][own]
        errors /= self._scales[floor]
        made = {}
        for share in SHARES:
            kept = mask & (self._share == share)
            ends = (tails(values[kept], weight[kept]) for values in (errors, self._ratios))
            made[share] = Constants(share, 0.0, floor, *ends)
        return made

    def best_floor(self, sources: Sources, choices: dict[str, Choice]) -> float:
        """Choose the floor of the least mean interval score, in units of each run, with each source held out."""

        def loss(floor: float) -> float:
            means = []
            for source in sources:
                table = self.table(sources - {source}, choices, floor)
                kept = (case for case in self._rewards if case.source == source)
                means.append(np.mean([_score(case, choices[source], table) for case in kept]))
            return float(np.mean(means))

        return min(FLOORS, key=loss)

    def _fit(self, sources: Sources, chooser: Chooser) -> tuple[Choice, Table]:
        """Return the choice that some sources give, and constants for the whole procedure that makes such choices."""
        choices = {source: chooser(sources - {source}) for source in sources}
        return chooser(sources), self.table(sources, choices, self.best_floor(sources, choices))

    def held_out(self, sources: Sources, chooser: Chooser) -> list[Row]:
        """Predict the cases of each of some sources by what the others of them give."""
        rows = []
        for source in sorted(sources):
            choice, table = self.fit(sources - {source}, chooser)
            for case in (case for case in self.cases if case.source == source):
                predicted = predict(case, choice)
                low, high = performance_interval(predicted, case.values, case.allowed, table[case.share])
                ends = entropy_interval(min(case.entropies[NONE], MOST_NATS), table[case.share])
                rows.append(Row(case, choice, predicted, low, high, *ends))
        return rows


def _score(case: Case, choice: Choice, table: Table) -> float:
    ends = performance_interval(predict(case, choice), case.values, case.allowed, table[case.share])
    return interval_score(case.target, *ends) / case.allowed.unit


class Required(NamedTuple):
    """Hold what a forecast that speaks must show at one share, for the training reward."""

    runs: int
    spoken: int
    sources: int
    gain: float
    score: float
    score_of_no_change: float

    @property
    def met(self) -> bool:
        """Whether it speaks often enough, with a lower paired median error and no higher mean interval score."""
        enough = self.spoken >= LEAST_SPOKEN * self.runs and self.sources >= LEAST_SOURCES
        return enough and self.gain < 0 and self.score <= self.score_of_no_change


def required(rows: Sequence[Row], still: Sequence[Row], share: float) -> Required:
    """Hold a procedure against "no change" calibrated in the same way; scores are in units of each run."""
    kept, others = ([row for row in part if row.reward_from(share)] for part in (rows, still))
    spoken = [row for row in kept if row.speaks]
    return Required(
        len(kept),
        len(spoken),
        len({row.case.source for row in spoken}),
        float(np.median([row.gain for row in spoken])) if spoken else 0.0,
        *(float(np.mean([row.score / row.case.allowed.unit for row in part])) for part in (kept, others)),
    )
