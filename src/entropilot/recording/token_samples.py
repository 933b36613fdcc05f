"""Write sampled completions token by token, with what the probe knows of each token."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entropilot.engine_view import EngineView
from entropilot.maths.covariance import token_covariance
from entropilot.recording.observer import Rollout
from entropilot.records import write_tokens
from entropilot.rewards.groups import named_group_rewards


def write_token_sample(folder: Path, engine: EngineView, rollout: Rollout, step: int, rows: int) -> None:
    """Write the first `rows` completions of this rank's rollout to `folder`/tokens."""
    output, batch = rollout.output, rollout.batch
    covariance = token_covariance(batch.logp, batch.advantages, rollout.eligible)
    chosen = torch.zeros_like(batch.mask) if rollout.selected is None else rollout.selected
    per_token: dict[str, Tensor | None] = {
        "logp": batch.logp,
        "entropy": batch.entropy,
        "advantage": batch.advantages,
        "covariance": covariance,
        "chosen": chosen,
    }
    columns: dict[str, list[Any]] = defaultdict(list)
    decode = engine.tokenizer.decode
    for row in range(min(rows, len(output["completion_ids"]))):
        place = rollout.first_row + row
        mask = output["completion_mask"][row].bool()
        ids = output["completion_ids"][row][mask].tolist()
        columns["step"].append(step)
        columns["prompt"].append(decode(output["prompt_ids"][row][output["prompt_mask"][row].bool()]))
        columns["completion"].append(decode(ids))
        columns["reward"].append(rollout.rewards[place].item())
        columns["tokens"].append([decode([token]) for token in ids])
        for name, values in per_token.items():
            columns[name].append([] if values is None else values[place, : len(mask)][mask].tolist())
        for label, reward in named_group_rewards(engine.rewards).items():
            end = "" if label is None else f"/{label}"
            columns[f"cluster{end}"].append(reward.labels[row])
            columns[f"answer{end}"].append(reward.answers[row])
    write_tokens(folder, step, columns)
