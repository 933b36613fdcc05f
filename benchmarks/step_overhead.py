"""Seconds of an optimiser step with our trainer beside plain `GRPOTrainer`: python benchmarks/step_overhead.py

Same model, seed and settings; the learning rate is 0, so that all variants sample the same completions and do the
same work. Variants are interleaved, one short run after the other; the first rollout of each run is not counted.
The ratio is the median over rounds of (variant / plain of the same round). Peak memory is that of a process of its
own per variant (resident set on a CPU, allocated by torch on an accelerator).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from entropilot import ClipCov, EntropyGRPOTrainer, KLCov
from entropilot.inputs.models import quiet
from entropilot.recording.probe import Probe
from entropilot.rewards.named import sandbox_reward
from entropilot.sandbox import weights_of
from entropilot.sandbox.tasks import get_tier

VARIANTS = ("plain", "none", "KL-Cov", "Clip-Cov", "KL-Cov + probe", "plain on-policy", "Clip-Cov on-policy")


class Stopwatch(TrainerCallback):
    """Seconds of every optimiser step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.began)


def run(variant: str, folder: str, rollouts: int) -> float:
    """Return the mean seconds of an optimiser step, the first rollout left out."""
    on_policy = "on-policy" in variant
    tokenizer = AutoTokenizer.from_pretrained(weights_of("chains"))
    model = AutoModelForCausalLM.from_pretrained(weights_of("chains"), dtype=torch.float32)
    rows = [
        {"prompt": [{"role": "user", "content": problem.prompt}], "answer": problem.answer}
        for problem in get_tier("chains").problems("train", 512)
    ]
    updates = 1 if on_policy else 4
    args = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=64,
        steps_per_generation=4,
        gradient_accumulation_steps=4 // updates,
        num_generations=8,
        max_completion_length=40,
        learning_rate=0.0,
        max_steps=updates * rollouts,
        report_to="none",
        save_strategy="no",
        bf16=False,
        disable_tqdm=True,
        seed=0,
    )
    method = {"KL": KLCov(), "Clip": ClipCov()}.get(variant.split("-")[0])
    extra: dict[str, Any] = {}
    kind = GRPOTrainer
    if not variant.startswith("plain"):
        kind, extra = EntropyGRPOTrainer, {"method": method}
    probe = Probe() if "probe" in variant else None
    if probe is not None:
        extra |= {"observer": probe, "callbacks": [probe]}
    trainer = kind(
        model=model,
        args=args,
        reward_funcs=sandbox_reward("chains"),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        **extra,
    )
    trainer.remove_callback(PrinterCallback)
    watch = Stopwatch()
    trainer.add_callback(watch)
    trainer.train()
    return statistics.fmean(watch.seconds[updates:])


def peak_mib(variant: str) -> float:
    """Return the peak memory of a process that runs this variant alone."""
    command = [sys.executable, __file__, "--only", variant]
    return json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help="run one variant once and print its peak memory in MiB")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        if settings.only:
            run(settings.only, folder, 2)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if torch.cuda.is_available():
                peak = torch.cuda.max_memory_allocated()
            print(json.dumps(peak / 2**20))
            return
        times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for _ in range(settings.rounds):
            for variant in VARIANTS:
                times[variant].append(run(variant, folder, settings.rollouts))
    print(
        f"torch {torch.__version__}, {settings.threads} threads, {settings.rounds} rounds of {settings.rollouts} rollouts"
    )
    print(f"{'variant':<22}{'ms/step':>9}{'ratio':>8}{'lowest':>8}{'highest':>9}{'peak MiB':>10}")
    for variant, values in times.items():
        base = times["plain on-policy" if "on-policy" in variant else "plain"]
        ratios = sorted(value / plain for value, plain in zip(values, base, strict=True))
        print(
            f"{variant:<22}{statistics.median(values) * 1e3:>9.1f}{statistics.median(ratios):>8.3f}"
            f"{ratios[0]:>8.3f}{ratios[-1]:>9.3f}{peak_mib(variant):>10.0f}"
        )


if __name__ == "__main__":
    main()
