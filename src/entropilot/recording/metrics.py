"""Compute what a probe records of a rollout and of an update; names and units are `entropilot.metrics`'."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from entropilot.engine_view import EngineView
from entropilot.maths.covariance import covariance_table, quadrant_covariance, token_covariance
from entropilot.maths.tokens import masked_mean
from entropilot.recording.observer import MicroBatch, Rollout

# Below, numbers stay on the device until all of a rollout's or of an update's are there: reading one waits for a GPU.


def _wide(device: torch.device) -> torch.dtype:
    """Return the number kind that counts exactly on a device; Apple's has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _stacked(values: list[Tensor]) -> Tensor:
    return torch.stack([value.to(_wide(value.device)) for value in values])


def _held(covariance: Tensor, eligible: Tensor, selected: Tensor) -> list[Tensor]:
    """Return tokens chosen and eligible; Σ covariance of the chosen, of all, of the positive ones."""
    held = torch.where(selected, covariance, covariance.new_zeros(())).sum()
    return [selected.sum(), eligible.sum(), held, covariance.sum(), covariance.clamp(min=0).sum()]


def _chosen_row(chosen: float, eligible: float, held: float, net: float, positive: float) -> dict[str, float]:
    return {
        "chosen/tokens": int(chosen),
        "chosen/eligible": int(eligible),
        "chosen/net_share": held / net if net else float("nan"),
        "chosen/positive_share": held / positive if positive > 0 else 0.0,
    }


def rollout_metrics(rollout: Rollout, num_generations: int) -> dict[str, float]:
    """Return what is known before the first update; every rank computes the same from the gathered rollout."""
    batch, eligible = rollout.batch, rollout.eligible
    finite = eligible & batch.logp.isfinite()
    covariance = token_covariance(batch.logp, batch.advantages, eligible)
    quadrants = quadrant_covariance(batch.logp, batch.advantages, eligible)
    values = [
        masked_mean(covariance, finite),
        (batch.mask & ~batch.logp.isfinite()).sum(),
        *quadrants.values(),
    ]
    if rollout.selected is not None:
        values += _held(covariance, eligible, rollout.selected)
    mean, left_out, *rest = _stacked(values).tolist()
    row = {"covariance/mean": mean, "covariance/left_out": int(left_out)}
    row |= {f"covariance/top_{share:g}": top for share, top in covariance_table(covariance, finite).items()}
    row |= {f"covariance/quadrant_{name}": value for name, value in zip(quadrants, rest, strict=False)}
    if rollout.selected is not None:
        row |= _chosen_row(*rest[len(quadrants) :])
    return row | reward_metrics(rollout.rewards.cpu(), num_generations)


def reward_metrics(rewards: Tensor, num_generations: int) -> dict[str, float]:
    """Return mean, spread and flat groups of a rollout's rewards (n,); NaN where nothing scored a completion."""
    scored = rewards[~rewards.isnan()]
    if not scored.numel():
        return {}
    groups = rewards.view(-1, num_generations)
    lowest, highest = groups.nan_to_num(nan=torch.inf).amin(1), groups.nan_to_num(nan=-torch.inf).amax(1)
    flat = (highest - lowest).abs() <= 1e-6  # a group in which nothing was scored is neither
    right = flat & (highest >= scored.max() - 1e-6) & (scored.max() > 0)
    return {
        "reward/mean": scored.mean().item(),
        "reward/std": scored.std(correction=0).item(),
        "groups/all_right": right.float().mean().item(),
        "groups/all_wrong": (flat & ~right).float().mean().item(),
    }


