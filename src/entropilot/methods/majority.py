"""TTRL: agreement with the majority answer of the group is the reward (arXiv:2504.16084)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from entropilot.errors import UserError


@dataclass(frozen=True)
class Majority:
    """Majority vote: the largest cluster of the group's answers stands in for the label.

        r_i = 1[c(o_i) = argmax_c |c|]

    Attributes:
        ties: which of several largest clusters is the label: "first", the one that appears first (TTRL's Counter), or
            "all" (the reward type "voting" in EMPO's code).

    Raises:
        UserError: an unknown rule for ties.
    """

    ties: Literal["first", "all"] = "first"

    def __post_init__(self) -> None:
        if self.ties not in ("first", "all"):
            raise UserError(f"ties = {self.ties!r} is no rule; choose first or all.")

    def winners(self, labels: Sequence[int], missing: Sequence[bool]) -> list[int]:
        """Return the cluster or clusters that stand in for the label; a missing answer never does."""
        sizes = Counter(label for label, absent in zip(labels, missing, strict=True) if not absent)
        if not sizes:
            return []
        most = max(sizes.values())
        largest = [label for label, size in sizes.items() if size == most]
        return largest if self.ties == "all" else largest[:1]

    def rewards(self, labels: Sequence[int], missing: Sequence[bool]) -> list[float | None]:
        """Return 1.0 for the members of the majority and 0.0 for the others, of a group of G completions.

        Args:
            labels: the cluster of each completion; a missing answer is a cluster of its own.
            missing: whether the completion gave no answer.
        """
        winners = set(self.winners(labels, missing))
        return [float(label in winners) for label in labels]
