"""Check the settings of a run before anything is read or written."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from entropilot.errors import UserError
from entropilot.methods.piql import PIQL


@dataclass(frozen=True)
class TrainSettings:
    """Hold the settings of one run; those of the losses are as in `entropilot.methods`.

    Attributes:
        method: what learns: `ppl`, `cpl`, `sft` and others; `ppl_fitted` is PPL that fits the authors to the segments.
        alpha: α of the loss; null: the method's own (CPL, PPL 0.1; CPL-KL 0.2; DPO 0.1).
        lam: λ; below 1 the rejected segment is pushed down less; null: the method's own (CPL, PPL 0.5; CPL-KL 0.75; DPO 1).
        gamma: γ, discount of the steps ahead.
        look_ahead: L, the steps ahead over which PPL sums the author's KL; null looks to the end of the segment.
        window: their sum, divided by L, or by the steps that are left.
        constant: keep the whole KL, drop the author's own entropy from it, or take the KL of the means alone.
        hidden: widths of the policy's hidden layers.
        bc_steps: updates of cloning before the preferences.
        bc_learning_rate: learning rate of the cloning.
        bc_batch: states per update of the cloning.
        steps: updates on the pairs.
        learning_rate: learning rate on the pairs.
        batch: pairs per update.
        evaluate_every: updates between two measurements of success.
        evaluate_episodes: episodes of each.
        final_episodes: episodes of the last.
        checkpoint_every: updates between two checkpoints.
        bf16: train in bfloat16.
        seed: of the initialisation and the batches.
        piql: settings of P-IQL, and `reward_steps`, the updates of its reward model (half of `steps`).
    """

    method: str = "ppl"
    alpha: float | None = None
    lam: float | None = None
    gamma: float = 1.0
    look_ahead: int | None = 16
    window: Literal["sum", "mean_L", "mean_terms"] = "mean_L"
    constant: Literal["keep", "drop", "means"] = "keep"
    hidden: tuple[int, ...] = (256, 256)
    bc_steps: int = 1500
    bc_learning_rate: float = 3e-4
    bc_batch: int = 4096
    steps: int = 1500
    learning_rate: float = 1e-4  # CPL's; at 3e-4 runs went up and then down again
    batch: int = 32
    evaluate_every: int = 300
    evaluate_episodes: int = 20
    final_episodes: int = 100
    checkpoint_every: int = 500
    bf16: bool | None = None  # null: where the CPU has it
    seed: int = 0
    piql: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("bc_steps", "steps", "evaluate_every", "final_episodes", "evaluate_episodes"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must be at least 0.")
        for name in ("bc_learning_rate", "learning_rate", "batch", "bc_batch", "checkpoint_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name}={getattr(self, name)} must be a positive number.")
        self._piql()

    def piql_method(self) -> PIQL:
        """Return P-IQL with these settings."""
        return self._piql()[0]

    def reward_steps(self) -> int:
        """Return how many updates P-IQL's reward model takes."""
        return self._piql()[1]

    def _piql(self) -> tuple[PIQL, int]:
        known = [*(f.name for f in fields(PIQL)), "reward_steps"]
        numbers: dict[str, float] = {}
        for key, value in self.piql.items():
            if key not in known:
                raise UserError(f"train.piql.{key} does not exist; the keys here are: {', '.join(known)}.")
            try:
                numbers[key] = float(value)
                if key != "reward_steps":
                    PIQL(**{key: numbers[key]})
            except TypeError as error:
                raise UserError(f"train.piql.{key} = {value!r} does not fit; give a number.") from error
            except ValueError as error:
                reason = str(error).removeprefix("P-IQL: ").removesuffix(".")
                raise UserError(
                    f"train.piql.{key} = {value!r} does not fit ({reason}); change it."
                ) from error
        steps = numbers.pop("reward_steps", self.steps // 2)
        if not (steps >= 0 and steps % 1 == 0):
            raise UserError(f"train.piql.reward_steps = {steps:g} must be a whole number, at least 0.")
        return PIQL(**numbers), int(steps)
