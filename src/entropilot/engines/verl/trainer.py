"""verl's synchronous trainer with rewards of whole groups (EMPO, majority) in the place of per-sample ones.

verl scores samples one by one, each in one of several reward workers, and hands an advantage estimator the scores
alone. Only the trainer sees a whole batch with its texts, so this is where groups are rewarded: after sampling, which
takes whole prompts, and before verl's own advantage estimator.
"""

from __future__ import annotations

from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer

from entropilot.engines.verl.groups import Response, build_group_reward, score_groups

NAME = "entropilot_sync"
_FIELDS = ["uid", "responses", "raw_prompt", "rm_scores"]


class GroupRewardTrainer(PPOTrainerSync):
    """`PPOTrainerSync` whose training rewards are those of whole groups; validation keeps verl's own.

    What verl's reward function scored in training is logged as `label/score_mean` and used for nothing else.
    """

    def __init__(self, config: DictConfig) -> None:
        section = config.trainer.v1.get("entropilot") or {}
        settings: Any = OmegaConf.to_container(section, resolve=True) if section else {}
        self.group_reward = build_group_reward(settings)  # a wrong setting is refused before anything starts
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # verl compares this name in several places
        super().__init__(config)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        self._reward_groups(batch, metrics)
        return super()._compute_advantage(batch, metrics)

    def _reward_groups(self, batch: KVBatchMeta, metrics: dict) -> None:
        """Replace the scores in verl's queue by those of the groups; rows that only fill the batch score 0."""
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=_FIELDS)
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in data["responses"].unbind()]
        real = [row for row, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
        uids, prompts = list(data["uid"]), list(data["raw_prompt"])
        responses = []
        for row in real:
            _, session, turn = batch.keys[row].rsplit("_", 2)  # verl's keys: prompt, session, turn
            responses.append(Response(str(uids[row]), session, int(turn), prompts[row], texts[row]))
        scores, logged = score_groups(responses, self.group_reward, self.config.actor_rollout_ref.rollout.n)
        labelled = data["rm_scores"].unbind()
        metrics.update(logged)
        metrics["label/score_mean"] = sum(float(labelled[row].sum()) for row in real) / max(1, len(real))
        rows = [torch.zeros_like(row) for row in labelled]
        for row, score in zip(real, scores, strict=True):
            rows[row][-1] = score
        fields = TensorDict(
            {"rm_scores": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}, batch_size=len(rows)
        )
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)


def register() -> None:
    """Register the trainer as `trainer.v1.trainer_mode=entropilot_sync`."""
    register_trainer(NAME)(GroupRewardTrainer)
