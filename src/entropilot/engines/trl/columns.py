"""Name the columns that the trainer adds to TRL's rollout, and read the masks from them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

# TRL shuffles and splits extra columns together with its own.
SELECTED, ELIGIBLE = "entropilot_selected", "entropilot_eligible"
# What a token method may read of a row beside its log-probs: `TokenBatch.span`, `.rewards`, `.group`.
SPAN, REWARDS, GROUP = "entropilot_span", "entropilot_rewards", "entropilot_group"


def loss_mask(inputs: dict[str, Any]) -> Tensor:
    """Return where TRL's loss counts a token: completion × tool mask, (b, t)."""
    mask = inputs["completion_mask"]
    return (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()


def eligible_mask(inputs: dict[str, Any]) -> Tensor:
    """Return where a token may be chosen: counted by the loss, in a group that drives the policy, (b, t)."""
    return loss_mask(inputs) & inputs[ELIGIBLE].unsqueeze(1)


def of_rows(inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Return the fields of `TokenBatch` that the trainer filled in for these rows."""
    names = {"span": SPAN, "rewards": REWARDS, "group": GROUP}
    return {name: inputs[column] for name, column in names.items() if column in inputs}
