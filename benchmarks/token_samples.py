"""What token samples cost: python benchmarks/token_samples.py [--recipe recipes/quickstart_grpo.yaml --pairs 20]

Trains by the recipe, and counts the processor time of everything that a token sample does. The fixed prompts are drawn in
the batches of a validation; what they add to it is measured on the trained model, by validations with and without them in
turn. Processor time, because a busy machine changes it less than the clock.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from entropilot.inputs.models import quiet
from entropilot.recipes.schema import load_recipe
from entropilot.recording.token_samples import TokenSamples
from entropilot.training.plan import check
from entropilot.training.prepare import prepare

SPENT = {"samples": 0.0}


def counted(name: str) -> None:
    """Add the processor time of a method of `TokenSamples` to what samples cost."""
    method = getattr(TokenSamples, name)

    def timed(*given: Any) -> None:
        began = time.process_time()
        method(*given)
        SPENT["samples"] += time.process_time() - began

    setattr(TokenSamples, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, default=Path("recipes/quickstart_grpo.yaml"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--pairs", type=int, default=20)
    settings = parser.parse_args()
    quiet()
    for name in ("on_rollout", "finish"):
        counted(name)
    with tempfile.TemporaryDirectory() as folder:
        overrides = [] if settings.steps is None else [f"grpo.max_steps={settings.steps}"]
        trainer, probe = prepare(
            check(load_recipe(settings.recipe, overrides), Path(folder)), None, None, None
        )
        began = time.process_time()
        trainer.train()
        training = time.process_time() - began
        samples = len(list((Path(folder) / "tokens").iterdir()))
        size = sum(file.stat().st_size for file in (Path(folder) / "tokens").iterdir())
    engine, validation, fixed = probe._engine, probe.validation, probe._tokens.fixed
    assert engine is not None and validation is not None and fixed is not None
    added = []
    for pair in range(settings.pairs):
        spent = {}
        for rows in ((), fixed.repeated) if pair % 2 else (fixed.repeated, ()):
            began = time.process_time()
            validation.measure(engine, rows)
            spent[len(rows) > 0] = time.process_time() - began
        added.append(spent[True] - spent[False])
    shared, error = mean(added), stdev(added) / len(added) ** 0.5
    rest = training - SPENT["samples"] - samples * shared
    print(f"training            {training:.1f} s of processor time, {samples} samples, {size / 1e6:.2f} MB")
    print(f"scoring, writing    {SPENT['samples']:.2f} s, {100 * SPENT['samples'] / rest:.2f} %")
    print(f"shared generation   {shared:.3f} ± {error:.3f} s each, {100 * samples * shared / rest:.2f} %")
    print(
        f"together            {100 * (SPENT['samples'] + samples * shared) / rest:.2f} % of a training without samples"
    )
    print(f"load                {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
