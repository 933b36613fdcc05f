"""Cost of an optimiser step with our trainer beside plain `GRPOTrainer`.

    python benchmarks/step_overhead.py                                    # the sandbox's model
    python benchmarks/step_overhead.py --model runs/models/smollm2        # after `make real-model`
    python benchmarks/step_overhead.py --model random                     # 0.36 B random weights, for a GPU

Same model, seed and settings. All variants train at once and take turns, optimiser step by optimiser step, in an order that
moves on with every step: a machine that is slower for a while is so for all of them. The first rollout is not counted. The
ratio is the median over steps of (variant / plain at the same step), with the 95 % interval of that median (from the order
statistics). Processor time of the whole process is the witness on a busy machine; with an accelerator time is that of CUDA
events.
`--count` adds up the processor time of our own functions inside one run instead, which no load on the machine moves; the
entropies that the old-log-prob pass gives beside its log-probs are not in that sum. Peak memory is that of a process of
its own per variant (resident set on a CPU, allocated by torch on an accelerator).

So that all variants do the same work, completions all have the same length at a real size, where the learning rate is
1e-5 and weights therefore differ; the sandbox's model has a learning rate of 0 and samples the same completions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
from datasets import Dataset
from readers import peak_mb  # beside this file
from scipy.stats import binom
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PrinterCallback,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from entropilot import ClipCov, EntropyGRPOTrainer, KLCov
from entropilot.engines.trl import trainer as our_trainer
from entropilot.engines.trl.tally import Tally
from entropilot.inputs.models import quiet
from entropilot.recording.probe import Probe
from entropilot.rewards.named import sandbox_reward
from entropilot.sandbox import weights_of
from entropilot.sandbox.tasks import get_tier

UPDATES = 4  # per rollout
VARIANTS = ("plain", "none", "KL-Cov", "Clip-Cov", "KL-Cov + probe", "plain on-policy", "Clip-Cov on-policy")


@dataclass
class Setting:
    """What is trained, the same for all variants."""

    model: Any
    tokenizer: Any
    rows: list[dict[str, Any]]
    reward: Any
    args: dict[str, Any]


class Turns:
    """Lets several trainings, each in a thread, take turns: one runs from one of its steps to the next, the others wait."""

    def __init__(self, names: Sequence[str]) -> None:
        self._left = list(names)
        self._order = list(names)
        self._turn = threading.Condition()
        self._failed = False

    def wait(self, name: str) -> None:
        """Return when it is this one's turn."""
        with self._turn:
            self._turn.wait_for(lambda: self._failed or self._order[0] == name)
            if self._failed:
                raise RuntimeError("another training failed")

    def pass_on(self) -> None:
        """Let the next one run; when all have run, they begin again, the second first."""
        with self._turn:
            self._order.pop(0)
            if not self._order:
                self._left.append(self._left.pop(0))
                self._order = list(self._left)
            self._turn.notify_all()

    def leave(self, name: str, failed: bool = False) -> None:
        """End: this one takes no further turn."""
        with self._turn:
            self._failed = self._failed or failed
            self._left.remove(name)
            self._order = [
                other for other in self._order if other != name
            ]  # it may have had its turn of this round
            self._order = self._order or list(self._left)
            self._turn.notify_all()


class Stopwatch(TrainerCallback):
    """Seconds of every optimiser step: (by the clock or CUDA events, of the processor). Waits for its turn before each."""

    def __init__(self, name: str, turns: Turns | None) -> None:
        self.name, self.turns = name, turns
        self.cuda = torch.cuda.is_available()
        self.steps: list[tuple[float, float]] = []

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        if self.turns is not None:
            self.turns.pass_on()
            self.turns.wait(self.name)
        self.began = self._now(), time.process_time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        ended = self._now()
        if self.cuda:
            torch.cuda.synchronize()
        seconds = self.began[0].elapsed_time(ended) / 1e3 if self.cuda else ended - self.began[0]
        self.steps.append((seconds, time.process_time() - self.began[1]))


