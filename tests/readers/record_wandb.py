"""Record a small `.wandb` file, offline: python tests/readers/record_wandb.py OUT, in an environment with wandb.

H = 1.25 − 0.125·step, the score is step/8 (NaN at step 3), and every second step is validated with step/10 right. A text
of 40,000 characters at step 4 makes a record that goes over a block.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path


def main() -> None:
    out = Path(sys.argv[1])
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_DIR=str(out))
    import wandb

    settings = wandb.Settings(
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        disable_git=True,
        disable_code=True,
        console="off",
        host="host",
        username="user",
        root_dir=str(out),
    )
    with wandb.init(project="demo", name="kl-cov seed 3", id="abc123", settings=settings) as run:
        for step in range(1, 7):
            score = math.nan if step == 3 else step / 8
            row = {"actor/entropy": 1.25 - 0.125 * step, "critic/score/mean": score, "timing": {"gen": step}}
            if step % 2 == 0:
                row["val-core/math/acc/mean@8"] = step / 10
            if step == 4:
                row["text"] = "x" * 40_000
            run.log(row, step=step)


if __name__ == "__main__":
    main()
