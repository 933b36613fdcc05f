"""Define how a method changes its own settings while a run trains, and what it remembers from rollout to rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

# What a method remembers: plain numbers, so that a checkpoint keeps them exactly and a record can show them.
Memory = dict[str, float]


@dataclass(frozen=True)
class Reading:
    """Hold what is known of a rollout before it is trained on; the same on all ranks.

    Attributes:
        entropy: policy entropy of the rollout, nats, at the training temperature: per-sequence token mean, then mean
            over the sequences of all ranks.
        step: optimiser steps done.
        steps: optimiser steps of the whole training.
    """

    entropy: float
    step: int
    steps: int


class Adaptive(Protocol):
    """Change settings between rollouts. A method is a value: it returns a changed copy and the new memory."""

    @property
    def adapts(self) -> bool: ...  # False: `adapt` has nothing to do with these settings

    def adapt(self, memory: Memory, reading: Reading) -> tuple[Any, Memory]: ...


class Drivable(Protocol):
    """Be held to an entropy by a controller."""

    def driven(self, strength: float, target: float) -> Any:
        """Return a copy that raises entropy more, the larger `strength` is.

        Args:
            strength: in log space; 0 is the method as it is set.
            target: the entropy that the controller holds, nats.
        """
        ...
