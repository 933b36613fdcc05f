"""Supervised losses: behaviour cloning of all segments, or of the preferred ones (SFT)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from entropilot.methods.preference import as_mask, masked_sum


def imitation_loss(
    logp: Float[Tensor, "b t"], mask: Tensor | None = None, weight: Float[Tensor, "b"] | None = None
) -> Float[Tensor, ""]:
    """Return −Σ log π(a|s) over all steps of all segments, divided by the steps counted, nats a step.

    Args:
        weight: of each segment; 1 for the preferred and 0 for the rejected is SFT, a tie is ½ for both.

    Raises:
        ValueError: nothing is left to imitate.
    """
    mask = as_mask(mask, logp)
    total, steps = masked_sum(logp, mask), mask.sum(-1)
    if weight is not None:
        total, steps = total * weight, steps * weight
    count = steps.sum()
    if not count > 0:
        raise ValueError("There is no step to imitate: the mask or the weights are zero everywhere.")
    return -total.sum() / count
