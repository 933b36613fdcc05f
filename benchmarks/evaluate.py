"""Speed of an evaluation of the sandbox model: python benchmarks/evaluate.py [--problems 512] [--samples 8] [--continuous]

Prints samples per minute, of wall and of CPU time, for batches of several sizes: sampling with entropy, and the whole
command (model, samples on disk, grading, intervals). `--continuous` adds transformers' continuous batching, which has no
random numbers per sample. On a machine that others use, CPU time is what an idle one would take.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from entropilot.evaluation.evaluate import assess
from entropilot.evaluation.one_model import Settings, Task
from entropilot.evaluation.protocols import Sampling
from entropilot.evaluation.sampling.sampler import Transformers
from entropilot.inputs.messages import render_prompt
from entropilot.inputs.models import load_model, quiet
from entropilot.recipes.schema import Data, Recipe
from entropilot.sandbox.tasks import CHAINS


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Return wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def show(name: str, count: int, seconds: tuple[float, float]) -> None:
    """Print a line of the table."""
    wall, cpu = seconds
    print(
        f"{name:<34}{count:>9,}{wall:>9.1f}{cpu:>9.1f}{60 * count / wall:>14,.0f}{60 * count / cpu:>14,.0f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=512)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--continuous", action="store_true")
    given = parser.parse_args()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    quiet()
    model, tokenizer = load_model(Recipe(model="sandbox"))
    prompts = [[{"role": "user", "content": p.prompt}] for p in CHAINS.problems("test", given.problems)]
    count = given.problems * given.samples
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'':<34}{'samples':>9}{'wall s':>9}{'CPU s':>9}{'per min wall':>14}{'per min CPU':>14}")
    plan = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 40, "seed": 0}
    for batch in (64, 256, 1024):
        engine = Transformers(model, tokenizer, batch)
        work = lambda engine=engine: list(  # noqa: E731
            engine.draw(prompts, range(len(prompts)), samples=given.samples, **plan)
        )
        show(f"sampling, batch {batch}", count, timed(work))
    with tempfile.TemporaryDirectory() as folder:
        task = Task(
            Data(source="sandbox", split="test", limit=given.problems),
            (Sampling(given.samples, 1.0, 1.0, 40),),
        )
        settings = Settings(out=Path(folder) / "out")
        show("the whole command, batch 256", count, timed(lambda: assess(["sandbox"], [task], settings)))
    if given.continuous:
        from transformers import GenerationConfig

        texts = [render_prompt(prompt, tokenizer) for prompt in prompts[:256]]
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        config = GenerationConfig(
            max_new_tokens=40, do_sample=True, top_k=0, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        work = lambda: model.generate_batch(inputs=ids, generation_config=config)  # noqa: E731
        show("transformers' continuous batching", len(ids), timed(work))


if __name__ == "__main__":
    main()
