"""SCRL: a positive label only where the vote is clear, negative ones only where it is clear against (arXiv:2603.19880)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from entropilot.errors import UserError


@dataclass(frozen=True)
class SCRL:
    """Selective labels of a group of G completions, from the shares p_j of its answers and their token entropies.

        y⁺ = argmax_j p_j   if p₁ ≥ τ_pos and p₁ − p₂ > τ_marg, or if it is the only answer and p₁ ≥ τ_pos
        N⁻ = { j : p_j < τ_low and H_j ≥ H̄, j ≠ y⁺ }
        binary:      r = +a⁺ for y⁺, −a⁻ for N⁻, 0 for the rest
        continuous:  r = a⁺·p_j for y⁺, −a⁻·(τ_low − p_j) for N⁻, 0 for the rest; each less λ(H_j − H̄)

    H_j is the mean over the samples of answer j of their mean token entropy, H̄ that over the whole group. No answer is
    never a label, and gets −1 (the authors' `scrl_utils.py` and reward function). The share of a missing answer counts
    in G.

    Paper and code differ: the paper's thresholds are 0.375, 0.125, 0.125, the code's defaults those below. The code's
    text promises a⁺(p_j − τ_pos) in the continuous mode, and a⁺, a⁻ in the binary one; its lines compute a⁺·p_j, and ±1.
    Here a⁺ and a⁻ count in both modes, which is the same at their defaults. The default mode of the code is binary, its
    script runs the continuous one with 32 votes and trains on 16.

    With G = 8 no share lies below 0.125, so that the paper's τ_low makes no negative; 0.15 makes those of single answers.

    Attributes:
        tau_pos: τ_pos, the least share of a positive label.
        tau_marg: τ_marg, its least distance to the second share.
        tau_low: τ_low, below which an answer may be negative.
        mode: binary or continuous.
        a_plus: a⁺.
        a_minus: a⁻.
        entropy_coef: λ, in the continuous mode.

    Raises:
        UserError: an unknown mode, or a share outside of [0, 1].
    """

    tau_pos: float = 0.5
    tau_marg: float = 0.15
    tau_low: float = 0.15
    mode: Literal["binary", "continuous"] = "binary"
    a_plus: float = 1.0
    a_minus: float = 1.0
    entropy_coef: float = 0.1

    reads_entropy: ClassVar[bool] = True  # of every sample; the trainer hands it over
    missing: ClassVar[float] = -1.0

    def __post_init__(self) -> None:
        if self.mode not in ("binary", "continuous"):
            raise UserError(f"mode = {self.mode!r} is no rule; choose binary or continuous.")
        for name in ("tau_pos", "tau_marg", "tau_low"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"{name} = {value} is no share; it must lie in [0, 1].")

    def labels(
        self, labels: Sequence[int], missing: Sequence[bool], entropies: Sequence[float] | None = None
    ) -> tuple[int | None, list[int]]:
        """Return the cluster that is the positive label, None where the vote is unclear, and the negative clusters.

        Args:
            labels: the cluster of each of the G completions; a missing answer is a cluster of its own.
            missing: whether the completion gave no answer.
            entropies: mean token entropy of each completion, nats; without them there are no negatives.
        """
        shares: dict[int, float] = {}
        for label, absent in zip(labels, missing, strict=True):
            if not absent:
                shares[label] = shares.get(label, 0.0) + 1
        shares = {label: count / len(labels) for label, count in shares.items()}
        ranked = sorted(shares, key=lambda label: -shares[label])  # stable: the first to appear among equals
        positive = None
        if ranked and shares[ranked[0]] >= self.tau_pos:
            alone = len(ranked) == 1
            if alone or shares[ranked[0]] - shares[ranked[1]] > self.tau_marg:
                positive = ranked[0]
        if entropies is None:
            return positive, []
        mean = sum(entropies) / len(entropies)
        negative = [
            label
            for label in ranked
            if label != positive
            and shares[label] < self.tau_low
            and _class_entropy(label, labels, entropies) >= mean
        ]
        return positive, negative

    def rewards(
        self, labels: Sequence[int], missing: Sequence[bool], entropies: Sequence[float] | None = None
    ) -> list[float | None]:
        """Return the reward of every completion; arguments as those of `labels`."""
        positive, negative = self.labels(labels, missing, entropies)
        rewards: list[float | None] = []
        for label, absent in zip(labels, missing, strict=True):
            if absent:
                rewards.append(self.missing)
                continue
            share = list(labels).count(label) / len(labels)
            binary = self.mode == "binary"
            value = 0.0
            if label == positive:
                value = self.a_plus * (1.0 if binary else share)
            elif label in negative:
                value = -self.a_minus * (1.0 if binary else self.tau_low - share)
            if not binary and entropies is not None:
                mean = sum(entropies) / len(entropies)
                value -= self.entropy_coef * (_class_entropy(label, labels, entropies) - mean)
            rewards.append(value)
        return rewards


def _class_entropy(label: int, labels: Sequence[int], entropies: Sequence[float]) -> float:
    own = [entropy for other, entropy in zip(labels, entropies, strict=True) if other == label]
    return sum(own) / len(own)
