"""The configurations for accelerate that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from entropilot.cli.main import app
from entropilot.errors import UserError

NAMES = ("fsdp2", "multi_cpu", "multi_gpu", "zero2", "zero3")


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_reads_it(name: str) -> None:
    config = pytest.importorskip(
        "accelerate.commands.config.config_args", reason="accelerate is not installed"
    )
    result = CliRunner().invoke(app, ["launch-config", name], catch_exceptions=False)
    path = Path(result.stdout.strip())
    read = config.load_config_from_file(str(path))
    expected = {"fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}.get(name, "MULTI_GPU")
    assert read.distributed_type.name == expected
    values = yaml.safe_load(path.read_text())
    assert values["use_cpu"] == (name == "multi_cpu")
    assert values.get("deepspeed_config", {}).get("zero_stage") == {"zero2": 2, "zero3": 3}.get(name)
    assert values.get("fsdp_config", {}).get("fsdp_version") == (2 if name == "fsdp2" else None)


def test_another_name_is_refused() -> None:
    with pytest.raises(
        UserError, match="'fsdp' does not exist; choose one of: fsdp2, multi_cpu, multi_gpu, zero2, zero3"
    ):
        CliRunner().invoke(app, ["launch-config", "fsdp"], catch_exceptions=False)
