"""Runs to report on, as a training would have written them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from entropilot.records import Run, RunWriter, read_run, write_tokens


def sample(rows: int, text: str) -> dict[str, list]:
    return {
        "step": [20] * rows,
        "prompt": [f"{text} prompt"] * rows,
        "completion": [text] * rows,
        "reward": [1.0] * rows,
        "tokens": [[text, "\n", ""]] * rows,
        "logp": [[-0.125, -1.0, -2.0]] * rows,
        "entropy": [[0.01, 0.75, 3.0]] * rows,
        "advantage": [[0.5, 0.5, 0.5]] * rows,
        "covariance": [[0.25, -0.1, 0.2]] * rows,
        "chosen": [[True, False, False]] * rows,
    }


def _make_run(
    folder: Path, name: str = "demo", *, tokens: bool = True, end: str | None = "finished", a: float = 0.2
) -> Run:
    header = {
        "name": name,
        "recipe": {"method": name, "method_args": {name: name}, "model": name},
        "clip": {"low": 0.2, "high": None, "source": "method"},
        "metrics": {
            "entropy/policy_T1": {"unit": "nats", "definition": f"Eq. 5 {name}"},
            name: {"unit": name},
        },
    }
    writer = RunWriter(folder, header)
    for step in range(1, 21):
        h = 1.2 - 0.05 * step
        row = {"rollout": step, "entropy/policy_T1": h, "reward/mean": 0.4, "seconds/step": 1.0}
        writer.row(step, row | {"validation/accuracy": 0.8 - a * math.exp(h) + 0.01 * (-1) ** step})
    writer.row(21, {"validation/accuracy": 0.61})
    if end:
        writer.end(end)
    writer.close()
    if tokens:
        write_tokens(folder, 9, sample(3, "an older sample") | {"step": [9] * 3})
        write_tokens(folder, 20, sample(14, name.encode("utf-8", "replace").decode()))
    return read_run(folder)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """Write a run of 20 steps that follows the law with `a`, and its token samples; read it back."""
    return _make_run


@pytest.fixture(scope="session")
def token_columns() -> Callable[[int, str], dict[str, list]]:
    """Make the columns of a token sample: so many completions of three tokens."""
    return sample
