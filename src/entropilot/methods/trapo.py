"""TraPO: unlabelled prompts are trained on where they learn as the labelled ones do (arXiv:2512.13106)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from entropilot.errors import UserError

Trajectory = Sequence[float]


@dataclass(frozen=True)
class TraPO:
    """Choose unlabelled prompts by their trajectory of pass rates over the visits.

        T_q = (pass rate of q at its visits);  labelled: the true one, unlabelled: the share of the majority
        s_q = mean over the others of the reference of cos(standardised T_q, standardised T_ref)
        q is used iff s_q is in the top share of the rollout's unlabelled prompts, or s_q ≥ threshold

    The reference is the labelled prompts and, with `join`, the unlabelled ones that were used before. For the first
    `warm_up` visits only labels are trained on. Trajectories are cut to the length of the shortest, from the front.

    From the authors' `semi_ray_trainer.py`. Paper and code differ: the code standardises each trajectory (mean 0,
    standard deviation 1), the paper does not say so (`standardise: false`); raw cosines of positive rates nearly all
    pass. A group with two largest clusters has no majority in the code, and none here: pass rate 0. In the code, an
    unlabelled prompt stays in the reference with the trajectory it had when it was used, and one that is used again
    drops all others; here they stay, each with its trajectory of today. (Kept as it was, one that is not used again
    would fix the length of all.)

    Attributes:
        warm_up: visits of labels alone.
        share: the top share that is used in any case, of each rollout, at least one prompt.
        threshold: the similarity from which on a prompt is used.
        join: whether used prompts join the reference.
        standardise: whether trajectories are compared with mean 0 and standard deviation 1.

    Raises:
        UserError: a value out of range.
    """

    warm_up: int = 8  # the authors' script; epochs there
    share: float = 0.1  # top_k_ratio
    threshold: float = 0.4
    join: bool = True  # update_db
    standardise: bool = True  # the code; the paper's text has raw rates

    def __post_init__(self) -> None:
        if self.warm_up < 0:
            raise UserError(f"warm_up = {self.warm_up} is no number of visits; give 0 or more.")
        if not 0 <= self.share <= 1:
            raise UserError(f"share = {self.share} is no share of the prompts; it must lie in [0, 1].")
        if not -1 <= self.threshold <= 1:
            raise UserError(f"threshold = {self.threshold} is no cosine; it must lie in [-1, 1].")

    @property
    def takes_all(self) -> bool:
        """Whether every unlabelled prompt is used, whatever it is compared with: no cosine lies below −1."""
        return self.threshold == -1

    def similarities(
        self, queries: Mapping[str, Trajectory], reference: Mapping[str, Trajectory]
    ) -> list[float]:
        """Return s_q of every query, both by prompt; 0 where the reference holds no other prompt."""
        length = min(map(len, [*queries.values(), *reference.values()]), default=0)
        form = standardised if self.standardise else list
        known = {prompt: form(trajectory[:length]) for prompt, trajectory in reference.items()}
        found = []
        for prompt, trajectory in queries.items():
            own = form(trajectory[:length])
            others = [cosine(own, other) for name, other in known.items() if name != prompt]
            found.append(math.fsum(others) / len(others) if others else 0.0)
        return found

    def used(self, similarities: Sequence[float]) -> list[bool]:
        """Return which of a rollout's unlabelled prompts are trained on."""
        count = max(1, int(len(similarities) * self.share)) if similarities and self.share else 0
        ranked = sorted(range(len(similarities)), key=lambda place: -similarities[place])  # stable
        top = set(ranked[:count])
        return [
            self.takes_all or place in top or value >= self.threshold
            for place, value in enumerate(similarities)
        ]


def standardised(trajectory: Trajectory) -> list[float]:
    """Return (T − mean) / sd with the sample's standard deviation; a constant trajectory, or one visit, is all 0."""
    count = len(trajectory)
    if count < 2:
        return [0.0] * count
    mean = math.fsum(trajectory) / count
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in trajectory) / (count - 1))
    if spread < 1e-12:
        return [0.0] * count
    return [(x - mean) / (spread + 1e-8) for x in trajectory]  # 1e-8: the code


def cosine(one: Trajectory, other: Trajectory) -> float:
    """Return the cosine of two trajectories; 0 where one of them is all 0."""
    norms = math.sqrt(math.fsum(x * x for x in one) * math.fsum(x * x for x in other))
    return math.fsum(x * y for x, y in zip(one, other, strict=True)) / norms if norms > 0 else 0.0
