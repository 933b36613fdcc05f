"""Logs to read: one that the real TRL writes while the tests run, recorded ones, and lines of verl made by hand."""

from __future__ import annotations

import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # record_verl.py, train_trl.py

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def trl_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of 4 steps of GRPO, with TensorBoard's events in it."""
    pytest.importorskip("trl")
    from train_trl import train

    folder = tmp_path_factory.mktemp("trl") / "demo"
    train(folder, ["tensorboard"])
    return folder


@pytest.fixture
def trackio_db(tmp_path: Path) -> Path:
    path = tmp_path / "sandbox.db"
    path.write_bytes(lzma.decompress((DATA / "trackio.db.xz").read_bytes()))
    return path


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of given text or bytes and return its path."""

    def write(text: str | bytes, name: str = "train.log") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write
