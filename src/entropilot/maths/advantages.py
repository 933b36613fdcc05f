"""Advantage estimators over a whole rollout batch of rewards."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Estimator = Literal["grpo", "rloo", "reinforce++", "reinforce++_baseline"]
ESTIMATORS: tuple[Estimator, ...] = ("grpo", "rloo", "reinforce++", "reinforce++_baseline")
EPSILON = 1e-4  # TRL's; the authors of 2505.22617 use 1e-6, which recipes can't express and say so
NEGLIGIBLE = 1e-3  # of the batch's largest advantage


def _nan_std(x: Tensor, dim: int) -> Tensor:
    """Unbiased standard deviation over the values that are not NaN; 0 where there are fewer than two."""
    count = (~x.isnan()).sum(dim, keepdim=True)
    squares = (x - x.nanmean(dim, keepdim=True)) ** 2
    return (squares.nansum(dim, keepdim=True) / (count - 1).clamp(min=1)).sqrt()


def estimate_advantages(
    rewards: Float[Tensor, " n"], num_generations: int, estimator: Estimator
) -> Float[Tensor, " n"]:
    """Return one advantage per completion; rows are grouped by prompt, `num_generations` in a row.

    ====================  ===========================================================================
    grpo                  (r − mean_group) / (std_group + 1e-4)                          2402.03300
    rloo                  G/(G−1)·(r − mean_group) = r − mean of the others              2402.14740
    reinforce++           (r − mean_batch) / (std_batch + 1e-4)                          2501.03262
    reinforce++_baseline  (r − mean_group) / (std of these differences over the batch + 1e-4), likewise
    ====================  ===========================================================================

    A NaN reward (no reward function scored the completion) gets the advantage 0 and counts nowhere. Under `rloo`
    G is the number of scored completions of the group.

    Raises:
        ValueError: an unknown estimator.
    """
    groups = rewards.view(-1, num_generations)
    centred = groups - groups.nanmean(1, keepdim=True)
    if estimator == "grpo":
        advantages = centred / (_nan_std(groups, 1) + EPSILON)
    elif estimator == "rloo":
        scored = (~groups.isnan()).sum(1, keepdim=True)
        advantages = centred * scored / (scored - 1).clamp(min=1)
    elif estimator == "reinforce++":
        advantages = (rewards - rewards.nanmean()) / (_nan_std(rewards, 0) + EPSILON)
    elif estimator == "reinforce++_baseline":
        advantages = centred / (_nan_std(centred.flatten(), 0) + EPSILON)
    else:
        raise ValueError(f"Unknown advantage estimator {estimator!r}; choose one of {', '.join(ESTIMATORS)}.")
    return torch.nan_to_num(advantages.reshape(-1), nan=0.0)


def groups_with_signal(advantages: Float[Tensor, "n *t"], num_generations: int) -> Bool[Tensor, " n"]:
    """Return, per completion, whether its group has an advantage that is not 0, so that it drives the policy.

    Decided by the advantages, not by the rewards: equal rewards do train where advantages are centred on the batch
    (`reinforce++`), and rewards of equal sum do where each is normalised on its own. A group whose largest |A| is less
    than a thousandth of the batch's counts as 0: equal rewards leave a rounding error, which dividing by a
    standard deviation of almost 0 enlarges.

    Args:
        advantages: (n,) or (n, t), of whole groups, `num_generations` rows in a row.
        num_generations: completions per prompt.
    """
    size = advantages.abs().reshape(len(advantages), -1).amax(1)
    largest = size.view(-1, num_generations).amax(1)
    return (largest > NEGLIGIBLE * largest.max()).repeat_interleave(num_generations)
