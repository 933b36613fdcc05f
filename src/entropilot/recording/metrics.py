"""What the probe measures, each with its definition and unit: the header of every run carries this table."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from entropilot.maths.covariance import covariance_table, quadrant_covariance, token_covariance
from entropilot.maths.tokens import masked_mean
from entropilot.recording.observer import MicroBatch, Rollout

# name: (unit, definition). A star stands for the shares and quadrants below.
DEFINITIONS: dict[str, tuple[str, str]] = {
    "entropy/policy_T1": (
        "nats",
        "policy entropy, arXiv:2505.22617 Eq. 5: before the first update of a rollout, all its rows, full vocabulary, "
        "T = 1, per-sequence token mean, then mean over sequences",
    ),
    "entropy/train_token_mean": (
        "nats",
        "full-vocabulary entropy at the training temperature, during the update, mean over its tokens",
    ),
    "validation/accuracy": (
        "share",
        "mean reward on held-out problems, measured before the rollout of the same row, or after the last update",
    ),
    "validation/length": ("tokens", "mean length of the validation completions, end token included"),
    "validation/truncated": ("share", "validation completions that reached the length limit"),
    "validation/samples": ("count", "validation completions"),
    "reward/mean": ("reward", "mean reward of the rollout's completions that were scored"),
    "reward/std": ("reward", "standard deviation of the same"),
    "covariance/mean": (
        "nats",
        "mean over the eligible tokens of (log π − mean)(A − mean), arXiv:2505.22617 Eq. 10, at the rollout's policy; "
        "first-order ΔH is −η times it",
    ),
    "covariance/positive_share": ("share", "rollouts so far on which covariance/mean is positive"),
    "covariance/top_*": ("nats", "mean covariance of the top share of the eligible tokens (Table 1)"),
    "covariance/quadrant_*": (
        "nats",
        "Σ of the covariance over a quadrant of probability × advantage / eligible tokens; first-order ΔH of the "
        "quadrant is −η times it; the four add up to covariance/mean",
    ),
    "chosen/tokens": (
        "count",
        "tokens that the method chose: over the rollout, or summed over the update's passes",
    ),
    "chosen/eligible": ("count", "tokens that it could choose from"),
    "chosen/net_share": (
        "share",
        "Σ covariance of the chosen / Σ of all eligible tokens; above 1 is possible",
    ),
    "chosen/positive_share": ("share", "Σ covariance of the chosen / Σ of the positive ones"),
    "penalty": ("loss", "mean over the update's tokens of the method's extra loss"),
    "log_ratio/median": ("nats", "median of |log π_θ − log π_old| over the update's tokens"),
    "log_ratio/p99": ("nats", "99th percentile of the same"),
    "clip/low": ("share", "tokens with ratio < 1 − ε_low and A < 0; 0 where there is no clip"),
    "clip/high": ("share", "tokens with ratio > 1 + ε_high and A > 0"),
    "completion/length": ("tokens", "mean completion length of the rollout"),
    "completion/longest": ("tokens", "longest completion of the rollout"),
    "completion/truncated": ("share", "completions of the rollout without an end token"),
    "groups/all_right": (
        "share",
        "groups whose rewards are all the highest that this rollout saw, and equal",
    ),
    "semantic/entropy": (
        "nats",
        "mean over the rollout's groups of H = -sum p ln p, p the shares of a group's answers that mean the same "
        "(arXiv:2504.05812); a missing answer is a meaning of its own",
    ),
    "semantic/entropy_groups": ("nats", "the same of every group"),
    "semantic/clusters": ("count", "mean number of meanings in a group"),
    "semantic/majority_share": ("share", "mean share of a group's largest cluster"),
    "semantic/filtered": ("share", "groups left out of training by the threshold on their semantic entropy"),
    "semantic/unanswered": ("share", "completions of the rollout from which no answer was extracted"),
    "semantic/label_accuracy": (
        "share",
        "for reporting only: completions whose answer agrees with the label, where the data has one",
    ),
    "semantic/majority_accuracy": (
        "share",
        "for reporting only: groups whose majority answer (the first among equals) agrees with the label",
    ),
    "groups/all_wrong": ("share", "groups whose rewards are all equal and lower than that"),
    "law/ceiling": (
        "of R",
        "-a + b of R = -a*exp(H) + b, fitted to all rollouts so far; R is validation/accuracy, or reward/mean where "
        "nothing is validated; from the fifth measurement on",
    ),
    "law/ceiling_low": ("of R", "lower end of its 95 % interval, which knows that steps are autocorrelated"),
    "law/ceiling_high": ("of R", "upper end of the same"),
    "law/r2": ("share", "variance of R that the law explains"),
    "law/spent": ("share", "(exp H_0 - exp H_t) / (exp H_0 - 1), from the smoothed policy entropy"),
    "law/alarm": ("text", "said once, when 90 % is spent or entropy is below a tenth of its start"),
    "dynamics/covariance_pg": (
        "nats",
        "mean over prompts of Cov(log π(y|x), π(y|x)·A) over a prompt's responses, log π(y|x) the mean log-prob of the "
        "response's tokens, π(y|x) its exponential (arXiv:2505.22617, Theorem 1 and Fig. 8)",
    ),
    "dynamics/covariance_npg": ("nats", "the same of Cov(log π(y|x), A) (Theorem 2)"),
    "dynamics/by_accuracy": (
        "share, count, nats, nats",
        "[accuracy, prompts, covariance_pg, covariance_npg] for every accuracy that a group of the rollout had",
    ),
    "dynamics/entropy_before": (
        "nats",
        "policy entropy (Eq. 5, T = 1) on completions that were fixed before the first update, before this update",
    ),
    "dynamics/entropy_after": ("nats", "the same after this update"),
    "stop/reason": ("text", "said once, when a reward without labels has nothing more to teach (probe.stop)"),
    "learning_rate": ("1", "learning rate of the update"),
    "seconds/rollout": ("s", "generating, scoring, and the old log-probs"),
    "seconds/validation": ("s", "held-out accuracy"),
    "seconds/probe": ("s", "what the probe itself took on the rollout"),
    "seconds/update": ("s", "forward passes and losses of the update"),
    "seconds/step": ("s", "the whole optimiser step, with all of the above"),
}


def definitions() -> dict[str, dict[str, str]]:
    """Return the table as it stands in a run's header."""
    return {name: {"unit": unit, "definition": text} for name, (unit, text) in DEFINITIONS.items()}


