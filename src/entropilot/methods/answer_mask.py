"""OM-GRPO's answer mask: the answer's own tokens are rewarded for, and not trained (arXiv:2608.03119)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from entropilot.errors import UserError
from entropilot.maths.tokens import TokenBatch
from entropilot.methods.token_method import Scope, Steering, check_clip


@dataclass(frozen=True)
class AnswerMask:
    """Stop the gradient of the tokens of the answer (OM-GRPO, arXiv:2608.03119).

        ∇ log π(a_t) = 0   for t ∈ answer span

    The reward is EMPO's share or the majority's vote. A policy that is paid for agreeing with itself can raise the
    answer's probability directly, whatever the reasoning says; with these tokens untrained only the reasoning can change.
    The paper masks all of them (parts of 0.5 to 0.75 did worse) and has no public code.

    The span: every token that overlaps the characters of the occurrence that the extraction took, without box, marker
    or end token. Earlier mentions of the value stay trained, and masked tokens stay in the loss's denominator. A
    reference-KL gradient of a masked token stops with it.

    Attributes:
        extract: the rule of `entropilot.answers.extraction.extract` that says where the answer stands; None takes the
            reward's own, or "auto" where no reward has one.
    """

    extract: str | None = None
    clip_low: float | None = 0.2  # TRL's; the paper's objective around the mask is GRPO
    clip_high: float | None = 0.2

    scope: ClassVar[Scope] = "rollout"  # the answer stands where it stands, however a batch is cut
    count_zero_groups: ClassVar[bool] = False  # no advantage, no gradient to stop
    draws: ClassVar[bool] = False
    needs_stale_logp: ClassVar[bool] = False
    reads_span: ClassVar[bool] = True  # the engine fills in `TokenBatch.span`

    def __post_init__(self) -> None:
        check_clip("The answer mask", self.clip_low, self.clip_high)

    def select(self, batch: TokenBatch, generator: torch.Generator) -> Bool[Tensor, "b t"]:
        """Choose the tokens of the answers.

        Raises:
            UserError: the engine does not say where the answers stand.
        """
        if batch.span is None:
            raise UserError(
                "method: answer_mask needs the place of the answer in each completion, which this engine does not give; "
                "train with EntropyGRPOTrainer."
            )
        return batch.span & batch.mask

    def steer(self, batch: TokenBatch, selected: Bool[Tensor, "b t"]) -> Steering:
        """Stop the gradient of the chosen tokens."""
        return Steering(detach=selected)
