"""Say how TRL runs a method: what is checked first, which trainer and probe it gets, what its header says.

`Adapter` is that of the token methods, and of no method. A method with its own loss has a subclass in its own file,
`engines/trl/<method>.py`, which `methods/registry.py` names; nothing else asks which method it is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from entropilot.engines.trl.checks import (
    refuse_early_update_scope,
    refuse_on_policy,
    settle_clip,
    updates_per_rollout,
)
from entropilot.engines.trl.trainer import EntropyGRPOTrainer
from entropilot.errors import UserError
from entropilot.maths.advantages import Estimator
from entropilot.methods.registry import Entry, load
from entropilot.methods.stack import Stack
from entropilot.recording.probe import Probe


class Adapter:
    """Run token methods, advantage methods and controllers, or none, on `EntropyGRPOTrainer`."""

    needs_reward: ClassVar[bool] = True
    stacks: ClassVar[bool] = True  # its methods are a `Stack`
    probe: ClassVar[type[Probe]] = Probe

    def grpo_settings(self, method: Any, written: dict[str, Any], grpo: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of `GRPOConfig` that the method brings; what a recipe writes goes before them.

        Args:
            method: the method.
            written: its settings as the recipe writes them.
            grpo: the recipe's section of that name.

        Raises:
            UserError: both say different things of one setting.
        """
        return {}

    def settle(self, method: Any, config: Any) -> tuple[Any, dict[str, Any]]:
        """Return the method as it will be trained, and the PPO clip: {"low", "high", "source"}.

        Raises:
            UserError: the method can't work with these settings of TRL.
        """
        stack = Stack.of(method)
        refuse_on_policy(stack.token, config)
        refuse_early_update_scope(stack.token, config)
        token, clip = settle_clip(stack.token, config)
        return replace(stack, token=token).methods, clip

    def notes(self, method: Any, config: Any, rows: int, processes: int) -> list[str]:
        """Return what would surprise a reader.

        Args:
            method: as settled.
            config: TRL's.
            rows: completions per rollout, of all processes.
            processes: how many there are.
        """
        notes, method = [], Stack.of(method).token
        fraction = getattr(method, "fraction", None)
        if fraction is not None:
            most = rows * config.max_completion_length
            chosen = fraction * most
            notes.append(
                f"A fraction of {fraction:g} means at most {chosen:,.0f} of {most:,} tokens per rollout, fewer where "
                "completions are shorter; at least one is always chosen. Read chosen/tokens in the record."
            )
            if chosen < 10:
                notes.append(
                    "So few tokens are hardly a choice: raise fraction, or use restrain, which does not depend on size."
                )
        if method is not None and updates_per_rollout(config) <= 1:
            notes.append("One update per rollout: the method acts on the gradient of that update only.")
        return notes

    def trainer(self, method: Any, estimator: Estimator, **settings: Any) -> EntropyGRPOTrainer:
        """Build the trainer; `settings` are those of `EntropyGRPOTrainer`."""
        return EntropyGRPOTrainer(**settings, method=method, advantage_estimator=estimator)

    def take_up(self, trainer: Any, folder: Path, step: int) -> None:
        """Give the trainer of a resumed run what it needs to know of the record up to this step."""

    def header(self, trainer: Any) -> dict[str, Any]:
        """Return what a run's header says beyond the usual."""
        return {}

    def metrics(self) -> dict[str, dict[str, str]]:
        """Return {name: {"unit", "definition"}} of the columns that only this method's rows have."""
        return {}


TOKEN = Adapter()


def adapter_of(entry: Entry | None) -> Adapter:
    """Return how TRL runs a method of the registry; None is plain GRPO.

    Raises:
        UserError: TRL can't run it.
    """
    if entry is None or entry.kind in ("token", "advantage", "controller"):
        return TOKEN
    if "trl" not in entry.engines:
        raise UserError(
            f"method: {entry.name} brings its own loss but no adapter for TRL; give its class the attribute "
            'engines = {"trl": "mypackage.mymodule:ADAPTER"}.'
        )
    return load(entry.engines["trl"])
