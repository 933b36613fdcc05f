"""Train runs that end at an hour of the clock and are taken up again where they were cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from entropilot.errors import UserError
from entropilot.files import written_whole
from entropilot.training.resume import last_checkpoint
from experiments.runs import ENVIRONMENT, finished, recipe

EVERY = 40  # updates between two checkpoints; ten whole rollouts, so that a resumed run is the run it would have been


class OutOfTime(Exception):  # noqa: N818 - no error: the study goes on another time
    """The hour has come."""


def hour(text: str) -> datetime:
    """Return today's time HH:MM."""
    return datetime.combine(datetime.now().date(), datetime.strptime(text, "%H:%M").time())


def arm(name: str, seed: int, limit: int, updates: int, *overrides: str) -> dict[str, Any]:
    """Return a recipe of this repository in the study's setting; the seed draws the prompts, too."""
    return recipe(
        name,
        f"seed={seed}",
        f"data.limit={limit}",
        f"data.seed={seed}",
        f"grpo.max_steps={updates}",
        f"grpo.save_steps={EVERY}",
        "grpo.save_total_limit=2",
        *overrides,
    )


def train(run: Path, values: dict[str, Any], until: datetime | None = None) -> Path:
    """Train a recipe into the folder `run` unless that is done, from its last checkpoint where it has one.

    Returns:
        The model's folder.

    Raises:
        OutOfTime: the hour came first; the run is interrupted and can be taken up again.
        UserError: the folder holds a run of another recipe, or training failed.
    """
    written = run.with_name(f"{run.name}.yaml")
    if written.exists() and yaml.safe_load(written.read_text()) != values:
        raise UserError(f"{run} holds a run of another recipe; choose another --out, or remove it.")
    if finished(run):
        return run / "model"
    if until is not None and datetime.now() >= until:
        raise OutOfTime
    # A shell starts what runs in the background with SIGINT ignored, and so would be the training.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with written_whole(written) as file:
        file.write(yaml.safe_dump(values, sort_keys=False).encode())
    resume = run.exists() and last_checkpoint(run / "checkpoints") is not None
    if run.exists() and not resume:
        run.rename(run.with_name(f"{run.name}.cut-{time.time_ns()}"))  # nothing is thrown away
    arguments = [
        "-m",
        "entropilot",
        "train",
        str(written),
        "--out",
        str(run),
        *(["--resume"] if resume else []),
    ]
    with run.with_name(f"{run.name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], env=os.environ | ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            process.wait(None if until is None else (until - datetime.now()).total_seconds())
        except subprocess.TimeoutExpired:
            raise OutOfTime from None
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(120)
    if process.returncode:
        raise UserError(f"Training {run.name} failed (code {process.returncode}); see {log.name}.")
    return run / "model"
