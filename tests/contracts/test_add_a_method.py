"""A token method of another package is trained with from the command line; nothing in `src/` is edited for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from entropilot.methods import registry
from entropilot.records import read_run

pytest.importorskip("torch")

METHOD = '''
"""A token method in a package of its own."""

from dataclasses import dataclass
from typing import ClassVar

from entropilot.methods import Steering


@dataclass(frozen=True)
class FirstTokens:
    """Stop the gradient of the first `count` tokens of every completion."""

    count: int = 1
    scope: str = "rollout"
    clip_low: float | None = 0.2
    clip_high: float | None = 0.2
    count_zero_groups: bool = True

    draws: ClassVar[bool] = False
    needs_stale_logp: ClassVar[bool] = False

    def select(self, batch, generator):
        return batch.mask & (batch.mask.cumsum(1) <= self.count)

    def steer(self, batch, selected):
        return Steering(detach=selected)
'''
RECIPE = """
name: mine
data: {limit: 64}
validate: null
probe: {tokens_every: 0}
grpo:
  per_device_train_batch_size: 16
  steps_per_generation: 2
  num_generations: 4
  max_completion_length: 20
  max_steps: 2
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out an installed package with one method and one entry point, and a recipe beside it."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "first_tokens.py").write_text(METHOD)
    info = folder / "first_tokens-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: first-tokens\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[entropilot.methods]\nfirst_tokens = first_tokens:FirstTokens\n")
    (folder / "mine.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def outside(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the package on the path of this process, as an installed one is."""
    monkeypatch.syspath_prepend(package)
    registry._outside.cache_clear()
    yield
    registry._outside.cache_clear()


@pytest.mark.usefixtures("outside")
def test_a_method_from_outside_is_trained_by_its_path(package: Path, run, tmp_path: Path) -> None:
    """32 completions, each at least two tokens long here: the method chooses the first two of each, 64 a rollout."""
    arguments = ("method=first_tokens:FirstTokens", "method_args.count=2", "--out", "run")
    result = run("train", package / "mine.yaml", *arguments)
    assert result.code == 0, result.err
    record = read_run(tmp_path / "run")
    assert record.header["recipe"]["method"] == "first_tokens:FirstTokens"
    assert record.header["clip"] == {"low": 0.2, "high": 0.2, "source": "method"}
    assert record.column("chosen/tokens") == [(1, 64)]  # in the row of the rollout's first update
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.fixture
def check(package: Path, run, outside: None) -> Callable[..., Any]:
    """Check the recipe in this process."""
    return lambda *overrides: run("check", package / "mine.yaml", *overrides)


def test_an_entry_point_gives_it_a_name(check) -> None:
    result = check("method=first_tokens", "method_args.count=3")
    assert result.code == 0, result.err
    assert "method:               FirstTokens(count=3, scope='rollout'" in result.out


def test_its_settings_are_checked_as_ours_are(check) -> None:
    result = check("method=first_tokens", "method_args.cuont=3")
    assert result.code == 2
    assert "method_args.cuont does not exist for first_tokens (did you mean method_args.count?)" in result.err
