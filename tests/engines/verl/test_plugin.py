"""What verl loads: the entry point, what it registers and when, its loud failure, and the examples' configurations."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[3]
SEEN = """
import json, sys
import verl
early = [name for name in sys.modules if name.startswith("entropilot.engines.verl.")]
heavy = [name for name in ("verl.workers.engine", "verl.trainer.ppo.core_algos") if name in sys.modules]
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY as estimators
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY as losses
from verl.workers.engine import EngineRegistry
from verl.trainer.ppo.v1 import trainer_base
print(json.dumps({
    "early": early, "heavy": heavy, "losses": [name for name in losses if "entropilot" in name],
    "engine": EngineRegistry.get_engine_cls("language_model", "fsdp2").__name__,
    "critic": EngineRegistry.get_engine_cls("value_model", "fsdp2").__name__,
    "estimators": [name for name in estimators if "entropilot" in name],
    "trainers": [name for name in trainer_base.TRAINER_REGISTRY if "entropilot" in name],
}))
"""


def verl_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("verl")
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "VERL_ENGINE_DEVICE": "cuda", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_import_verl_registers_everything_when_verl_has_it() -> None:
    done = verl_process(SEEN)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["early"] == ["entropilot.engines.verl.plugin"] and seen["heavy"] == []
    tokens = ["entropilot_clip_cov", "entropilot_kl_cov", "entropilot_stare"]
    assert seen["losses"] == [*tokens, "entropilot_repo"]
    assert seen["estimators"] == ["entropilot_qae", "entropilot_w_reinforce"]
    assert (seen["engine"], seen["critic"]) == ("ChoosingEngine", "FSDPEngineWithValueHead")
    assert seen["trainers"] == ["entropilot_sync"]


def test_a_failure_is_loud_and_does_not_stop_another_job(tmp_path) -> None:
    """verl reports a plug-in that fails at debug level only. Here jaxtyping is broken, as by a half-finished install."""
    (tmp_path / "jaxtyping.py").write_text("raise ImportError('broken on purpose')\n")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    code = (
        "import verl\nfrom verl.trainer.ppo.core_algos import get_policy_loss_fn\nget_policy_loss_fn('vanilla')\n"
        "print('another job goes on')\nget_policy_loss_fn('entropilot_kl_cov')"
    )
    done = verl_process(code, PYTHONPATH=path)
    assert done.stdout.endswith("another job goes on\n") and done.returncode != 0
    assert (
        "entropilot could not extend verl.trainer.ppo.core_algos of verl 0.9.1 (ImportError: broken"
        in done.stderr
    )


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("verl_*.sh")), ids=lambda path: path.stem)
def test_the_settings_of_an_example_are_verls(example: Path) -> None:
    """Composed by Hydra over verl's own configuration: an option that verl does not have is an error there."""
    pytest.importorskip("verl")
    import verl.trainer
    from hydra import compose, initialize_config_dir

    lines = example.read_text().partition("main_ppo \\\n")[2].replace("\\\n", "\n").splitlines()
    overrides = [line.strip() for line in lines if "=" in line]
    values = {"DATA": "/data", "MODEL": "model", "GPUS": "8", "NODES": "1", "NAME": "name"}
    overrides = [
        re.sub(r'"?\$(\w+)(/[\w.]+)?"?', lambda m: values[m[1]] + (m[2] or ""), text) for text in overrides
    ]
    with initialize_config_dir(str(Path(verl.trainer.__file__).parent / "config"), version_base=None):
        config = compose("ppo_trainer", [text.replace("'", "") for text in overrides])
    actor = config.actor_rollout_ref.actor
    assert actor.strategy == "fsdp2"
    assert config.data.train_batch_size // actor.ppo_mini_batch_size == 8  # updates per rollout, as published
