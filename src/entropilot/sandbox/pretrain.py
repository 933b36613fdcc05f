"""Make the base model of a tier: a tiny Llama, trained from scratch on imperfect solutions of train problems.

`entropilot sandbox pretrain` runs this; the weights in the package came out of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from entropilot.sandbox.tasks import Tier
from entropilot.sandbox.tokenizer import build_tokenizer

# The 0.6 M parameter architecture of the committed weights. Llama rather than Qwen2: for Qwen model types
# transformers 5 replaces any saved tokenizer by its own byte-level one, which would drop our blanks.
ARCHITECTURE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0, **architecture: int) -> LlamaForCausalLM:
    """Return a randomly initialised sandbox model; keyword arguments replace entries of `ARCHITECTURE`."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **(ARCHITECTURE | architecture),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        top_k=0,
        top_p=1.0,
    )
    return model


def encode_batch(
    tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Encode (prompt, solution) pairs; returns input ids, attention mask and labels, (b t), padded on the right.

    Labels are -100 on the prompt and the padding: the loss sees the assistant's turn and its end only.
    """
    heads = tokenizer([f"<|user|>{prompt}<|assistant|>" for prompt, _ in pairs], add_special_tokens=False)[
        "input_ids"
    ]
    tails = tokenizer([f"{text}<|end|>" for _, text in pairs], add_special_tokens=False)["input_ids"]
    width = max(len(head) + len(tail) for head, tail in zip(heads, tails, strict=True))
    ids = torch.full((len(pairs), width), tokenizer.pad_token_id, dtype=torch.long)
    attention, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        end = len(head) + len(tail)
        ids[row, :end] = torch.tensor(head + tail)
        attention[row, :end] = 1
        labels[row, len(head) : end] = torch.tensor(tail)
    return ids, attention, labels


def pretrain(
    tier: Tier,
    out: Path,
    *,
    steps: int = 4000,
    batch_size: int = 96,
    learning_rate: float = 2e-3,
    seed: int = 0,
    start: Path | None = None,
    report: Callable[[int, float], None] | None = None,
    **architecture: int,
) -> Path:
    """Train the base model of a tier, from scratch or from another tier's, and save a `save_pretrained` folder.

    AdamW with a one-cycle schedule, as in a small language-model run; every batch is drawn anew from the
    train split, so nothing is seen twice on purpose. Weights are stored in float16 (half the bytes in
    the package) and used in float32.

    Args:
        tier: the task.
        out: folder to write.
        steps: optimiser steps.
        batch_size: problems per step.
        learning_rate: peak of the one-cycle schedule.
        seed: of the initialisation and of the text.
        start: folder of a sandbox model to go on from; None begins from scratch.
        report: called as `report(step, loss_nats)` every 50 steps.
        **architecture: replaces entries of `ARCHITECTURE`.
    """
    tokenizer = build_tokenizer()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if start is None:
        model = build_model(tokenizer, seed, **architecture)
    else:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    stream, rng = tier.stream("train", seed), random.Random(f"solve/{seed}")
    for step in range(steps):
        problems = [next(stream) for _ in range(batch_size)]
        batch = encode_batch(tokenizer, [(p.prompt, tier.solve(p, rng)) for p in problems])
        ids, attention, labels = (tensor.to(device) for tensor in batch)
        loss = model(input_ids=ids, attention_mask=attention, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if report is not None and (step % 50 == 0 or step == steps - 1):
            report(step, loss.item())
    out.mkdir(parents=True, exist_ok=True)
    model.eval().to(torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out
