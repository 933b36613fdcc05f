"""Define what a token method is (select and steer), and check the settings that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from entropilot.maths.tokens import TokenBatch

Scope = Literal["rollout", "update", "microbatch"]
LARGEST_FRACTION = 0.05


class PaperValue(float):
    """Mark a field's default, so that the same number written by a user can be told from it."""

    __slots__ = ()


@dataclass(frozen=True)
class Steering:
    """Hold the effect of a method on a batch, (b, t) each; None where there is none.

    Attributes:
        detach: true where the gradient of log π(a_t) stops.
        extra: added to the per-token loss, with its graph.
        reweight: w ≥ 0, by which the gradient through log π(a_t) is multiplied; the value of the loss stays. 1 changes
            nothing, 0 is `detach`.
    """

    detach: Bool[Tensor, "b t"] | None = None
    extra: Float[Tensor, "b t"] | None = None
    reweight: Float[Tensor, "b t"] | None = None

    def applied(self, logp: Float[Tensor, "b t"]) -> Float[Tensor, "b t"]:
        """Return log-probs of the same value whose gradient is reweighted and stopped: w·log π + (1 − w)·log π.detach().

        Through the log-probs, not the advantages, so that it is exact for every loss: at sequence level a loss has one
        ratio per row, and an advantage per token would reach the gradients of its neighbours.
        """
        fixed = logp.detach()
        if self.reweight is not None:
            weight = self.reweight.detach().to(logp.dtype)
            # logp − fixed is exactly 0, so the value does not round; a log-prob of −inf would make it NaN.
            untouched = (weight == 1) | ~fixed.isfinite()
            logp = torch.where(untouched, logp, fixed + weight * (logp - fixed))
        return logp if self.detach is None else torch.where(self.detach, fixed, logp)


class Method(Protocol):
    """Choose tokens over a whole batch (`select`), and act on the chosen ones (`steer`)."""

    # Read-only, so that frozen dataclasses fit.
    @property
    def clip_low(self) -> float | None: ...
    @property
    def clip_high(self) -> float | None: ...
    @property
    def scope(self) -> Scope: ...
    @property
    def count_zero_groups(self) -> bool: ...

    draws: ClassVar[bool]  # the choice uses the generator
    needs_stale_logp: ClassVar[bool]  # nothing happens while log π_θ = log π_old

    def select(self, batch: TokenBatch, generator: torch.Generator) -> Bool[Tensor, "b t"]: ...
    def steer(self, batch: TokenBatch, selected: Bool[Tensor, "b t"]) -> Steering: ...


def check_choice(
    name: str, fraction: float | None, default: float, restrain: float | None, allow_large: bool, scope: str
) -> float | None:
    """Check the settings by which tokens are chosen; return the fraction in force (None under `restrain`).

    A `PaperValue` stands for a fraction that nobody wrote, so `restrain` may take its place.

    Raises:
        ValueError: both or neither of fraction and restrain, a fraction that looks like a percentage, a
            restrain that is not positive, an unknown scope.
    """
    if scope not in ("rollout", "update", "microbatch"):
        raise ValueError(f"{name}: scope {scope!r} does not exist; choose rollout, update or microbatch.")
    if restrain is not None:
        if not 0 < restrain < float("inf"):
            raise ValueError(
                f"{name}: restrain={restrain} must be a positive share of the net covariance, such as 1.0."
            )
        if fraction is not None and not isinstance(fraction, PaperValue):
            raise ValueError(
                f"{name}: fraction={fraction} and restrain={restrain} both say how many tokens to choose; "
                "set one of them."
            )
        return None
    if fraction is None:
        raise ValueError(
            f"{name}: neither fraction nor restrain is set; set one, the paper's is fraction={default}."
        )
    if not 0 < fraction <= 1:
        raise ValueError(
            f"{name}: fraction={fraction} must lie in (0, 1]; it is a share of tokens, not a percentage."
        )
    if fraction >= LARGEST_FRACTION and not allow_large:
        raise ValueError(
            f"{name}: fraction={fraction} chooses {fraction:.0%} of all tokens, {fraction / default:,.0f} times the "
            f"paper's {default}, and looks like a percentage; write {fraction / 100:g}, or set "
            "allow_large_fraction=true if you mean it."
        )
    return fraction


def check_clip(name: str, clip_low: float | None, clip_high: float | None) -> None:
    """Check the PPO clip of a method.

    Raises:
        ValueError: a negative bound.
    """
    for field, value in (("clip_low", clip_low), ("clip_high", clip_high)):
        if value is not None and not value >= 0:
            raise ValueError(f"{name}: {field}={value} must be at least 0, or none for no clip.")