def update_metrics(passes: list[MicroBatch], engine: EngineView) -> dict[str, float]:
    """Return what an optimiser step saw, over all its training passes and all ranks."""
    names = ("entropy", "tokens", "low", "high", "penalty", "drift")
    sums: dict[str, Tensor] = {}
    drifts: list[Tensor] = []
    for part in passes:
        batch, zero = part.batch, part.batch.logp.new_zeros(())
        log_ratio = torch.where(batch.mask, batch.logp - batch.old_logp, zero)
        ratio, drift = log_ratio.exp(), log_ratio.abs()
        here = {
            "entropy": zero if batch.entropy is None else torch.where(batch.mask, batch.entropy, zero).sum(),
            "tokens": batch.mask.sum(),
            "low": _clipped(ratio, batch.advantages, engine.clip["low"], below=True),
            "high": _clipped(ratio, batch.advantages, engine.clip["high"], below=False),
            "penalty": zero if part.extra is None else torch.where(batch.mask, part.extra, zero).sum(),
            "drift": drift.sum(),
        }
        sums = {name: sums.get(name, 0) + here[name].to(_wide(zero.device)) for name in names}
        drifts.append(torch.where(batch.mask, drift, -1.0).flatten())
    drift = engine.gather(torch.cat(drifts), padding=-1)
    totals = engine.reduce(torch.stack([sums[name] for name in names]))
    values = torch.cat([totals, _stacked(_quantiles(drift, (50, 99)))]).tolist()
    total, (median, p99) = dict(zip(names, values, strict=False)), values[len(names) :]
    tokens = max(1.0, total["tokens"])
    row = {
        "entropy/train_token_mean": total["entropy"] / tokens,
        "clip/low": total["low"] / tokens,
        "clip/high": total["high"] / tokens,
        "log_ratio/mean": total["drift"] / tokens,
        "log_ratio/median": median,
        "log_ratio/p99": p99,
    }
    if engine.scope is not None:
        row["penalty"] = total["penalty"] / tokens
        if engine.scope != "rollout":
            row |= _held_by_passes(passes, engine)
    return row


def _held_by_passes(passes: list[MicroBatch], engine: EngineView) -> dict[str, float]:
    """Return the chosen counts and shares where the choice was made during the update, at its log-probs.

    The covariance is centred as it was for the choice: over all passes and ranks, or within every pass.
    """
    centre = None
    if engine.scope == "update":
        parts = []
        for part in passes:
            valid = part.eligible & part.batch.logp.isfinite()
            kept = [
                torch.where(valid, x, x.new_zeros(())).sum() for x in (part.batch.logp, part.batch.advantages)
            ]
            parts.append(_stacked([*kept, valid.sum()]))
        logp, advantage, count = engine.reduce(torch.stack(parts).sum(0))
        centre = (logp / count.clamp(min=1), advantage / count.clamp(min=1))
    rows = []
    for part in passes:
        if centre is None:
            covariance = token_covariance(part.batch.logp, part.batch.advantages, part.eligible)
        else:
            product = (part.batch.logp - centre[0]) * (part.batch.advantages - centre[1])
            valid = part.eligible & part.batch.logp.isfinite()
            covariance = torch.where(valid, product, product.new_zeros(()))
        assert part.selected is not None
        rows.append(_stacked(_held(covariance, part.eligible, part.selected)))
    return _chosen_row(*engine.reduce(torch.stack(rows).sum(0)).tolist())


def _clipped(ratio: Tensor, advantages: Tensor, bound: float | None, *, below: bool) -> Tensor:
    if bound is None:
        return torch.zeros((), device=ratio.device)
    hit = (ratio < 1 - bound) & (advantages < 0) if below else (ratio > 1 + bound) & (advantages > 0)
    return hit.sum()


def _quantiles(x: Tensor, percents: tuple[int, ...]) -> list[Tensor]:
    """Return, for each percentage q, the smallest value of `x` that q % of it do not exceed; 0 where it is empty.

    Negative values are padding.
    """
    return (_partitioned if x.device.type == "cpu" else _sorted)(x, percents)


def _partitioned(x: Tensor, percents: tuple[int, ...]) -> list[Tensor]:
    # In main memory nobody waits for a count, and a partition takes n steps where a sort takes n log n. numpy has no
    # bfloat16; float32 holds each of its values.
    values = (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()
    count = int((values >= 0).sum())
    if not count:
        return [x.new_zeros(())] * len(percents)
    places = [len(values) - count + max(1, -(-count * percent // 100)) - 1 for percent in percents]
    parted = np.partition(values, places)
    return [torch.as_tensor(parted[place], dtype=x.dtype) for place in places]


def _sorted(x: Tensor, percents: tuple[int, ...]) -> list[Tensor]:
    # `torch.quantile` refuses more than 16 million values, and a mask would have to be counted on the host; here the
    # count stays on the device and picks from the sorted values.
    ordered, count = x.sort().values, (x >= 0).sum()
    begin = len(x) - count
    values = []
    for percent in percents:
        rank = (-(-count * percent // 100)).clamp(min=1)  # rounded up, in whole numbers
        value = ordered[(begin + rank - 1).clamp(max=len(x) - 1)]
        values.append(torch.where(count > 0, value, ordered.new_zeros(())))
    return values