def sandbox_setting(rows: int) -> Setting:
    """Return the sandbox's model on its own task."""
    problems = get_tier("chains").problems("train", 512)
    return Setting(
        AutoModelForCausalLM.from_pretrained(weights_of("chains"), dtype=torch.float32),
        AutoTokenizer.from_pretrained(weights_of("chains")),
        [
            {"prompt": [{"role": "user", "content": problem.prompt}], "answer": problem.answer}
            for problem in problems
        ],
        sandbox_reward("chains"),
        {"per_device_train_batch_size": rows, "max_completion_length": 40, "learning_rate": 0.0},
    )


def last_digit(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Reward that differs within groups whatever a model writes."""
    return [float(sum(ids) % 3) / 2 for ids in completion_ids]


def real_setting(folder: str, rows: int, length: int, layers: int) -> Setting:
    """Return a pretrained model on sums, or a random model, with completions of one length."""
    sums = [f"5 + 8 = 13\n{a} + {b} =" for a in range(2, 30) for b in range(2, 30)]
    if folder == "random":  # as SmolLM2-360M, for machines without any weights
        torch.manual_seed(0)
        config = LlamaConfig(
            num_hidden_layers=layers,
            hidden_size=960,
            num_attention_heads=15,
            num_key_value_heads=5,
            intermediate_size=2560,
            vocab_size=49152,
            tie_word_embeddings=True,
        )
        model, tokenizer = LlamaForCausalLM(config), AutoTokenizer.from_pretrained(weights_of("chains"))
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    args = {
        "per_device_train_batch_size": rows,
        "max_completion_length": length,
        "generation_kwargs": {"min_new_tokens": length},
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": False,
        "bf16": torch.cuda.is_available(),
    }
    return Setting(model, tokenizer, [{"prompt": text} for text in sums], last_digit, args)


def updates_of(variant: str) -> int:
    """Return the optimiser steps of a rollout."""
    return 1 if "on-policy" in variant else UPDATES


def trainer_of(
    variant: str, setting: Setting, folder: str, rollouts: int, turns: Turns | None = None
) -> tuple[GRPOTrainer, Stopwatch]:
    """Return a trainer, not begun, and what takes its time."""
    updates = updates_of(variant)
    defaults = {
        "output_dir": folder,
        "steps_per_generation": UPDATES,
        "gradient_accumulation_steps": UPDATES // updates,
        "num_generations": 8,
        "max_steps": updates * rollouts,
        "report_to": "none",
        "save_strategy": "no",
        "bf16": False,
        "disable_tqdm": True,
        "seed": 0,
    }
    method = {"KL": KLCov(), "Clip": ClipCov()}.get(variant.split("-")[0])
    extra: dict[str, Any] = {}
    kind = GRPOTrainer
    if not variant.startswith("plain"):
        kind, extra = EntropyGRPOTrainer, {"method": method}
    if "probe" in variant:
        extra |= {"observer": Probe()}
    trainer = kind(
        model=setting.model,
        args=GRPOConfig(**defaults | setting.args),
        reward_funcs=setting.reward,
        train_dataset=Dataset.from_list(setting.rows),
        processing_class=setting.tokenizer,
        **extra,
    )
    trainer.remove_callback(PrinterCallback)
    watch = Stopwatch(variant, turns)
    trainer.add_callback(watch)
    return trainer, watch


def together(
    variants: Sequence[str], setting: Callable[[], Setting], folder: str, rollouts: int
) -> dict[str, list[tuple[float, float]]]:
    """Return the (clock, processor) seconds of every step of every variant, the first rollout left out."""
    turns = Turns(variants)
    made = {variant: trainer_of(variant, setting(), folder, rollouts, turns) for variant in variants}

    def train(variant: str) -> None:
        try:
            turns.wait(variant)
            made[variant][0].train()
        except BaseException:
            turns.leave(variant, failed=True)
            raise
        turns.leave(variant)

    with ThreadPoolExecutor(len(variants)) as threads:
        for done in [threads.submit(train, variant) for variant in variants]:
            done.result()
    return {variant: watch.steps[updates_of(variant) :] for variant, (_, watch) in made.items()}


def middle(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and its 95 % interval by order statistics; the extremes where there are fewer than six."""
    ordered = sorted(ratios)
    low = max(0, int(binom.ppf(0.025, len(ordered), 0.5)) - 1)
    return statistics.median(ordered), ordered[low], ordered[-1 - low]


def counted(variant: str, setting: Setting, folder: str) -> tuple[float, float]:
    """Return the processor seconds of our own functions and of all steps, in a run of one rollout."""
    spent, depth = 0.0, 0

    def wrap(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent, depth
            depth, began = depth + 1, time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                depth -= 1
                if not depth:  # what one of ours calls of another is in it already
                    spent += time.process_time() - began

        setattr(owner, name, timed)

    for name in ("gathered_batch", "describe_rows", "groups_with_signal", "loss_weights"):
        wrap(our_trainer, name)
    wrap(EntropyGRPOTrainer, "_choose")
    for owner, names in (
        (KLCov, ("steer",)),
        (ClipCov, ("steer",)),
        (Tally, ("add_pass", "close")),
        (Probe, ("before_rollout", "on_rollout", "on_micro_batch", "end_update")),
    ):
        for name in names:
            wrap(owner, name)
    trainer, watch = trainer_of(variant, setting, folder, 1)
    trainer.train()
    return spent, sum(processor for _, processor in watch.steps)


def peak_mib(variant: str, arguments: list[str]) -> float:
    """Return the peak memory of a process that runs this variant alone."""
    command = [sys.executable, __file__, *arguments, "--only", variant]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder of a model, or random; default: the sandbox's")
    parser.add_argument("--rows", type=int, help="completions per micro-batch; default: 64, with --model 8")
    parser.add_argument("--length", type=int, default=12, help="tokens per completion, with --model")
    parser.add_argument("--layers", type=int, default=32, help="of the random model: 32 make 0.36 B weights")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", help="run one variant once and print what our own functions take")
    parser.add_argument("--only", help="run one variant once and print its peak memory in MiB")
    settings = parser.parse_args()
    for variant in settings.variants:
        if ("plain on-policy" if "on-policy" in variant else "plain") not in settings.variants:
            parser.error(f"--variants: {variant} is compared with a plain variant; name that one too")
    if settings.rollouts < 2:
        parser.error("--rollouts: the first is not counted; give 2 or more")
    torch.set_num_threads(settings.threads)
    quiet()

    def setting() -> Setting:
        if settings.model is None:
            return sandbox_setting(settings.rows or 64)
        return real_setting(settings.model, settings.rows or 8, settings.length, settings.layers)

    with tempfile.TemporaryDirectory() as folder:
        if settings.count:
            ours, steps = counted(settings.count, setting(), folder)
            print(f"{settings.count}: {ours:.3f} of {steps:.1f} s of processor time, {ours / steps:.2%}")
            return
        if settings.only:
            trainer_of(settings.only, setting(), folder, 1 if settings.model else 2)[0].train()
            peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_mb()
            print(json.dumps(peak))
            return
        times = together(settings.variants, setting, folder, settings.rollouts)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"torch {torch.__version__}, {device}, {settings.threads} threads, {load}")
    print(f"{settings.model or 'sandbox'}, {settings.rollouts - 1} rollouts and one before them")
    print(
        f"{'variant':<20}{'ms/step':>9}{'ratio':>7}{'95 %':>16}{'cpu ms':>9}{'ratio':>7}{'95 %':>16}{'peak MiB':>10}"
    )
    arguments = [argument for argument in sys.argv[1:] if argument not in settings.variants]
    arguments = [argument for argument in arguments if argument != "--variants"]
    for variant, steps in times.items():
        base = times["plain on-policy" if "on-policy" in variant else "plain"]
        cells = ""
        for part in (0, 1):
            ratio, low, high = middle(
                [mine[part] / plain[part] for mine, plain in zip(steps, base, strict=True)]
            )
            milliseconds = statistics.median(step[part] for step in steps) * 1e3
            cells += f"{milliseconds:>9.1f}{ratio:>7.3f}{f'{low:.3f} to {high:.3f}':>16}"
        print(f"{variant:<20}{cells}{peak_mib(variant, arguments):>10.0f}")


if __name__ == "__main__":
    main()
