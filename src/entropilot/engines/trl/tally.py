"""Add up an optimiser update on the device, and bring it to the host in one transfer when the update ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from entropilot.maths.covariance import token_covariance
from entropilot.maths.tokens import TokenBatch, masked_mean


class NonFiniteLossError(RuntimeError):
    """Raised where the loss is NaN or infinite; the message names the step and what was not finite."""


class Tally:
    """Keep the losses, the passes and the choices of one update; `close` reads them all at once.

    A number that is read from a GPU waits for it. TRL reads a few per pass; this adds one read per update.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._passes: list[tuple[TokenBatch, Tensor | None]] = []
        self._choices: list[Tensor] = []

    def add_choice(self, candidates: TokenBatch, selected: Tensor, *, covariance: bool) -> None:
        """Note a choice: how many tokens of how many, how many of them have no finite log-prob, mean covariance."""
        mean = candidates.logp.new_zeros(())
        if covariance:
            values = token_covariance(candidates.logp, candidates.advantages, candidates.mask)
            mean = masked_mean(values, candidates.finite)
        left_out = candidates.mask.sum() - candidates.finite.sum()
        counts = (selected.sum(), candidates.mask.sum(), left_out)
        self._choices.append(torch.stack([number.to(_wide(mean)) for number in (*counts, mean)]))

    def add_pass(self, loss: Tensor, batch: TokenBatch, extra: Tensor | None) -> None:
        """Note a training pass; nothing that is kept carries a graph."""
        self._losses.append(loss.detach())
        self._passes.append((batch.detach(), None if extra is None else extra.detach()))

    def close(self, step: int, accelerator: Any, leave: bool = False) -> dict[str, list[float]]:
        """Return the update's metrics, one value per choice or one per update, and begin anew.

        Penalty and log-ratio are over all ranks. `left_out` counts chosen-from tokens without a finite log-prob, and
        `leave` the ranks that asked with the argument of that name to end training after this update.

        Raises:
            NonFiniteLossError: on every rank, where the loss of any was not finite.
        """
        losses, passes, choices = self._losses, self._passes, self._choices
        self._losses, self._passes, self._choices = [], [], []
        wide = _wide(losses[0])
        sums = torch.zeros(5, dtype=wide, device=losses[0].device)
        sums[0] = (~torch.stack(losses).isfinite()).sum()
        sums[4] = float(leave)
        for batch, extra in passes:
            zero = batch.logp.new_zeros(())
            drift = torch.where(batch.mask, (batch.logp - batch.old_logp).abs(), zero).sum()
            penalty = zero if extra is None else torch.where(batch.mask, extra, zero).sum()
            sums[1:4] += torch.stack([number.to(wide) for number in (batch.mask.sum(), drift, penalty)])
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums, reduction="sum")
        values = torch.cat([sums, *choices]).tolist()
        if values[0]:
            raise NonFiniteLossError(_why_not_finite(step, passes))
        tokens = max(1.0, values[1])
        chosen, eligible, left_out, covariance = (values[5 + place :: 4] for place in range(4))
        metrics = {
            "chosen/tokens": chosen,
            "chosen/eligible": eligible,
            "covariance/mean": covariance,
            "left_out": left_out,
            "leave": [values[4]],
            "log_ratio/mean": [values[2] / tokens],
        }
        if any(extra is not None for _, extra in passes):
            metrics["penalty"] = [values[3] / tokens]
        return metrics


def _wide(x: Tensor) -> torch.dtype:
    """Return the number kind that counts exactly on the device of `x`; Apple's has no float64."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _why_not_finite(step: int, passes: list[tuple[TokenBatch, Tensor | None]]) -> str:
    suspects: list[str] = []
    for batch, extra in passes:
        parts = {
            "the log-probs of the policy": batch.logp,
            "the log-probs of the rollout": batch.old_logp,
            "the advantages": batch.advantages,
            "the probability ratio (it overflowed)": (batch.logp - batch.old_logp).exp(),
            "the penalty of the method": extra,
        }
        suspects += [
            name for name, x in parts.items() if x is not None and not x[batch.mask].isfinite().all()
        ]
    return (
        f"The loss of step {step} is not finite; what is not finite: "
        f"{' and '.join(dict.fromkeys(suspects)) or 'a term of the loss that is not per token, or of another rank'}. "
        "The run stopped there; its records are intact. Lower learning_rate or max_grad_norm, or restart from an earlier "
        "checkpoint."
    )
