"""Remember what each prompt's group voted for, and how often that changes from visit to visit.

Where a policy is paid for agreeing with itself, majorities that change are the first sign that wrong ones are taking
over (arXiv:2605.19444): no label is needed to see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from entropilot.answers.clusters import Clusters
from entropilot.answers.judge import Judge, verdicts
from entropilot.methods.majority import Majority

RECENT = 5  # visits that a prompt's flip rate is the mean of


@dataclass(frozen=True)
class Vote:
    """Hold what one group voted for.

    Attributes:
        prompt: the hash of the prompt's text (`entropilot.inputs.messages.prompt_key`).
        question: what a judge that reads questions is given.
        winners: an answer of each largest cluster, in order of appearance; none where nobody answered.
    """

    prompt: str
    question: str
    winners: tuple[str, ...]


@dataclass(frozen=True)
class Visit:
    """Hold one visit of a prompt.

    Attributes:
        prompt: as in `Vote`.
        winner: the majority answer; None where nobody answered, which is a value of its own.
        flipped: whether it differs from that of the last visit; None at the first visit.
    """

    prompt: str
    winner: str | None
    flipped: bool | None


def vote(prompt: str, question: str, clusters: Clusters) -> Vote:
    """Return what a group voted for; missing answers have no vote."""
    labels = Majority(ties="all").winners(clusters.labels, clusters.missing)
    winners = [clusters.representatives[label] for label in labels]
    return Vote(prompt, question, tuple(winner for winner in winners if winner is not None))


def margin(clusters: Clusters) -> float:
    """Return p₁ − p₂, the shares of the two largest clusters of answers; a missing answer is in neither.

    1 where all agree, 0 where two clusters are equally large or nobody answered.
    """
    absent = {label for label, missing in zip(clusters.labels, clusters.missing, strict=True) if missing}
    shares = sorted(share for label, share in enumerate(clusters.shares) if label not in absent)
    return shares[-1] - (shares[-2] if len(shares) > 1 else 0.0) if shares else 0.0


class Visits:
    """Remember, per prompt, the majority answer of the last visit and whether the last five changed it."""

    def __init__(self) -> None:
        self._winners: dict[str, str | None] = {}
        self._flips: dict[str, list[bool]] = {}

    def add(self, votes: Sequence[Vote], judge: Judge) -> list[Visit]:
        """Take in votes, in order, and return the visit that each of them is.

        A flip: the judge calls the winner different from the last visit's. Of several largest clusters the old winner's
        stays the winner. The judge is asked about all prompts at once; a prompt that comes twice is asked about twice.
        """
        visits: list[Visit | None] = [None] * len(votes)
        waiting = list(range(len(votes)))
        while waiting:
            first: dict[str, int] = {}
            for place in waiting:
                first.setdefault(votes[place].prompt, place)
            now = list(first.values())
            for place, visit in zip(now, self._compared([votes[place] for place in now], judge), strict=True):
                visits[place] = visit
                self.keep([visit])
            waiting = [place for place in waiting if visits[place] is None]
        return [visit for visit in visits if visit is not None]

    def _compared(self, votes: Sequence[Vote], judge: Judge) -> list[Visit]:
        """Return the visits of votes of different prompts."""
        asked = [
            (place, old, winner)
            for place, item in enumerate(votes)
            if (old := self._winners.get(item.prompt)) is not None
            for winner in item.winners
        ]
        pairs, questions = (
            [(old, winner) for _, old, winner in asked],
            [votes[p].question for p, _, _ in asked],
        )
        same = verdicts(judge, pairs, questions)
        kept: dict[int, str] = {}
        for (place, _, winner), equal in zip(asked, same, strict=True):
            if equal:
                kept.setdefault(place, winner)
        visits = []
        for place, item in enumerate(votes):
            winner = kept.get(place, item.winners[0] if item.winners else None)
            flipped = None
            if item.prompt in self._winners:
                flipped = place not in kept and (winner, self._winners[item.prompt]) != (None, None)
            visits.append(Visit(item.prompt, winner, flipped))
        return visits

    def keep(self, visits: Sequence[Visit]) -> None:
        """Take in visits that another process compared."""
        for visit in visits:
            self._winners[visit.prompt] = visit.winner
            if visit.flipped is not None:
                self._flips[visit.prompt] = [*self._flips.get(visit.prompt, []), visit.flipped][-RECENT:]

    def rate(self, prompt: str) -> float | None:
        """Return how often a prompt's majority changed over its last five visits; None before the second one."""
        flips = self._flips.get(prompt)
        return sum(flips) / len(flips) if flips else None

    def state(self) -> dict[str, Any]:
        """Return all that is remembered as plain data, to be saved with a checkpoint."""
        return {
            "winners": dict(self._winners),
            "flips": {key: list(flips) for key, flips in self._flips.items()},
        }

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._winners = dict(state["winners"])
        self._flips = {key: list(flips) for key, flips in state["flips"].items()}
