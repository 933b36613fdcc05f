"""What every test shares: a machine left as it was found, shapes that are checked, and the hand-worked batch T1."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple

import pytest

# Before anything imports a Hugging Face library: no test may depend on a network.
os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false"
)

# Folders whose tests must run in an install of the core alone.
STATISTICS = {"analysis", "law", "readers", "reports"}
# What only the extra `train` installs. A test file that imports one of them is skipped where torch is missing.
TRAINING = {
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "datasets",
    "peft",
    "jaxtyping",
    "safetensors",
    "tokenizers",
    "tqdm",
}

HAS_TORCH = find_spec("torch") is not None
if HAS_TORCH:
    import torch
    from jaxtyping import install_import_hook

    torch.set_num_threads(1)
    # Every Float[Tensor, "b t"] in these packages is checked at each call (tests/maths/test_tokens.py proves it).
    install_import_hook(["entropilot.maths", "entropilot.methods"], "beartype.beartype")


class ModuleOfTheCore(pytest.Module):
    """Test file in an install without torch: skipped if an import of it needs the extra `train`."""

    def collect(self):
        try:
            return super().collect()
        except self.CollectError as error:
            missing = getattr(error.__cause__, "name", None) or ""
            if missing.split(".")[0] not in TRAINING or STATISTICS & set(self.path.parts):
                raise
            pytest.skip(
                f"{missing} is not installed; pip install 'entropilot[train]'", allow_module_level=True
            )


def _seconds(item: pytest.Item) -> float:
    slow = item.get_closest_marker("slow")
    return slow.kwargs.get("seconds", 0.0) if slow else 0.0


@pytest.hookimpl(trylast=True)  # behind what -m leaves out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, `slow(seconds=…)`, so that no process ends long after the others."""
    items.sort(key=_seconds, reverse=True)


def pytest_collection_finish() -> None:
    """Take what collecting made out of the garbage collector, which every training calls: a quarter of its time here."""
    gc.collect()
    gc.freeze()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect as usual where torch is installed: there a failed import is an error of the test file."""
    return None if HAS_TORCH else ModuleOfTheCore.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of data files that are too large for the repository."""
    place = os.environ.get("ENTROPILOT_DATA")
    if not place:
        pytest.skip("ENTROPILOT_DATA is not set; point it at the folder of data files")
    if not Path(place).is_dir():
        pytest.fail(f"ENTROPILOT_DATA={place} is not a folder")
    return Path(place)


class Result(NamedTuple):
    """What a command line came to: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capfd: pytest.CaptureFixture, tmp_path: Path) -> Callable[..., Result]:
    """Run a command line in this process, in an empty folder."""
    from entropilot.cli import main as cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["entropilot", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return Result(exit_.value.code or 0, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def near() -> Callable:
    """Compare numbers or tensors to 1e-9, and say in words what broke."""

    def compare(actual, expected, what: str, rtol: float = 1e-9, atol: float = 0.0) -> None:
        actual = torch.as_tensor(actual)
        expected = torch.as_tensor(expected, dtype=actual.dtype)
        torch.testing.assert_close(
            actual.detach(), expected.detach(), rtol=rtol, atol=atol, msg=lambda text: f"{what}\n{text}"
        )

    return compare


@pytest.fixture(scope="session")
def unchecked() -> Callable:
    """Load a module a second time without the shape checks, to read the errors that a user reads."""

    def load(name: str):
        spec = spec_from_file_location(f"unchecked.{name}", find_spec(name).origin)
        module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def t1() -> Callable:
    """Make T1, worked by hand: 2×3 tokens, one of them padding, mixed signs, nothing zero, float64.

    N = 5; mean A = (2·1.5 − 3·0.5)/5 = 0.3; mean log π = −6/5 = −1.2, so that
    Cov = [[1.1·1.2, −0.8·1.2, padding], [0.2·−0.8, 1.0·−0.8, −1.5·−0.8]]
        = [[1.32,    −0.96,    padding], [−0.16,    −0.80,    1.20     ]],  Σ = 0.60
    log-ratio = [[0.1, 0, padding], [0.3, 0, −0.4]].
    """
    from entropilot.maths.tokens import TokenBatch

    def make(padding: float | None = None, dtype: torch.dtype = torch.float64) -> TokenBatch:
        logp = torch.tensor([[-0.1, -2.0, -0.5], [-1.0, -0.2, -2.7]], dtype=dtype)
        old = torch.tensor([[-0.2, -2.0, -0.4], [-1.3, -0.2, -2.3]], dtype=dtype)
        advantages = torch.tensor([[1.5, 1.5, 1.5], [-0.5, -0.5, -0.5]], dtype=dtype)
        mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        if padding is not None:
            for values in (logp, old, advantages):
                values[0, 2] = padding
        return TokenBatch(old_logp=old, logp=logp.requires_grad_(), advantages=advantages, mask=mask)

    return make
