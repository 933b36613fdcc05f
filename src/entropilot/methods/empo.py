"""EMPO: the share of a completion's meaning among its group is its reward (arXiv:2504.05812)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from entropilot.errors import UserError

Threshold = Literal["none", "below_log_g", "max_share_0.2", "max_share_0.25", "window"]
Missing = Literal["singleton", "zero", "penalty"]

# What a group is left out for, each from its source. A group that is left out has no advantage.
THRESHOLDS: dict[str, str] = {
    "none": "the final code (verl-empo): the call of entropy_thresholding is commented out",
    "below_log_g": "the TRL code for mathematics: H < ln G, that is, two completions at least agree",
    "max_share_0.2": "the TRL code for free-form answers: the largest share is 0.2 or more, or there is one cluster",
    "max_share_0.25": "entropy_thresholding of the final code, were it called: the largest share is 0.25 or more",
    "window": "the paper's text: δ_low < H(q) < δ_high; it does not print the two values",
}
# What a completion without an answer gets; H counts each of them as a meaning of its own in any case.
MISSING: dict[str, str] = {
    "singleton": "1/G: the final code",
    "zero": "0: the TRL code for mathematics",
    "penalty": "-0.5: the TRL code for free-form answers",
}
PENALTY = -0.5


@dataclass(frozen=True)
class EMPO:
    """EMPO's reward of a group of G completions, from the clusters of their answers.

        r_i = p(c(o_i) | q) = |c(o_i)| / G        H(q) = −Σ_j p(c_j | q) ln p(c_j | q)

    The mean reward of a group is Σ_j p_j², so the objective leads towards the most frequent meaning. No label is
    used. `EMPO()` is the authors' final code; their objective around it is GSPO with the clip 3e-4/4e-4, the
    plain mean over sequences and no KL (recipes/empo.yaml).

    Attributes:
        threshold: which groups are left out; `THRESHOLDS` names the source of each rule.
        low: δ_low of "window", nats.
        high: δ_high of "window", nats.
        missing: what a completion without an answer gets; `MISSING` names the sources.

    Raises:
        UserError: an unknown rule, or bounds without "window".
    """

    threshold: Threshold = "none"
    low: float | None = None
    high: float | None = None
    missing: Missing = "singleton"

    def __post_init__(self) -> None:
        if self.threshold not in THRESHOLDS:
            raise UserError(
                f"threshold = {self.threshold!r} is no rule; choose one of {', '.join(THRESHOLDS)}."
            )
        if self.missing not in MISSING:
            raise UserError(f"missing = {self.missing!r} is no rule; choose one of {', '.join(MISSING)}.")
        given = self.low is not None or self.high is not None
        if self.threshold == "window":
            low, high = self.low or 0.0, math.inf if self.high is None else self.high
            if not given or not low < high:
                raise UserError(
                    "threshold = 'window' keeps groups with low < H < high, in nats; give one of them or both, low below "
                    "high."
                )
        elif given:
            raise UserError(
                f"low and high belong to threshold = 'window' and have no effect with {self.threshold!r}; remove them."
            )

    def keeps(self, labels: Sequence[int]) -> bool:
        """Return whether a group takes part; labels are those of its G completions, a missing answer has its own."""
        sizes = Counter(labels).values()
        if self.threshold == "none" or not labels:
            return True
        if self.threshold == "below_log_g":
            # Counted, not computed: the float sum of an all-distinct group can come out a hair below ln G.
            return len(sizes) < len(labels)
        if self.threshold == "window":
            low, high = (
                -math.inf if self.low is None else self.low,
                math.inf if self.high is None else self.high,
            )
            return low < semantic_entropy(labels) < high
        least = 0.2 if self.threshold == "max_share_0.2" else 0.25
        alone = self.threshold == "max_share_0.2" and len(sizes) == 1
        return alone or max(sizes) >= least * len(labels)

    def rewards(self, labels: Sequence[int], missing: Sequence[bool]) -> list[float | None]:
        """Return r_i of every completion; None for all of them where the group is left out.

        Args:
            labels: the cluster of each of the G completions; a missing answer is a cluster of its own.
            missing: whether the completion gave no answer.
        """
        if not self.keeps(labels):
            return [None] * len(labels)
        sizes = Counter(labels)
        nothing = {"singleton": 1 / max(1, len(labels)), "zero": 0.0, "penalty": PENALTY}[self.missing]
        return [
            nothing if absent else sizes[label] / len(labels)
            for label, absent in zip(labels, missing, strict=True)
        ]


def semantic_entropy(labels: Sequence[int]) -> float:
    """Return H = −Σ_j p_j ln p_j of the clusters of a group, nats (EMPO's H(q))."""
    shares = [size / len(labels) for size in Counter(labels).values()]
    return max(0.0, -math.fsum(p * math.log(p) for p in shares))
