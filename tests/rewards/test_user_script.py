"""The script of examples/scrl.py as a user runs it, with our trainer and with TRL's own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from entropilot.inputs.models import load_model
from entropilot.recipes.schema import Recipe
from entropilot.rewards.named import scrl_math
from entropilot.rewards.visits import Visits

SCRIPT = Path(__file__).parents[2] / "examples" / "scrl.py"
OURS, TRLS = "from entropilot import EntropyGRPOTrainer", "from trl import GRPOTrainer as EntropyGRPOTrainer"


@pytest.mark.slow
@pytest.mark.parametrize("plain", [False, True])
def test_it_trains(plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 25 and text.count(OURS) == 1
    model, tokenizer = load_model(Recipe(model="sandbox"))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(scrl_math, "_said", False)
    monkeypatch.setattr(scrl_math, "visits", Visits())
    monkeypatch.setattr("sys.argv", ["scrl.py", str(tmp_path / "model"), str(tmp_path / "out"), "2"])
    quiet = 'output_dir=sys.argv[2], use_cpu=True, report_to="none", save_strategy="no",'
    text = text.replace("output_dir=sys.argv[2],", quiet).replace(
        "max_completion_length=64", "max_completion_length=8"
    )
    with caplog.at_level(logging.WARNING, logger="entropilot"):
        exec(
            compile(text.replace(OURS, TRLS) if plain else text, "scrl.py", "exec"), {"__name__": "__main__"}
        )
    said = [
        record.getMessage() for record in caplog.records if "labels positives only" in record.getMessage()
    ]
    assert len(said) == int(plain), "TRL's trainer hands no entropies to rewards, and that is said once"
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert scrl_math.visits.state()["winners"], "two updates, whose prompts were voted on"
