"""Advantage methods in verl: rules from rewards as advantage estimators, rules for tokens as policy losses.

verl hands an estimator the rewards and the prompts' ids, and a loss the log-probs and the advantages. A rule that adapts
to the entropy of a rollout gets it from neither.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, register_adv_est, register_policy_loss

from entropilot.engines.verl.settings import ADVANTAGE_VARIABLE, PREFIX, advantage_methods, built, method_name
from entropilot.methods.advantage_method import AdvantageMethod, RewardBatch


def estimated(
    method: AdvantageMethod, token_level_rewards: Tensor, response_mask: Tensor, index: Any
) -> tuple[Tensor, Tensor]:
    """Return (advantages, returns) by a rule from rewards, (b, t) each, as verl's estimators do; they are the same.

    Args:
        method: the rule.
        token_level_rewards: (b, t), a response's reward is their sum.
        response_mask: (b, t), non-zero where a token counts.
        index: the prompt's id of every row; rows of one prompt may stand anywhere, and prompts may have lost some.
    """
    scores = token_level_rewards.sum(-1)
    rows_of: dict[Any, list[int]] = {}
    for row, prompt in enumerate(index):
        rows_of.setdefault(prompt, []).append(row)
    size = max(map(len, rows_of.values()))
    # A completion that is lost counts as one that nothing scored.
    rewards = scores.new_full((len(rows_of), size), torch.nan)
    for group, rows in enumerate(rows_of.values()):
        rewards[group, : len(rows)] = scores[rows]
    nothing = rewards.new_zeros(rewards.numel(), 0)
    batch = RewardBatch(rewards.flatten(), size, nothing.sum(1), nothing, nothing.bool(), nothing)
    advantages = method.estimate(batch).advantages.view_as(rewards)
    per_row = scores.new_zeros(len(scores))
    for group, rows in enumerate(rows_of.values()):
        per_row[rows] = advantages[group, : len(rows)]
    whole = per_row[:, None] * response_mask
    return whole, whole


def reshaped_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Return verl's vanilla loss at the advantages that a rule for tokens makes of verl's; the signature is verl's.

    Args:
        old_log_prob: log π_old(a_t), nats, (b, t), which the rule reads.
        log_prob: log π_θ(a_t), nats, (b, t), with its graph.
        advantages: (b, t), of any estimator.
        response_mask: (b, t), non-zero where a token counts.
        loss_agg_mode: verl's name of the average.
        config: verl's `ActorConfig`.
        rollout_is_weights: (b, t), of verl's rollout correction.

    Raises:
        UserError: a setting does not fit.
    """
    name = method_name(config)
    assert name is not None  # this loss is registered under the names of methods only
    # Every token is a row of its own: verl's advantages may differ within a row.
    mask, logp = response_mask.bool().reshape(-1, 1), old_log_prob.reshape(-1, 1)
    rewards = torch.full_like(advantages.flatten(), torch.nan)
    batch = RewardBatch(rewards, 1, advantages.flatten(), logp, mask, torch.zeros_like(logp))
    estimate = built(name, {}).estimate(batch)
    loss, metrics = compute_policy_loss_vanilla(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=estimate.advantages.view_as(advantages),
        response_mask=response_mask,
        loss_agg_mode=loss_agg_mode,
        config=config,
        rollout_is_weights=rollout_is_weights,
    )
    counts = {f"actor/adapted/{what}": count for what, count in estimate.counts.items()}
    return loss, {**metrics, **counts}


def register() -> None:
    """Register an estimator for every rule from rewards, and a loss for every rule for tokens."""
    for name in advantage_methods(from_rewards=True):

        def estimator(
            token_level_rewards: Tensor,
            response_mask: Tensor,
            index: Any,
            config: Any = None,
            name: str = name,
            **_: Any,
        ) -> tuple[Tensor, Tensor]:
            method = built(name, {}, ADVANTAGE_VARIABLE)
            with torch.no_grad():
                return estimated(method, token_level_rewards, response_mask, index)

        register_adv_est(PREFIX + name)(estimator)
    for name in advantage_methods(from_rewards=False):
        register_policy_loss(PREFIX + name)(reshaped_loss)  # pyright: ignore[reportArgumentType]
