"""Exploration on a fixed pool: GRPO, what is done against its entropy collapse, and the control of each.

The tier `pool` is fixed by its base model (`sandbox/tasks.py`). An arm is a change of one recipe, and it is compared,
seed by seed, with the arm that differs in nothing else: same clip, same updates per rollout, same pool of problems.
The seed draws the pool too. Settings were chosen on `DEVELOPMENT` seeds and are reported on `REPORT` seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.errors import UserError
from entropilot.law.by_law import backtest
from entropilot.law.law import ENTROPY, REWARD, fit_law
from entropilot.records import Run, read_run
from entropilot.reports.table import series
from experiments.exploration.arms import HELD_OUT, LADDER, POOL, ROLLOUTS, WINDOW, recipe_of, with_controls
from experiments.runs import make, once, side_by_side


def probabilities(model_name: str | Path, seed: int) -> dict[str, Any]:
    """Return what a model does on the pool of a seed and on fresh problems, exactly: no sampling is involved.

    Keys: `pool` and `fresh`, each with `pass` (k: mean of 1 − (1 − p)^k), `greedy`, and `p` of every problem of the pool.
    """
    import torch

    from entropilot.evaluation.tier_properties import chances
    from entropilot.inputs.models import load_model, quiet
    from entropilot.recipes.schema import Data, Recipe
    from entropilot.sandbox.tasks import POOL as TIER

    quiet()
    model, tokenizer = load_model(Recipe(model=str(model_name), data=Data(source="sandbox:pool")))
    found: dict[str, Any] = {}
    with torch.no_grad():
        for name, problems in (
            ("pool", TIER.problems("train", POOL, seed)),
            ("fresh", TIER.problems("test", HELD_OUT, 0)),
        ):
            p, greedy = chances(model.eval(), tokenizer, TIER, problems)
            chance = np.array(p)
            found[name] = {
                "pass": {str(k): float(np.mean(1 - (1 - chance) ** k)) for k in LADDER},
                "greedy": float(np.mean(greedy)),
            } | ({"p": p} if name == "pool" else {})
    return found


def smoothed(values: Sequence[float], width: int = WINDOW) -> np.ndarray:
    """Return the running mean over the last `width` values, fewer at the start."""
    total = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (total[ends] - total[starts]) / (ends - starts)


def plateau(accuracy: Sequence[float], share: float = 0.95) -> int:
    """Return the first rollout whose smoothed accuracy has made `share` of the gain of the whole run."""
    curve = smoothed(accuracy)
    return int(np.argmax(curve >= curve[0] + share * (curve[-1] - curve[0])))


def measure(run: Run, at: int | None = None) -> dict[str, Any]:
    """Return what the tables show of one run.

    Args:
        run: its record.
        at: rollout at which entropy is also taken: GRPO's plateau of the same seed.
    """
    _, accuracy = series(run, REWARD)
    _, entropy = series(run, ENTROPY)
    if not accuracy or not entropy:
        raise UserError(f"{run.path} holds no rollout; remove the folder and start again.")
    acc, h = smoothed(accuracy), smoothed(entropy)
    rollouts = len(acc)
    row: dict[str, Any] = {
        "accuracy": float(acc[-1]),
        "entropy": float(h[-1]),
        "entropy at plateau": None if at is None else float(h[min(at, rollouts - 1)]),
        "plateau": plateau(accuracy),
        "curve": {
            str(r): [float(acc[r - 1]), float(h[r - 1])]
            for r in range(WINDOW, rollouts + 1)
            if r % WINDOW == 0 or r == rollouts
        },
        "peak length": max(smoothed(series(run, "completion/length")[1])),
    }
    fit = fit_law(entropy, accuracy)
    row |= {"forecast": None, "naive": None}
    if rollouts >= 20:  # else the first 15 % are fewer than three points
        ahead = backtest(entropy, accuracy, 0.15)  # the paper's protocol: told the later entropies
        row |= {"forecast": ahead.rmse, "naive": ahead.naive_rmse}
    third = rollouts // 3
    row |= {
        "a": fit.a,
        "b": fit.b,
        "ceiling": fit.ceiling,
        "r2": fit.r2,
    }
    row |= {
        "gain by a third": float((acc[third] - acc[0]) / (acc[-1] - acc[0])),
        "spent by a third": float((h[0] - h[third]) / (h[0] - h[-1])),
    }
    row |= _covariance(run) | _ratios(run)
    fresh = series(run, "validation/accuracy")[1]
    return row | {"fresh": fresh[-1] if fresh else None, "fresh curve": fresh}


def _covariance(run: Run) -> dict[str, Any]:
    """Sums over all rollouts, so that a rollout whose net covariance is near 0 decides nothing."""
    kept = [row for row in run.rows if row.get("covariance/mean") is not None]
    mean = np.array([row["covariance/mean"] for row in kept], dtype=float)
    found: dict[str, Any] = {
        "covariance": float(mean.mean()),
        "covariance positive": float(np.mean(mean > 0)),
        "top 2 %": float(sum(0.02 * row["covariance/top_0.02"] for row in kept) / mean.sum()),
    }
    for name in ("likely_good", "likely_bad", "rare_good", "rare_bad"):
        values = np.array([row[f"covariance/quadrant_{name}"] for row in kept], dtype=float)
        found[f"quadrant {name}"] = float(values.sum() / mean.sum())
    chosen = [row for row in run.rows if row.get("chosen/eligible")]
    if not chosen:
        return found | {"chosen": None, "restrained": None}
    # A method that chooses per update has its own rows; covariance/mean is of rollouts.
    net = [
        (row.get("chosen/net_share"), row.get("covariance/mean"), row["chosen/eligible"]) for row in chosen
    ]
    known = [(s * m * n, m * n) for s, m, n in net if s is not None and m is not None and np.isfinite(s)]
    return found | {
        "chosen": float(np.mean([row["chosen/tokens"] for row in chosen])),
        "restrained": sum(a for a, _ in known) / sum(b for _, b in known) if known else None,
    }


def _ratios(run: Run) -> dict[str, float | None]:
    """Of the last update of every rollout, where the policy is farthest from the one that sampled."""
    last: dict[int, dict[str, Any]] = {}
    rollout = 0
    for row in run.rows:
        rollout += "reward/mean" in row
        last[rollout] = row
    return {
        f"log ratio {name}": float(np.mean(values)) if values else None
        for name in ("median", "p99")
        for values in [
            [row[f"log_ratio/{name}"] for row in last.values() if row.get(f"log_ratio/{name}") is not None]
        ]
    }


def one(out: Path, arm: str, seed: int, rollouts: int = ROLLOUTS) -> dict[str, Any]:
    """Make a run unless it is there, and return what was measured of it and of its model."""
    folder = out / f"{arm}-{seed}"
    model = make(folder, recipe_of(arm, seed, rollouts))
    found = once(folder / "probabilities.json", lambda: probabilities(model, seed))
    base = once(out / f"base-{seed}.json", lambda: probabilities("sandbox", seed))
    at = None
    if (out / f"grpo-{seed}" / "probabilities.json").exists():
        at = plateau(series(read_run(out / f"grpo-{seed}"), REWARD)[1])
    row = measure(read_run(folder), at)
    for name, values in (("pool", found["pool"]), ("fresh", found["fresh"])):
        row[f"{name} pass@1"], row[f"{name} greedy"] = values["pass"]["1"], values["greedy"]
    row["pool pass"], row["base pass"] = found["pool"]["pass"], base["pool"]["pass"]
    row["lost"] = float(np.mean(np.array(found["pool"]["p"]) < 1e-3))
    row["crossing"] = next(
        (k for k in LADDER if base["pool"]["pass"][str(k)] >= found["pool"]["pass"][str(k)]), None
    )
    return row


def study(
    out: Path,
    arms: Sequence[str],
    seeds: Sequence[int],
    rollouts: int = ROLLOUTS,
    jobs: int = 2,
    report: Callable[[str], Any] = lambda _: None,
) -> dict[str, list[dict[str, Any]]]:
    """Run every arm and the controls it needs on every seed, seed by seed; return {arm: [row of every seed]}.

    Runs that are finished are not made again. A study that is cut off has whole seeds first.
    """
    chosen = with_controls(arms)
    work = [(arm, seed) for seed in seeds for arm in chosen]

    def train(job: tuple[str, int]) -> None:
        arm, seed = job
        folder = out / f"{arm}-{seed}"
        make(folder, recipe_of(arm, seed, rollouts))
        row = measure(read_run(folder))
        report(f"{arm}, seed {seed}: accuracy {row['accuracy']:.3f}, H {row['entropy']:.3f}")

    side_by_side(train, work, jobs)
    # One after the other, in this thread: transformers loads models through global state, and two at once get neither
    # their weights nor an error (seen: probabilities of 1e-6 from models that were right in 70 %).
    return {arm: [one(out, arm, seed, rollouts) for seed in seeds] for arm in chosen}
