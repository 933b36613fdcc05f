"""Start a program on two gloo ranks of this machine, as torchrun does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Ranks:
    """Two processes with the environment of a launcher, their output in files."""

    def __init__(self, command: list[str], folder: Path, *, ranks: int = 2, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shared = {
            "WORLD_SIZE": ranks,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": free_port(),
            "OMP_NUM_THREADS": 1,
        }
        paths = [
            str(Path(__file__).parents[1] / place) for place in ("training", "engines/trl", "distributed")
        ]
        shared |= {
            "ACCELERATE_USE_CPU": "true",
            "PYTHONPATH": os.pathsep.join([*sys.path, *paths]),
        } | environment
        self.logs, self.processes = [], []
        for rank in range(ranks):
            variables = {key: str(value) for key, value in shared.items()}
            variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            self.logs.append(folder / f"rank{rank}.log")
            with self.logs[-1].open("w") as log:
                self.processes.append(
                    subprocess.Popen(
                        command, env=os.environ | variables, stdout=log, stderr=subprocess.STDOUT
                    )
                )

    def wait(self, seconds: float = 240) -> list[int]:
        """Return the exit codes; a hang is a failure."""
        deadline = time.monotonic() + seconds
        try:
            return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
                process.wait()

    def said(self) -> list[str]:
        return [log.read_text() for log in self.logs]


def until(condition: Any, seconds: float = 120) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
