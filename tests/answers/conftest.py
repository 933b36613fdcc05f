"""What the tests of answers share: the math judge with its warm pool, and the processes that must not be left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest

from entropilot.answers.judge import Judge
from entropilot.answers.judges import build_judge


@pytest.fixture(scope="session")
def math_judge() -> Iterator[Judge]:
    """The math judge; its workers are the process-wide ones and stay warm between tests."""
    if find_spec("math_verify") is None:
        pytest.skip("math-verify is not installed; pip install 'entropilot[math]'")
    from entropilot.answers.math.pool import shared_pool

    yield build_judge("math")
    shared_pool().close()


@pytest.fixture(scope="session")
def alive() -> Callable[[int], bool]:
    """Whether a process of that id runs; one that is dead and not yet collected does not."""

    def look(pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            os.kill(pid, 0)
            return True

    return look
