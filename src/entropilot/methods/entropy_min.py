"""One-shot entropy minimisation: train on the policy's own entropy, without a reward (arXiv:2505.20282).

Engine path: the entropy comes from TRL's fused head, which the trainer's forward pass uses anyway; its gradient is exact
since trl#6625 (tests/engines/trl/test_entropy_min_trainer.py checks it by finite differences). It folds tiles of
4,096 tokens × 32,768 words, and it knows what a head can have: a logit cap or scale, autocast, adapters, FSDP and
ZeRO-3 shards. `entropilot.maths.entropy_loss` takes the gradient while the tile is at hand and so saves a matrix
product, and 256 tokens a tile are less than TRL's default: 0.19 of the direct way's memory, where TRL's head takes 0.48
(benchmarks/entropy_min.py). But it knows plain linear heads only: it is for loops without an engine. Neither keeps logits
of shape (b, t, v).

Updates, not steps: the authors' `global_step` counts micro-batches of 2 sequences per GPU and divides 64 by them, so
their checkpoint "step_10" has had 2 optimizer updates on 8 GPUs (after micro-steps 4 and 8), and none on one GPU, where
an update takes 32 micro-steps. The paper speaks of about 10 steps of batch 64; `updates` counts those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from entropilot.maths.entropy import token_entropy
from entropilot.maths.tokens import reduce_tokens


@dataclass(frozen=True)
class EntropyMin:
    """One-shot entropy minimisation (arXiv:2505.20282, Sec. 3): less entropy at sampled prefixes, no label, no reward.

        L_EM = (1/|I|) Σ_{t∈I} H_t,    H_t = −Σ_v p_v log p_v,    p = softmax(logits_t / T),    I = generated tokens
        ∂H_t/∂z_v = −(1/T)·p_v·(log p_v + H_t)

    The prefixes are sampled from the policy; the gradient goes through the distributions at them only. There is no
    score-function term, so this is not the gradient of the entropy of whole sequences. Repetition penalty and nucleus
    change what is sampled; H is of the full distribution at T, without them.

    We depart in I and in the mean. H_t here is of the distribution that generated token t was drawn from, the
    first token and the end token included, and the mean is over all tokens of the update. The released train.py
    leaves the first token's distribution out and takes the one after the last token in (logits at index t are
    masked as if they predicted token t), skips what follows an end token because its pad token is the end token,
    and averages per micro-batch. `official_mask=True` does the same. Not reproduced: with prompts of different
    length, its mask also takes in some prompt tokens.
    """

    temperature: float = 0.5  # T of sampling and loss; authors' train.py since 2025-06-08 (0.9 before)
    official_mask: bool = False  # the paper's I, not the script's
    samples: int = 64  # per update; authors' effective batch
    prompts_per_update: int = 1  # one-shot; 16 of 4 samples each is multi-shot
    learning_rate: float = 2e-5  # authors' train.py, constant, AdamW
    updates: int = 10  # paper: convergence in about 10 steps; authors' max_steps=50 counts micro-batches
    top_p: float = 0.95  # authors' train.py; of the sampling only
    repetition_penalty: float = 1.15  # authors' train.py since 2025-06-09, none before; of the sampling only
    max_new_tokens: int = 512  # authors' train.py; the paper's text says 2048
    stop_below: float | None = None  # ours: stop when the update's mean entropy, nats, falls below
    stop_flat: int | None = None  # ours: stop when the last so many updates lowered it no more
    flat_tolerance: float = (
        0.05  # ours: a smaller relative fall of the mean over `stop_flat` updates counts as none
    )

    def __post_init__(self) -> None:
        def refuse(what: str, why: str) -> None:
            raise ValueError(f"Entropy minimisation: {what} = {getattr(self, what)} {why}.")

        for name in ("temperature", "learning_rate", "repetition_penalty"):
            if not 0 < getattr(self, name) < math.inf:
                refuse(name, "must be a positive number")
        if not 0 < self.top_p <= 1:
            refuse("top_p", "must lie in (0, 1]; 1 takes the whole distribution")
        for name in ("updates", "max_new_tokens", "prompts_per_update"):
            if getattr(self, name) < 1:
                refuse(name, "must be at least 1")
        if self.samples % self.prompts_per_update or self.samples < 2 * self.prompts_per_update:
            refuse(
                "samples",
                f"can't be spread over {self.prompts_per_update} prompts per update; take a multiple of it, at least "
                "two samples a prompt (TRL's smallest group)",
            )
        if self.stop_below is not None and not self.stop_below > 0:
            refuse("stop_below", "must be a positive entropy in nats, or none")
        if self.stop_flat is not None and self.stop_flat < 2:
            refuse("stop_flat", "must be at least 2 updates, or none; one update's entropy is noise")
        if not 0 <= self.flat_tolerance < 1:
            refuse("flat_tolerance", "must lie in [0, 1); it is a share")

    def counted(
        self, ids: Int[Tensor, "b t"], generated: Bool[Tensor, "b t"], blank: Sequence[int] = ()
    ) -> Bool[Tensor, "b u"]:
        """Return which distributions count: column j is the one that generated token j was drawn from.

        Args:
            ids: generated tokens.
            generated: true on generated tokens, the end token included, false on padding.
            blank: ids that the official mask takes for padding: the end token and the pad token.

        Returns:
            (b, t), `generated` itself; with `official_mask` (b, t + 1): column j counts where token j − 1 was generated
            and is not blank, column 0 never.
        """
        if not self.official_mask:
            return generated
        before = generated & ~torch.isin(ids, torch.tensor(list(blank), device=ids.device, dtype=ids.dtype))
        return torch.nn.functional.pad(before, (1, 0), value=False)

    def loss(
        self,
        logits: Float[Tensor, "b t v"],
        counted: Bool[Tensor, "b t"],
        *,
        tokens: Tensor | float | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean entropy, nats, of softmax(logits / T) over the counted columns; padding may hold anything.

        For small vocabularies and for tests: here logits exist. `tokens` is the count of the whole update where this
        is a part of it; the parts then add up to the mean.
        """
        entropy = token_entropy(
            torch.where(counted.unsqueeze(-1), logits, logits.new_zeros(())), self.temperature
        )
        return reduce_tokens(entropy, counted, "token_mean", tokens=tokens)

    def stop_reason(self, entropies: Sequence[float]) -> str | None:
        """Return why training should stop after these updates, from their mean entropies alone; None to go on."""
        if self.stop_below is not None and entropies and entropies[-1] < self.stop_below:
            return f"entropy {entropies[-1]:.4g} nats is below the floor stop_below = {self.stop_below:g}"
        window = self.stop_flat
        if window is None or len(entropies) < 2 * window:
            return None
        now, before = sum(entropies[-window:]) / window, sum(entropies[-2 * window : -window]) / window
        if now <= before * (1 - self.flat_tolerance):
            return None
        return f"entropy is flat: {now:.4g} nats over the last {window} updates, {before:.4g} over the {window} before"

    def grpo_settings(self, micro_batch: int = 8) -> dict[str, Any]:
        """Return the fields of TRL's `GRPOConfig` that these settings stand for, for one process.

        A batch of `samples` is sampled at once and is one update, in micro-batches of `micro_batch` at most.
        """
        part = math.gcd(micro_batch, self.samples)
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "repetition_penalty": self.repetition_penalty,
            "max_completion_length": self.max_new_tokens,
            "num_generations": self.samples // self.prompts_per_update,
            "per_device_train_batch_size": part,
            "gradient_accumulation_steps": self.samples // part,
            "steps_per_generation": self.samples // part,
            "max_steps": self.updates,
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": "constant",
            "weight_decay": 0.01,  # authors' train.py leaves torch's default
            "max_grad_norm": 1.0,  # authors' train.py
        }
