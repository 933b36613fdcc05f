"""Define what an engine shows to an observer: every rollout and every training pass, without a graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from entropilot.engine_view import EngineView
from entropilot.maths.tokens import TokenBatch


@dataclass
class Rollout:
    """Hold one rollout before its first update: the n rows of all ranks, in the sampler's order.

    Attributes:
        batch: `logp` is `old_logp`, the policy that generated; the mask is completion × tool mask, (n, t).
        eligible: tokens that may be chosen, (n, t).
        selected: tokens chosen over the rollout, (n, t); None where nothing was.
        rewards: (n,), NaN where nothing scored the completion.
        output: this rank's rollout under TRL's names; a probe reads prompt_ids, prompt_mask, completion_ids and
            completion_mask.
        first_row: where this rank's rows begin among the n.
        seconds: that generating, scoring and the old log-probs took.
        measured: what the engine itself records of the rollout, over all ranks.
    """

    batch: TokenBatch
    eligible: Tensor
    selected: Tensor | None
    rewards: Tensor
    output: dict[str, Any]
    first_row: int
    seconds: float
    measured: dict[str, float] = field(default_factory=dict)


@dataclass
class MicroBatch:
    """Hold one training pass of this rank.

    Attributes:
        batch: the tokens at the current log-probs, (b, t).
        eligible: tokens that may be chosen, (b, t).
        selected: chosen tokens, (b, t); None without a method.
        extra: the method's extra per-token loss, (b, t); None where there is none.
        seconds: of the forward pass and the loss.
    """

    batch: TokenBatch
    eligible: Tensor
    selected: Tensor | None
    extra: Tensor | None
    seconds: float


class Observer(Protocol):
    """Watch an engine; `entropilot.recording.probe.Probe` is one."""

    def before_rollout(self, engine: EngineView) -> None: ...
    def on_rollout(self, engine: EngineView, rollout: Rollout) -> None: ...
    def on_micro_batch(self, engine: EngineView, part: MicroBatch) -> None: ...
