"""Show a TRL trainer to rewards, evaluation and recording, which know no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor
from transformers import Trainer
from trl.models import unwrap_model_for_generation

from entropilot.ranks import gather_objects


class TRLView:
    """Implement `entropilot.engine_view.EngineView` for an `EntropyGRPOTrainer`; see there for what each name means.

    Attributes:
        trainer: the trainer behind the view, for observers that are written for TRL.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    @property
    def step(self) -> int:
        return self.trainer.state.global_step

    @property
    def rollout(self) -> int:
        # Rounded up: a rollout may be sampled in the middle of an update, and the last one before a checkpoint
        # is not taken up again.
        args = self.trainer.args
        passes = self.trainer.state.global_step * args.gradient_accumulation_steps
        return -(-passes // (args.steps_per_generation * args.num_iterations))

    @property
    def num_generations(self) -> int:
        return self.trainer.num_generations

    @property
    def temperature(self) -> float:
        return self.trainer.temperature

    @property
    def tokenizer(self) -> Any:
        return self.trainer.processing_class

    @property
    def rewards(self) -> Sequence[Callable[..., Any]]:
        return self.trainer.reward_funcs

    @property
    def clip(self) -> Mapping[str, Any]:
        return self.trainer.clip

    @property
    def scope(self) -> str | None:
        return None if self.trainer.method is None else self.trainer.method.scope

    @property
    def device(self) -> Any:
        return self.trainer.accelerator.device

    @property
    def rank(self) -> int:
        return self.trainer.accelerator.process_index

    @property
    def world_size(self) -> int:
        return self.trainer.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.trainer.accelerator.is_main_process

    def reduce(self, values: Tensor) -> Tensor:
        return self.trainer.accelerator.reduce(values, reduction="sum")

    def gather(self, values: Tensor, padding: float = 0) -> Tensor:
        accelerator = self.trainer.accelerator
        return accelerator.gather(accelerator.pad_across_processes(values, pad_index=padding))

    def gather_objects(self, value: Any) -> list[Any]:
        return gather_objects(value)

    def score(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        return self.trainer.score(inputs)

    def at_temperature(self, temperature: float) -> AbstractContextManager[None]:
        return self.trainer.at_temperature(temperature)

    def generating_model(self) -> AbstractContextManager[Any]:
        return unwrap_model_for_generation(self.trainer.model_wrapped, self.trainer.accelerator)

    def completion_metrics(self) -> Mapping[str, float]:
        # TRL counts them over all ranks before it masks truncated completions.
        names = {
            "completion/length": "completions/mean_length",
            "completion/longest": "completions/max_length",
            "completion/truncated": "completions/clipped_ratio",
        }
        return {ours: self.trainer._metrics["train"][theirs][-1] for ours, theirs in names.items()}

    def log(self, name: str, value: float) -> None:
        self.trainer._metrics["train"][name].append(value)  # TRL averages them until it logs

    def report(self, step: int, values: Mapping[str, float]) -> None:
        # TRL's own `log` would add its table of completions once more.
        state = self.trainer.state
        state.global_step, before = step, state.global_step
        try:
            Trainer.log(self.trainer, dict(values))
        finally:
            state.global_step = before
