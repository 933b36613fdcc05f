"""Trainers small enough to make by the dozen, recorded completions, and eyes on a training.

The trainers are real; only the model is tiny and, where a test says so, the completions are recorded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # `rollout_func` replays completions here, no more

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig

from entropilot.engines.trl.trainer import SELECTED, EntropyGRPOTrainer
from entropilot.sandbox.pretrain import build_model
from entropilot.sandbox.tokenizer import build_tokenizer

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
LOSS_TYPES = ("grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo")
LETTERS = range(6, 102)  # ids of the sandbox tokenizer's characters


def tiny_model(seed: int = 0, sharpness: float = 12.0) -> Any:
    """Return a model of 0.02 M parameters whose log-probs spread over several nats (a fresh one is uniform)."""
    model = build_model(build_tokenizer(), seed, **TINY)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(sharpness)
    return model


def problems(count: int = 16) -> Dataset:
    """Return prompts of different lengths, so that the left padding is at work."""
    return Dataset.from_list([{"prompt": f"{7**i % 10 ** (1 + i % 3)}+{i}=", "row": i} for i in range(count)])


def letters(completions: list[Any], **_: Any) -> list[float]:
    """Reward that depends on the text alone and differs within most groups."""
    return [float(sum(map(ord, text)) % 3) / 2 for text in completions]


def score(score: list[float | None], **_: Any) -> list[float | None]:
    """Reward that was recorded with the completion."""
    return score


class Recorded:
    """A `rollout_func`: completions of 3 to `length` tokens and their scores, the same in every training.

    Call k holds the same rows on one process or on two; each rank gets its own part, in the sampler's order. One half
    of the rows is at most half as long as the other, so that two ranks pad to different widths. Every other completion
    is cut (no end token), and the last group has no signal.
    """

    def __init__(
        self, length: int = 10, seed: int = 0, group: int = 4, scale: float = 1.0, **extra: Any
    ) -> None:
        self.length, self.seed, self.group, self.scale = length, seed, group, scale
        self.calls, self.extra = 0, extra

    def rows(self, call: int, count: int) -> tuple[list[list[int]], list[float]]:
        generator = torch.Generator().manual_seed(1000 * self.seed + call)

        def draw(low: int, high: int, size: int) -> list[int]:
            return torch.randint(low, high, (size,), generator=generator).tolist()

        sizes = draw(3, self.length // 2 + 1, count // 2), draw(3, self.length + 1, count - count // 2)
        ids = [draw(LETTERS.start, LETTERS.stop, size) for part in sizes[:: (-1) ** call] for size in part]
        ids = [row[:-1] + [2] if index % 2 else row for index, row in enumerate(ids)]  # 2 is the end token
        assert len(set(map(tuple, ids))) == count, (
            "the tests tell rows apart by their tokens; take another seed"
        )
        scores = [self.scale * value / 2 for value in draw(0, 3, count)]
        scores[-self.group :] = [0.5] * self.group
        return ids, scores

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        accelerator, count = trainer.accelerator, len(prompts)
        ids, scores = self.rows(self.calls, count * accelerator.num_processes)
        self.calls += 1
        mine = slice(accelerator.process_index * count, (accelerator.process_index + 1) * count)
        encoded = trainer.processing_class(prompts, add_special_tokens=False)["input_ids"]
        extra = {name: make(ids[mine]) for name, make in self.extra.items()}
        recorded = {"prompt_ids": encoded, "completion_ids": ids[mine], "logprobs": None}
        return recorded | {"score": scores[mine]} | extra


def make_config(out: Path, **settings: Any) -> GRPOConfig:
    """Return the settings of a small training: one update per micro-batch of 4, four of them per rollout."""
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "steps_per_generation": 4,
        "gradient_accumulation_steps": 1,
        "max_completion_length": 8,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_steps": 4,
        "max_grad_norm": 0.0,
        "logging_steps": 1,
    }
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "bf16": False, "use_cpu": True}
    return GRPOConfig(output_dir=str(out), **(defaults | quiet | {"dataloader_pin_memory": False} | settings))


def make_trainer(
    out: Path,
    *,
    cls: type = EntropyGRPOTrainer,
    model: Any = None,
    recorded: Recorded | None = None,
    reward: Any = None,
    dataset: Dataset | None = None,
    settings: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Return a trainer of `cls`; without `recorded` it samples from its model."""
    trainer = cls(
        model=tiny_model() if model is None else model,
        args=make_config(out, **(settings or {})),
        reward_funcs=reward or (letters if recorded is None else score),
        train_dataset=problems() if dataset is None else dataset,
        processing_class=build_tokenizer(),
        rollout_func=recorded,
        **kwargs,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class Gradients(TrainerCallback):
    """Keeps the whole gradient of every optimiser update."""

    def __init__(self) -> None:
        self.updates: list[Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        self.updates.append(torch.cat(parts).double())


class Spied(EntropyGRPOTrainer):
    """Keeps what every training pass is given, and its loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.passes: list[dict[str, Any]] = []
        super().__init__(*args, **kwargs)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        kept = {name: value.clone() for name, value in inputs.items() if isinstance(value, Tensor)}
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self.model.training:
            self.passes.append(kept | {"loss": loss.detach(), "update": self.state.global_step})
            if self.method is not None and self.method.scope == "update":
                self.passes[-1][SELECTED] = self._update_choice[self._step]
        return loss


def chosen_of(passes: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """Return {(update, completion ids, position)} of every chosen token: how a batch was cut can't be seen in it."""
    found = set()
    for seen in passes:
        rows = zip(seen["completion_ids"], seen["completion_mask"].bool(), seen[SELECTED], strict=True)
        for ids, mask, selected in rows:
            name = tuple(ids[mask].tolist())
            found |= {(seen["update"], name, token) for token in selected.nonzero().flatten().tolist()}
    return found


def parameters(trainer: Any) -> Tensor:
    """Return a copy of all weights in one vector."""
    return torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])


def distance(actual: Tensor, expected: Tensor) -> float:
    """Return the global relative L2 distance."""
    return ((actual - expected).norm() / expected.norm()).item()
