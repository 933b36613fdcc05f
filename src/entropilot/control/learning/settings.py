"""What a run of training is made of: the settings, checked before anything is read or written."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from entropilot.errors import UserError
from entropilot.methods.cpl import CPL
from entropilot.methods.piql import PIQL
from entropilot.methods.ppl import PPL
from entropilot.recipes.values import fit_fields

MethodName = Literal[
    "bc", "sft", "cpl", "cpl_kl", "dpo", "ppl", "ppl_sampled", "ppl_dirac", "ppl_fitted", "piql"
]


@dataclass(frozen=True)
class TrainSettings:
    """What a run is made of; the losses' settings as in `methods`.

    alpha and lam none: the method's own (CPL, PPL 0.1 and 0.5; CPL-KL 0.2 and 0.75; DPO 0.1 and 1). ppl_fitted is PPL with
    authors that are fitted to the segments. piql: the settings of `methods.piql.PIQL`, and reward_steps (half of `steps`).
    """

    method: MethodName = "ppl"
    alpha: float | None = None
    lam: float | None = None
    gamma: float = 1.0
    look_ahead: int | None = 16
    window: Literal["sum", "mean_L", "mean_terms"] = "mean_L"
    constant: Literal["keep", "drop", "means"] = "keep"
    hidden: tuple[int, ...] = (256, 256)
    bc_steps: int = 1500
    bc_learning_rate: float = 3e-4
    bc_batch: int = 4096  # states
    steps: int = 1500
    learning_rate: float = 1e-4  # CPL's; at 3e-4 runs went up and then down again
    batch: int = 32  # pairs
    evaluate_every: int = 300
    evaluate_episodes: int = 20
    final_episodes: int = 100
    checkpoint_every: int = 500
    bf16: bool | None = None  # none: where the CPU has it
    seed: int = 0
    piql: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in get_args(MethodName):
            raise UserError(
                f"The method {self.method!r} does not exist; choose one of {', '.join(get_args(MethodName))}."
            )
        for name in ("bc_steps", "steps", "evaluate_every", "final_episodes", "evaluate_episodes"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must be at least 0.")
        for name in ("bc_learning_rate", "learning_rate", "batch", "bc_batch", "checkpoint_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name}={getattr(self, name)} must be a positive number.")
        self.loss()
        self.piql_settings()

    def piql_settings(self) -> tuple[PIQL, int]:
        """Return P-IQL and the steps of its reward model.

        Raises:
            UserError: a key of `piql` that does not exist, or a value that cannot work.
        """
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

    def loss(self) -> PPL | CPL | None:
        """Return the preference method; None where there is none.

        Raises:
            UserError: its settings cannot work.
        """
        own = {"cpl_kl": (0.2, 0.75), "dpo": (0.1, 1.0)}.get(self.method, (0.1, 0.5))
        alpha = own[0] if self.alpha is None else self.alpha
        lam = own[1] if self.lam is None else self.lam
        try:
            if self.method.startswith("ppl"):
                return PPL(alpha, lam, self.gamma, self.look_ahead, self.window, self.constant)
            return CPL(alpha, lam) if self.method in ("cpl", "cpl_kl", "dpo") else None
        except ValueError as error:
            raise UserError(str(error)) from error


def settings_from(values: dict[str, Any]) -> TrainSettings:
    """Return settings from a recipe's section.

    Raises:
        UserError: a key that does not exist, or a value of another kind.
    """
    return TrainSettings(**fit_fields(TrainSettings, values, "train", "control train"))
