"""Compare the estimate of `entropilot check --gpu-memory` with peaks that are measured: python benchmarks/memory.py

Three random models, from small to that of SmolLM2-135M, are trained for two updates of Clip-Cov with a probe, each of
two passes (so that gradients are there while activations are), in a process of its own, float32, on a CPU. Weights,
gradients and optimizer are counted from the tensors that are there; what is left of the peak of the resident set, above
that before the model existed, is activations or generation.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Large blocks go back to the system when they are freed, so that the resident set is what is in use.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "65536")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from entropilot.inputs.messages import render_prompt
from entropilot.inputs.models import quiet
from entropilot.recipes.schema import Recipe
from entropilot.sandbox import weights_of
from entropilot.training.memory import ALONE, batch_of, estimate, shape_of
from entropilot.training.plan import Plan, check
from entropilot.training.prepare import prepare

MIB = 2**20
# Without its kernel TRL holds the tile of logits and eight more like it in the backward pass, and a mask of bytes.
TILE = 9 * 4 + 1
# Name: layers, hidden, heads, key-value heads, feed-forward, words; and completions per pass, tokens per completion.
SIZES = {
    "small": ((8, 256, 8, 4, 768, 8192), (16, 48)),
    "middle": ((16, 448, 8, 4, 1216, 24576), (8, 64)),
    "SmolLM2-135M": ((30, 576, 9, 3, 1536, 49152), (4, 64)),
}


def save_random(folder: Path, sizes: tuple[int, ...]) -> None:
    """Write a random model of these sizes, with the sandbox's tokenizer."""
    from transformers import AutoTokenizer

    layers, hidden, heads, key, intermediate, words = sizes
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=key,
        intermediate_size=intermediate,
        vocab_size=words,
        tie_word_embeddings=True,
        max_position_embeddings=512,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(weights_of("chains")).save_pretrained(folder)


def plan_of(model: Path, rows: int, tokens: int, checkpointing: bool, out: Path) -> Plan:
    """Return the plan of two updates on a model."""
    grpo = {
        "per_device_train_batch_size": rows,
        "steps_per_generation": 2,
        "gradient_accumulation_steps": 2,
        "num_generations": rows,
        "max_completion_length": tokens,
        "generation_kwargs": {"min_new_tokens": tokens},
        "gradient_checkpointing": checkpointing,
        "max_steps": 2,
        "save_strategy": "no",
        "bf16": False,
    }
    fields = {"model": str(model), "data": {"source": "sandbox:chains", "limit": 16}, "method": "clip_cov"}
    reward = {"reward": "random", "probe": {"tokens_every": 0}, "validate": None}
    return check(Recipe.model_validate({"name": "memory", "grpo": grpo, **fields, **reward}), out)


def resident(name: str) -> int:
    """Return VmRSS (now) or VmHWM (highest) of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure(model: Path, rows: int, tokens: int, checkpointing: bool, tiny: Path) -> dict[str, float]:
    """Train, and return the bytes of every part, as measured."""
    torch.set_num_threads(1)
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        # Once with a tiny model: what libraries load on first use is not the model's.
        trainer, _ = prepare(plan_of(tiny, 4, 8, False, Path(folder) / "first"), None, None, None)
        trainer.train()
        del trainer
        gc.collect()
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the highest starts again from now
        trainer, _ = prepare(
            plan_of(model, rows, tokens, checkpointing, Path(folder) / "run"), None, None, None
        )
        gradients = 0

        def count(*_: Any) -> None:
            nonlocal gradients
            gradients = sum(p.grad.nbytes for p in trainer.model.parameters() if p.grad is not None)

        trainer.create_optimizer()
        trainer.optimizer.register_step_pre_hook(count)
        trainer.train()
        peak = resident("VmHWM") - before
        inner = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
        states = [value for state in inner.state.values() for value in state.values()]
        longest = max(len(trainer.processing_class(text)["input_ids"]) for text in rendered(trainer))
        found = {
            "weights": sum(p.nbytes for p in trainer.model.parameters()),
            "gradients": gradients,
            "optimizer": sum(value.nbytes for value in states if isinstance(value, torch.Tensor)),
        }
    return {**found, "activations": peak - sum(found.values()), "peak": peak, "prompt": longest}


def rendered(trainer: Any) -> list[str]:
    """Return the prompts as the model sees them."""
    return [render_prompt(row["prompt"], trainer.processing_class) for row in trainer.train_dataset]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.worker:
        print(
            json.dumps(measure(*(Path(x) if isinstance(x, str) else x for x in json.loads(settings.worker))))
        )
        return
    print(f"torch {torch.__version__}, cpu, float32, MiB: estimated / measured")
    parts = ("weights", "gradients", "optimizer", "activations", "peak")
    print(f"{'model':<14}{'checkpointing':<15}" + "".join(f"{part:>18}" for part in parts) + "   ratio")
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny"
        save_random(tiny, (2, 32, 2, 2, 64, 256))
        for name in settings.sizes:
            sizes, (rows, tokens) = SIZES[name]
            model = Path(folder) / name
            save_random(model, sizes)
            for checkpointing in (False, True):
                given = json.dumps([str(model), rows, tokens, checkpointing, str(tiny)])
                command = [sys.executable, "-W", "ignore", __file__, "--worker", given]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found = json.loads(said.splitlines()[-1])
                plan = plan_of(model, rows, tokens, checkpointing, Path(folder) / "plan")
                batch = dataclasses.replace(batch_of(plan, 1, 0.0, int(found["prompt"])), tile=TILE)
                memory = estimate(shape_of(plan), batch, ALONE)
                guess = {part: getattr(memory, part) for part in parts[:3]}
                guess["activations"] = max(memory.activations, memory.generation) + memory.choice
                guess["peak"] = memory.total - memory.driver
                cells = "".join(f"{guess[part] / MIB:>9.0f} /{found[part] / MIB:>7.0f}" for part in parts)
                print(
                    f"{name:<14}{checkpointing!s:<15}{cells}   {guess['peak'] / found['peak']:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
