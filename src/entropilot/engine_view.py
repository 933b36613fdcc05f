"""Define what rewards, evaluation and recording may ask of a training engine; no torch at run time."""

from __future__ import annotations

from typing import Any, Protocol


class EngineView(Protocol):
    """A training engine as recording sees it; `entropilot.engines.trl.trainer.EntropyGRPOTrainer` is one.

    Attributes:
        args: the engine's settings.
        num_generations: completions per prompt.
    """

    args: Any
    num_generations: int

    def score(self, inputs: dict[str, Any]) -> tuple[Any, Any]: ...