def _held(covariance: Tensor, eligible: Tensor, selected: Tensor) -> dict[str, float]:
    """Return how many tokens were chosen, and what share of the net and of the positive covariance they hold."""
    net, positive = covariance.sum(), covariance.clamp(min=0).sum()
    held = covariance[selected].sum()
    return {
        "chosen/tokens": int(selected.sum()),
        "chosen/eligible": int(eligible.sum()),
        "chosen/net_share": (held / net).item() if net != 0 else float("nan"),
        "chosen/positive_share": (held / positive).item() if positive > 0 else 0.0,
    }


def rollout_metrics(rollout: Rollout, num_generations: int) -> dict[str, float]:
    """Return what is known before the first update; every rank computes the same from the gathered rollout."""
    batch, eligible = rollout.batch, rollout.eligible
    covariance = token_covariance(batch.logp, batch.advantages, eligible)
    row = {"covariance/mean": masked_mean(covariance, eligible).item()}
    row |= {
        f"covariance/top_{share:g}": mean for share, mean in covariance_table(covariance, eligible).items()
    }
    quadrants = quadrant_covariance(batch.logp, batch.advantages, eligible)
    row |= {f"covariance/quadrant_{name}": value.item() for name, value in quadrants.items()}
    if rollout.selected is not None:
        row |= _held(covariance, eligible, rollout.selected)
    scored = rollout.rewards[~rollout.rewards.isnan()]
    if scored.numel():
        row |= {"reward/mean": scored.mean().item(), "reward/std": scored.std(correction=0).item()}
        groups = rollout.rewards.view(-1, num_generations)
        lowest, highest = groups.nan_to_num(nan=torch.inf).amin(1), groups.nan_to_num(nan=-torch.inf).amax(1)
        flat = (highest - lowest).abs() <= 1e-6  # a group in which nothing was scored is neither
        right = flat & (highest >= scored.max() - 1e-6) & (scored.max() > 0)
        row |= {
            "groups/all_right": right.float().mean().item(),
            "groups/all_wrong": (flat & ~right).float().mean().item(),
        }
    return row


def completion_metrics(trainer: Any) -> dict[str, float]:
    """Return the lengths of the rollout just sampled, as TRL counts them over all ranks before it masks anything."""
    names = {
        "completion/length": "completions/mean_length",
        "completion/longest": "completions/max_length",
        "completion/truncated": "completions/clipped_ratio",
    }
    return {ours: trainer._metrics["train"][theirs][-1] for ours, theirs in names.items()}


