"""What the tests of preference training share: pairs with authors, a trainer of one update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig
from trl_helpers import Gradients, tiny_model

from entropilot.engines.trl.preference import PPLTrainer
from entropilot.sandbox.tokenizer import build_tokenizer

F64 = torch.float64
# Prompts, chosen and rejected completions of different lengths. Every character is a token; TRL adds the end token.
TEXTS = [("1+2=", "3;#3", "#1"), ("40-7=", "#3", "17;#7!"), ("9=", "9;#9", "no"), ("8*8=", "64", "6;4;#4")]


def guess(text: str, shift: float = 0.0) -> list[float]:
    """Return made-up log-probs of a completion's characters and its end token."""
    return [-0.1 - shift - (7 * place + ord(c)) % 10 / 5 for place, c in enumerate(text + ".")]


def rows(labelled: int = 3, **columns: Any) -> list[dict[str, Any]]:
    """Return the pairs of TEXTS, the first of them with authors' log-probs; `columns` replaces in row 1."""
    found = []
    for row, (prompt, chosen, rejected) in enumerate(TEXTS):
        known = row < labelled
        found.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        found[-1]["chosen_logp"] = guess(chosen) if known else None
        found[-1]["rejected_logp"] = guess(rejected, 0.3) if known else None
    found[1] |= columns
    return found


def without(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in pairs]


def make(
    out: Path,
    pairs: Any = None,
    *,
    cls: type = PPLTrainer,
    model: Any = None,
    eval_dataset: Any = None,
    **k: Any,
) -> Any:
    """Return a trainer whose one update sees all pairs; keyword arguments that it knows go to it, others to `args`."""
    own = {name: k.pop(name) for name in ("method", "peft_config", "callbacks", "ref_model") if name in k}
    defaults = {"per_device_train_batch_size": 4, "max_steps": 1, "learning_rate": 1e-2, "max_grad_norm": 0.0}
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "bf16": False, "use_cpu": True}
    quiet |= {
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": False,
    }
    pairs = rows() if pairs is None else pairs
    trainer = cls(
        model=tiny_model() if model is None else model,
        args=DPOConfig(output_dir=str(out), **(defaults | quiet | k)),
        train_dataset=Dataset.from_list(pairs) if isinstance(pairs, list) else pairs,
        eval_dataset=eval_dataset,
        processing_class=build_tokenizer(),
        **own,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def batch_of(trainer: Any) -> dict[str, Any]:
    """Return the first batch in the order of the data."""
    names = [*trainer._signature_columns] if trainer._signature_columns else None
    examples = list(trainer.train_dataset)
    return trainer.data_collator([{k: e[k] for k in e if names is None or k in names} for e in examples])


def update(out: Path, pairs: Any = None, **kwargs: Any) -> tuple[Any, torch.Tensor]:
    """Return (trainer, gradient of its one update)."""
    gradients = Gradients()
    trainer = make(out, pairs, callbacks=[gradients], **kwargs)
    trainer.train()
    return trainer, gradients.updates[0]
