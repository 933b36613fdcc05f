"""Keep a slow copy of the policy that votes on its prompts: labels that do not come from the policy of the moment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from entropilot.errors import UserError
from entropilot.evaluation.sampling.sampler import sample
from entropilot.inputs.messages import prompt_key

FILE = "entropilot_teacher.pt"


class Teacher(TrainerCallback):
    """Follow the policy slowly, θ̄ ← θ̄ + α(θ − θ̄) after every update, and sample a group of its own per prompt.

    The majority of a teacher's answers is the label of Co-rewarding-II (arXiv:2508.00410). Each of its completions has
    a random stream of its own, made from the seed, the prompt and the step, so that neither the batch nor the number of
    processes changes a vote.

    Args:
        trainer: an `EntropyGRPOTrainer`.
        alpha: α; 0.01 has a half-life of 69 updates.
        samples: per prompt; None takes the policy's number.

    Attributes:
        seconds: that the latest votes took.
        megabytes: that the copy of the weights holds.

    Raises:
        UserError: the policy trains adapters, or its weights are sharded.
    """

    def __init__(self, trainer: Any, alpha: float = 0.01, samples: int | None = None) -> None:
        self.trainer, self.alpha, self.samples, self.seconds = trainer, alpha, samples, 0.0
        policy = trainer.accelerator.unwrap_model(trainer.model)
        if hasattr(policy, "peft_config"):
            raise UserError(
                "teacher: ema follows all weights of the policy, but with LoRA only adapters are trained; remove lora, or "
                "remove teacher."
            )
        kind = str(trainer.accelerator.distributed_type).rpartition(".")[2]
        if kind in ("FSDP", "DEEPSPEED"):
            raise UserError(
                f"teacher: ema copies whole weights, but {kind} splits them over processes; train with DDP or in one "
                "process, or remove teacher."
            )
        self.model = deepcopy(policy).eval().requires_grad_(False)
        # TRL and accelerate set a forward on the policy that calls the policy's own, in a copy of it, too.
        self.model.__dict__.pop("forward", None)
        if getattr(self.model, "is_gradient_checkpointing", False):
            self.model.gradient_checkpointing_disable()  # it would sample without a cache
        self.megabytes = sum(p.numel() * p.element_size() for p in self.model.parameters()) / 2**20

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take one step of the mean towards the policy."""
        policy = self.trainer.accelerator.unwrap_model(self.trainer.model)
        for slow, fast in zip(self.model.parameters(), policy.parameters(), strict=True):
            slow.lerp_(fast.detach().to(slow), self.alpha)
        for slow, fast in zip(self.model.buffers(), policy.buffers(), strict=True):
            slow.copy_(fast)

    def votes(self, prompts: Sequence[Any]) -> list[list[str]]:
        """Return, for each row, the teacher's completions of its prompt; rows of one prompt share them."""
        began, trainer = time.perf_counter(), self.trainer
        different = {prompt_key(prompt): prompt for prompt in prompts}
        drawn = sample(
            self.model,
            trainer.processing_class,
            list(different.values()),
            temperature=trainer.temperature,
            max_new_tokens=trainer.max_completion_length,
            samples=self.samples or trainer.num_generations,
            seed=trainer.args.seed,
            indices=[int(key[:15], 16) * 10**9 + trainer.state.global_step for key in different],
        )
        texts = {key: [one.text for one in group] for key, group in zip(different, drawn, strict=True)}
        self.seconds = time.perf_counter() - began
        return [texts[prompt_key(prompt)] for prompt in prompts]

    def save(self, folder: Path) -> None:
        """Write the copy into the folder of a checkpoint."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.model.state_dict(), folder / FILE)

    def load(self, folder: Path) -> None:
        """Take the copy from a checkpoint.

        Raises:
            UserError: it holds none.
        """
        if not (folder / FILE).is_file():
            raise UserError(
                f"--resume: {folder} holds no teacher ({FILE}); it is of a run without one, so start a new run."
            )
        state = torch.load(folder / FILE, map_location=self.trainer.accelerator.device, weights_only=True)
        self.model.load_state_dict(state)


def teacher_of(trainer: Any, rewards: Sequence[Any]) -> Teacher | None:
    """Return the teacher that the rewards ask for; None where none does.

    Raises:
        UserError: two of them ask for different ones, or there can be none.
    """
    wanted = [reward.teacher for reward in rewards if getattr(reward, "teacher", None) is not None]
    if not wanted:
        return None
    if any(settings != wanted[0] for settings in wanted):
        raise UserError("Two rewards ask for different teachers; give both the same alpha and samples.")
    return Teacher(trainer, wanted[0].alpha, wanted[0].samples)