def update_metrics(passes: list[MicroBatch], trainer: Any) -> dict[str, float]:
    """Return what an optimiser step saw, over all its training passes and all ranks."""
    device = trainer.accelerator.device
    sums = dict.fromkeys(("entropy", "tokens", "low", "high", "penalty"), torch.zeros((), device=device))
    ratios: list[Tensor] = []
    for seen in passes:
        batch = seen.batch
        log_ratio = (batch.logp - batch.old_logp)[batch.mask]
        advantages = batch.advantages[batch.mask]
        ratio = log_ratio.exp()
        here = {
            "entropy": torch.zeros((), device=device)
            if batch.entropy is None
            else batch.entropy[batch.mask].sum(),
            "tokens": batch.mask.sum(),
            "low": _clipped(ratio, advantages, trainer.clip["low"], below=True),
            "high": _clipped(ratio, advantages, trainer.clip["high"], below=False),
            "penalty": torch.zeros((), device=device) if seen.extra is None else seen.extra[batch.mask].sum(),
        }
        sums = {name: sums[name] + here[name].float() for name in sums}
        ratios.append(log_ratio.abs())
    names = list(sums)
    accelerator = trainer.accelerator
    values = accelerator.reduce(torch.stack([sums[name] for name in names]), reduction="sum").tolist()
    total = dict(zip(names, values, strict=True))
    drift = accelerator.gather(accelerator.pad_across_processes(torch.cat(ratios), pad_index=-1))
    drift = drift[drift >= 0].float()
    tokens = max(1.0, total["tokens"])
    row = {
        "entropy/train_token_mean": total["entropy"] / tokens,
        "clip/low": total["low"] / tokens,
        "clip/high": total["high"] / tokens,
        "log_ratio/median": _quantile(drift, 0.5),
        "log_ratio/p99": _quantile(drift, 0.99),
    }
    if trainer.method is not None:
        row["penalty"] = total["penalty"] / tokens
        if trainer.method.scope != "rollout":
            row |= _held_by_passes(passes, accelerator, trainer.method.scope == "update")
    return row


def _held_by_passes(passes: list[MicroBatch], accelerator: Any, over_update: bool) -> dict[str, float]:
    """Return the chosen counts and shares where the choice was made during the update, at its log-probs.

    The covariance is centred as it was for the choice: over all passes and ranks, or within every pass.
    """
    centre = None
    if over_update:
        totals = torch.zeros(3, dtype=torch.float64)
        for seen in passes:
            logp, advantages = seen.batch.logp[seen.eligible], seen.batch.advantages[seen.eligible]
            totals += torch.stack([logp.sum(), advantages.sum(), seen.eligible.sum()]).to(totals)
        *means, count = accelerator.reduce(totals.to(accelerator.device), reduction="sum").tolist()
        centre = [mean / max(1.0, count) for mean in means]
    sums = torch.zeros(5, dtype=torch.float64)
    for seen in passes:
        if centre is None:
            covariance = token_covariance(seen.batch.logp, seen.batch.advantages, seen.eligible)
        else:
            product = (seen.batch.logp - centre[0]) * (seen.batch.advantages - centre[1])
            covariance = torch.where(seen.eligible, product, product.new_zeros(()))
        assert seen.selected is not None
        sums += torch.stack(
            [
                seen.selected.sum(),
                seen.eligible.sum(),
                covariance[seen.selected].sum(),
                covariance.sum(),
                covariance.clamp(min=0).sum(),
            ]
        ).to(sums)
    chosen, eligible, held, net, positive = accelerator.reduce(
        sums.to(accelerator.device), reduction="sum"
    ).tolist()
    return {
        "chosen/tokens": int(chosen),
        "chosen/eligible": int(eligible),
        "chosen/net_share": held / net if net else float("nan"),
        "chosen/positive_share": held / positive if positive else 0.0,
    }


def _clipped(ratio: Tensor, advantages: Tensor, bound: float | None, *, below: bool) -> Tensor:
    if bound is None:
        return torch.zeros((), device=ratio.device)
    hit = (ratio < 1 - bound) & (advantages < 0) if below else (ratio > 1 + bound) & (advantages > 0)
    return hit.sum()


def _quantile(x: Tensor, q: float) -> float:
    """Return the smallest value that a share q does not exceed; torch.quantile refuses more than 16 million values."""
    if x.numel() == 0:
        return 0.0
    return x.kthvalue(max(1, min(x.numel(), math.ceil(q * x.numel())))).values.item()
