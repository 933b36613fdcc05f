"""Record what verl's own loggers write, in verl's environment (see tests/parity/record_verl_cov.py for it):

    python tests/readers/record_verl.py OUT

Metrics are made by verl's own functions on CPU (`process_validation_metrics`, `reduce_metrics`), so that they have the
types of a training; `verl.utils.tracking.Tracking` writes them to `OUT/verl_file.jsonl` and prints them from a Ray
actor named TaskRunner, whose output Ray forwards to `OUT/verl_console.log` with its prefix and colours, a progress bar
between. Six steps, validation before the first and after every second.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CORE = ("mean", "maj@", "best")  # as ray_trainer.py sorts them


def metrics(step: int) -> dict:
    """Return the metrics of a step: step 0 is the validation before training."""
    import numpy as np
    from verl.trainer.ppo.metric_utils import process_validation_metrics
    from verl.utils.metric import reduce_metrics

    found: dict = {}
    if step:
        found |= {"actor/entropy": 1.25 - 0.125 * step, "perf/mfu/actor_infer": 0.0}
        passes = {
            "actor/pg_loss": [0.5 / step, -0.25],
            "actor/grad_norm": [1.0, 0.5],
            "actor/lr": [1e-06, 1e-06],
        }
        found |= reduce_metrics(passes)
    if step % 2 == 0:
        right = [float(problem < step) for problem in range(8) for _ in range(2)]
        names = [str(problem) for problem in range(8) for _ in range(2)]
        table = process_validation_metrics(["openai/gsm8k"] * 16, names, {"acc": right, "reward": right})
        found |= {
            f"{'val-core' if var == 'acc' and name[:4] in CORE else 'val-aux'}/openai/gsm8k/{var}/{name}": value
            for var, by_name in table["openai/gsm8k"].items()
            for name, value in by_name.items()
        }
    if step:
        score = 0.125 * step
        found |= {
            "training/global_step": step,
            "training/epoch": 0,
            "critic/score/mean": score,
            "critic/rewards/mean": score - 0.0625,
            "response/aborted_ratio": 0.0,
            "critic/advantages/max": float("nan") if step == 3 else np.float32(1.5),
            "timing_s/step": 38.25,
            "perf/total_num_tokens": 4096,
        }
    return found


def train(out: str) -> None:
    """Log as a training does, from a Ray actor."""
    import ray

    ray.init(num_cpus=1, include_dashboard=False, configure_logging=False)

    @ray.remote
    class TaskRunner:
        def run(self) -> None:
            sys.path.insert(0, str(Path(out, "script")))
            from record_verl import metrics
            from tqdm import tqdm
            from verl.utils.tracking import Tracking

            tracking = Tracking("demo", "run", ["console", "file"], config={})
            print("{'trainer': {'logger': ['console', 'file'], 'test_freq': 2}}")  # noqa: T201
            bar = tqdm(total=6, desc="Training Progress")
            for step in range(7):
                tracking.log(metrics(step), step=step)
                bar.update(int(step > 0))
            print("Final validation metrics: {'val-core/openai/gsm8k/acc/mean@2': np.float64(0.75)}")  # noqa: T201

    ray.get(TaskRunner.remote().run.remote())
    import time

    time.sleep(3)  # Ray forwards output with a delay
    ray.shutdown()


def main() -> None:
    if len(sys.argv) == 3:
        train(sys.argv[2])
        return
    out = Path(sys.argv[1]).resolve()
    (out / "script").mkdir(parents=True, exist_ok=True)
    (out / "script" / "record_verl.py").write_text(Path(__file__).read_text())
    environment = os.environ | {"VERL_FILE_LOGGER_PATH": str(out / "verl_file.jsonl")}
    done = subprocess.run(
        [sys.executable, str(out / "script" / "record_verl.py"), "train", str(out)],
        env=environment,
        cwd=out,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    (out / "verl_console.log").write_bytes(done.stdout)


if __name__ == "__main__":
    main()
