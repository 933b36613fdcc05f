"""A real local Ray cluster: workers that load the plug-in by its entry point, and the trainer's step over verl's queue."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("verl")
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    inherited = os.environ.get("PYTHONPATH", "")
    environment = {
        "VERL_USE_EXTERNAL_MODULES": "verl_on_cpu",  # sets the platform; the plug-in comes by its entry point alone
        "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), inherited))),
        "VERL_ENGINE_DEVICE": "cuda",
        "OMP_NUM_THREADS": "1",
    }
    ray.init(
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        runtime_env={"env_vars": environment},
    )
    yield ray
    ray.shutdown()


def test_a_worker_has_our_losses_engine_and_trainer(cluster) -> None:
    @cluster.remote
    def look() -> list[str]:
        from verl.trainer.ppo.core_algos import get_policy_loss_fn
        from verl.trainer.ppo.v1 import get_trainer_cls
        from verl.workers.engine import EngineRegistry

        return [
            get_policy_loss_fn("entropilot_kl_cov").__name__,
            EngineRegistry.get_engine_cls("language_model", "fsdp2").__name__,
            get_trainer_cls("entropilot_sync").__name__,
        ]

    assert cluster.get(look.remote()) == ["steered_loss", "ChoosingEngine", "GroupRewardTrainer"]


def test_the_trainer_turns_answers_in_verls_queue_into_advantages(cluster) -> None:
    """Two prompts, rows mixed, one row that only fills the batch: rewards 3/4, 3/4, 3/4, 1/4 and 2/4 in pairs."""
    import torch
    import transfer_queue as tq
    from omegaconf import OmegaConf
    from transfer_queue import KVBatchMeta
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    from entropilot.engines.verl.groups import build_group_reward
    from entropilot.sandbox.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    answers = {"a": ["7", "7", "7", "8"], "b": ["1", "2", "1", "2"]}
    rows = [
        (f"{uid}_{session}_0", uid, text)
        for uid, texts in answers.items()
        for session, text in enumerate(texts)
    ]
    rows = [rows[index] for index in (4, 0, 7, 2, 5, 1, 3, 6)] + [("pad0_0_0", "pad0", "7")]
    fields = []
    for number, (_, uid, text) in enumerate(rows):
        ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
        fill = number == len(rows) - 1
        fields.append(
            {
                "uid": uid,
                "responses": ids,
                "raw_prompt": [{"role": "user", "content": f"question {uid}"}],
                "rm_scores": torch.full(ids.shape, 0.25),
                "response_mask": torch.zeros_like(ids) if fill else torch.ones_like(ids),
                "old_log_probs": torch.full(ids.shape, -1.0),
            }
        )
    tq.init()
    keys = [key for key, _, _ in rows]
    tags = [{"is_padding": number == len(rows) - 1} for number in range(len(rows))]
    tq.kv_batch_put(keys=keys, fields=list_of_dict_to_tensordict(fields), tags=tags, partition_id="train")

    trainer = object.__new__(
        get_trainer_cls("entropilot_sync")
    )  # without the GPUs that verl's own start needs
    trainer.tokenizer = tokenizer
    trainer.group_reward = build_group_reward({"reward": "empo", "judge": "exact", "extract": "last_line"})
    trainer.config = OmegaConf.create(
        {
            "algorithm": {"adv_estimator": "grpo", "use_kl_in_reward": False, "gamma": 1.0, "lam": 1.0},
            "actor_rollout_ref": {"rollout": {"n": 4}},
        }
    )
    metrics: dict = {}
    batch = KVBatchMeta(partition_id="train", keys=keys, tags=tags)
    trainer._compute_advantage(batch, metrics)
    after = tq.kv_batch_get(keys=keys, partition_id="train", select_fields=["rm_scores", "advantages"])
    scores = [float(row.sum()) for row in after["rm_scores"].unbind()]
    assert scores == [0.5, 0.75, 0.5, 0.75, 0.5, 0.75, 0.25, 0.5, 0.0]
    advantages = [float(row[0]) for row in after["advantages"].unbind()]
    assert advantages[:8] == pytest.approx(
        [0, 0.5, 0, 0.5, 0, 0.5, -1.5, 0], abs=1e-4
    )  # std of 3/4 thrice and 1/4: 1/4
    assert metrics["label/score_mean"] == pytest.approx(0.25) and metrics["semantic/majority_share"] == 0.625
    tq.close()
