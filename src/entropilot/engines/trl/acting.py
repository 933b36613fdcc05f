"""Let methods act on a rollout before it is trained on: change their settings, and give its advantages."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from entropilot.engines.trl.columns import loss_mask
from entropilot.maths.entropy import policy_entropy
from entropilot.methods.adaptive import Reading
from entropilot.methods.advantage_method import RewardBatch

# Under this name `TrainerState.stateful_callbacks`, and with it every checkpoint, holds what methods remember.
MEMORY = "entropilot_methods"


def act_on_rollout(
    trainer: Any, output: dict[str, Any], rewards: Tensor, rows: slice, logp: Tensor, entropy: Tensor
) -> dict[str, float]:
    """Set the trainer's method as it acts on a rollout, and the rollout's advantages; return what to record of both.

    Every rank sees the same numbers of all ranks, so all of them do the same.

    Args:
        trainer: an `EntropyGRPOTrainer` with methods that read the rollout.
        output: this rank's rollout; its advantages are replaced where there is an advantage method.
        rewards: of all ranks, (n,), NaN where nothing scored the completion.
        rows: this rank's among the n.
        logp: this rank's log-probs at the policy that sampled, nats, (b, t).
        entropy: likewise.
    """
    width = logp.shape[1]
    logp, entropy, counted = map(trainer._gathered, (logp, entropy, loss_mask(output).int()))
    mask = counted.bool()
    total, count = policy_entropy(entropy, mask)
    reading = Reading((total / count.clamp(min=1)).item(), trainer.state.global_step, trainer.state.max_steps)
    # In the trainer's state, so that a checkpoint holds it and a resumed run goes on from it.
    kept: dict[str, Any] = trainer.state.stateful_callbacks
    before = kept.get(MEMORY, {}).get("after", {})
    acting, after = trainer.stack.adapt(before, reading)
    kept[MEMORY] = {"before": before, "reading": asdict(reading), "after": after}
    trainer.method, trainer._acting = acting.token, True
    adapted = {name: value for memory in after.values() for name, value in memory.items()}
    if acting.advantage is not None:
        estimated = trainer._gathered(output["advantages"])
        batch = RewardBatch(rewards, trainer.num_generations, estimated, logp, mask, entropy)
        estimate = acting.advantage.estimate(batch)
        per_row = estimate.advantages.ndim == 1
        unscored = rewards.isnan() if per_row else rewards.isnan().unsqueeze(1)
        advantages = estimate.advantages.masked_fill(unscored, 0.0)
        output["advantages"] = (advantages if per_row else advantages[:, :width])[rows].to(estimated)
        shown = advantages if per_row else advantages.sum(1) / mask.sum(1).clamp(min=1)
        trainer._logs["advantages"].extend(shown.tolist())  # in place of TRL's; of a row per token its mean
        adapted |= estimate.counts
    named = {f"adapted/{name}": value for name, value in adapted.items()}
    if trainer.observer is None:  # an observer logs it itself
        for name, value in named.items():
            trainer._metrics["train"][name].append(value)
    return named


def act_again(trainer: Any) -> None:
    """Set the trainer's method as it acts on the rollout that a checkpoint was written in the middle of."""
    kept = trainer.state.stateful_callbacks.get(MEMORY)
    if kept is not None:
        acting, _ = trainer.stack.adapt(kept["before"], Reading(**kept["reading"]))
        trainer.method = acting.token
    trainer._acting = True
