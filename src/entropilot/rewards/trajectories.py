"""Reward labelled prompts by their label, and unlabelled ones by the majority where they learn as the labelled do."""

from __future__ import annotations

import warnings
from typing import Any

from entropilot.answers.clusters import Clusters
from entropilot.answers.grading import grade
from entropilot.errors import UserError
from entropilot.methods.majority import Majority
from entropilot.methods.trapo import TraPO
from entropilot.ranks import gather_objects
from entropilot.rewards.groups import GroupReward


class TrajectoryReward(GroupReward):
    """TraPO as a TRL reward: rows with an answer are labelled, rows whose answer is None are not.

    A labelled group gets 1 for a right answer, else 0. An unlabelled one gets that of its majority where `TraPO` uses the
    prompt, and None elsewhere, which takes it out of training. All ranks remember all trajectories.

    Args:
        rule: `TraPO(...)`.
        settings: as `GroupReward`.

    Attributes:
        trajectories: by prompt, the pass rate of every visit.
        labelled: the prompts with an answer.
        pool: the unlabelled prompts that were used.
    """

    def __init__(self, rule: TraPO | None = None, *, name: str = "trapo", **settings: Any) -> None:
        self.choice = rule or TraPO()
        super().__init__(Majority(), name=name, **settings)
        self.trajectories: dict[str, list[float]] = {}
        self.labelled: set[str] = set()
        self.pool: set[str] = set()

    def state(self) -> dict[str, Any]:
        """Return what must be saved with a checkpoint, as plain data."""
        return super().state() | {
            "trajectories": {key: list(rates) for key, rates in self.trajectories.items()},
            "labelled": sorted(self.labelled),
            "pool": sorted(self.pool),
        }

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        super().take_up(state)
        self.trajectories = {key: list(rates) for key, rates in state["trajectories"].items()}
        self.labelled = set(state["labelled"])
        self.pool = set(state["pool"])

    def _rate(
        self, groups: list[Any], clusters: list[Clusters], owned: list[int], training: bool
    ) -> list[list[float | None]]:
        golds, questions = ([group[0][i] for group in groups] for i in (2, 0))
        graded = grade([found.answers for found in clusters], golds, self.judge, questions)
        scores = [
            self._majority(found) if right is None else [float(value) for value in right]
            for found, right in zip(clusters, graded, strict=True)
        ]
        if not training:
            return [list(values) for values in scores]
        visits = [
            (group[0][3], right is not None, sum(values) / len(values))
            for group, right, values in zip(groups, graded, scores, strict=True)
        ]
        used = self._visited([visit for part in gather_objects([visits[i] for i in owned]) for visit in part])
        return [
            list(values) if right is not None or group[0][3] in used else [None] * len(values)
            for group, right, values in zip(groups, graded, scores, strict=True)
        ]

    @staticmethod
    def _majority(found: Clusters) -> list[float]:
        """Return 1.0 for the members of the largest cluster; nobody's where two are equally large."""
        winners = Majority(ties="all").winners(found.labels, found.missing)
        return [float(winners == [label]) for label in found.labels]

    def _visited(self, visits: list[tuple[str, bool, float]]) -> set[str]:
        """Take in the visits of all ranks; return the unlabelled prompts that are used."""
        warm: list[str] = []
        for prompt, labelled, rate in visits:
            seen = self.trajectories.setdefault(prompt, [])
            if labelled:
                self.labelled.add(prompt)
            elif len(seen) >= self.choice.warm_up and prompt not in warm:
                warm.append(prompt)
            seen.append(rate)
        if warm and not self.labelled and not self.choice.takes_all:
            raise UserError(
                f"{self.__name__} has met no labelled prompt before the first unlabelled one was due (warm_up = "
                f"{self.choice.warm_up} visits); give some rows an answer, or choose a reward that needs no label."
            )
        most = max(map(len, self.trajectories.values()), default=0)
        if most > self.choice.warm_up and len(self.labelled) == len(self.trajectories) and not self._said:
            self._said = True
            warnings.warn(
                f"{self.__name__} has met no prompt without an answer: it trains on the labels alone. Leave the "
                "answer of some rows empty (None), or take the verifiable reward.",
                stacklevel=2,
            )
        known = sorted(self.labelled) + sorted(self.pool)
        similar = self.choice.similarities(
            *({prompt: self.trajectories[prompt] for prompt in prompts} for prompts in (warm, known))
        )
        used = {prompt for prompt, use in zip(warm, self.choice.used(similar), strict=True) if use}
        if self.choice.join:
            self.pool |= used
        self.measured = {"semantic/unlabelled": float(len(warm)), "semantic/used": float(len(used))}
        return used
