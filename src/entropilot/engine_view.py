"""Define what rewards, evaluation and recording may ask of a training engine; no torch at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class EngineView(Protocol):
    """Look at a training engine: all that a probe needs to write a record, and nothing by which it could train.

    `entropilot.engines.trl.view.TRLView` is TRL's; an adapter for another engine implements the same names.
    "All ranks" are the processes that train one model together; on one process the collective calls return
    their argument.
    """

    @property
    def step(self) -> int:
        """Optimiser updates done so far."""
        ...

    @property
    def rollout(self) -> int:
        """Number of the rollout that is sampled next, from 0; counted from `step`, so a resumed run goes on counting."""
        ...

    @property
    def num_generations(self) -> int:
        """Completions per prompt in training; a prompt's completions stand together."""
        ...

    @property
    def temperature(self) -> float:
        """Temperature at which training samples and scores."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Return the model's tokenizer."""
        ...

    @property
    def rewards(self) -> Sequence[Callable[..., Any]]:
        """Return the reward functions; a `GroupReward` among them tells what it saw of its groups."""
        ...

    @property
    def clip(self) -> Mapping[str, Any]:
        """Return the PPO clip in force: "low" and "high" (None where the loss has none), and "source", who set it."""
        ...

    @property
    def scope(self) -> str | None:
        """Return where the token method chooses: rollout, update or microbatch; None without a method."""
        ...

    @property
    def device(self) -> Any:
        """Device of this rank's tensors."""
        ...

    @property
    def rank(self) -> int:
        """Number of this process among all ranks, from 0."""
        ...

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        ...

    @property
    def is_main(self) -> bool:
        """Tell whether this is the one process that writes files."""
        ...

    def reduce(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks of a tensor of the same shape on each."""
        ...

    def gather(self, values: Tensor, padding: float = 0) -> Tensor:
        """Return the 1-D tensors of all ranks in one, rank after rank, each padded to the longest."""
        ...

    def gather_objects(self, value: Any) -> list[Any]:
        """Return the (picklable) value of every rank, in order of rank."""
        ...

    def score(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Return (log π, entropy) of completions at the current weights, nats, (b, t) each, without a graph.

        `inputs` holds prompt_ids and prompt_mask (padded on the left), completion_ids and completion_mask (on the right).
        """
        ...

    def at_temperature(self, temperature: float) -> AbstractContextManager[None]:
        """Within the block, `score` at this temperature."""
        ...

    def generating_model(self) -> AbstractContextManager[Any]:
        """Within the block, hand out the model so that it can generate; every rank enters it."""
        ...

    def completion_metrics(self) -> Mapping[str, float]:
        """Return `completion/*` of the rollout just sampled, over all ranks, before anything of it is masked."""
        ...

    def log(self, name: str, value: float) -> None:
        """Hand a number to the engine's own trackers (its `report_to`)."""
        ...

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Let the trackers have numbers of a step at once: after the last update nothing else would bring them there."""
        ...
