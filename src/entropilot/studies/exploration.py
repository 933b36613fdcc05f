"""Exploration on a fixed pool: GRPO, what is done against its entropy collapse, and the control of each.

The tier `pool` is fixed by its base model (`sandbox/tasks.py`). An arm is a change of one recipe, and it is compared,
seed by seed, with the arm that differs in nothing else: same clip, same updates per rollout, same pool of problems.
The seed draws the pool too. Settings were chosen on `DEVELOPMENT` seeds and are reported on `REPORT` seeds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.analysis.forecast import backtest
from entropilot.analysis.law import ENTROPY, REWARD, fit_law
from entropilot.errors import UserError
from entropilot.records import Run, read_run
from entropilot.reports.table import series
from entropilot.reports.text import aligned
from entropilot.studies.runs import cell, make, once, paired, ratio_cell, side_by_side

DEVELOPMENT = (101, 102)
REPORT = (1, 2, 3, 4, 5)
POOL = 128  # problems
ROLLOUTS = 128  # GRPO is flat from about 110 on (seed 101); each problem is visited 32 times
WINDOW = 10  # rollouts that an accuracy or an entropy is the mean of
LADDER = tuple(2**i for i in range(15))  # k of pass@k, up to 16,384
HELD_OUT = 2048  # fresh problems of the same kind


@dataclass(frozen=True)
class Arm:
    """A change of the base recipe.

    Attributes:
        changes: merged into the recipe, section by section.
        control: the arm it is compared with, that differs in nothing else; None for GRPO.
        about: what differs, in a few words.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    control: str | None = "grpo"
    about: str = ""


BASE: dict[str, Any] = {
    "model": "sandbox",
    "data": {"source": "sandbox:pool", "split": "train", "limit": POOL},
    "reward": "sandbox",
    "grpo": {
        "per_device_train_batch_size": 64,
        "steps_per_generation": 4,
        "num_generations": 8,
        "max_completion_length": 6,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "max_steps": 4 * ROLLOUTS,
        "save_strategy": "no",
        "loss_type": "dapo",
        "gradient_checkpointing": False,
    },
    "validate": {"every": 16, "problems": 256, "temperature": 1.0},
    "probe": {"tokens_every": 0},
}


def _grpo(control: str | None, about: str, **values: Any) -> Arm:
    return Arm({"grpo": values}, control, about)


def _method(name: str, control: str, about: str, grpo: dict[str, Any] | None = None, **arguments: Any) -> Arm:
    changes: dict[str, Any] = {"method": name, "method_args": arguments}
    if arguments.get("fraction", 0) >= 0.05:  # not a percentage: some 80 of 800 tokens
        arguments["allow_large_fraction"] = True
    return Arm(changes | ({"grpo": grpo} if grpo else {}), control, about)


# Clip-Cov's own clip of ±1 lets ratios of 0 to 2 through; its control has the same. KL-Cov has none.
_WIDE = {"epsilon": 1.0, "epsilon_high": 1.0}
_NONE = {"epsilon": 1e9}
_TWICE: dict[str, Any] = {"num_iterations": 2, "max_steps": 8 * ROLLOUTS}
_ONCE: dict[str, Any] = {"per_device_train_batch_size": 256, "steps_per_generation": 1, "max_steps": ROLLOUTS}
_SMALL: dict[str, Any] = {"per_device_train_batch_size": 32}

ARMS: dict[str, Arm] = {
    "grpo": _grpo(None, "PPO clip 0.2"),
    "no_clip": _grpo("grpo", "no PPO clip", **_NONE),
    "wide_clip": _grpo("grpo", "PPO clip 1", **_WIDE),
    "clip_higher": _grpo("grpo", "upper clip 0.28", epsilon_high=0.28),
    **{
        f"bonus_{coef:g}": _grpo("grpo", f"entropy bonus {coef:g}", entropy_coef=coef)
        for coef in (1e-4, 1e-3, 5e-3, 1e-2, 2e-2, 5e-2)
    },
    **{
        f"ref_kl_{beta:g}": _grpo("grpo", f"reference KL {beta:g}", beta=beta)
        for beta in (1e-3, 1e-2, 5e-2, 0.1)
    },
    **{
        f"adaptive_{target:g}": _grpo(
            "grpo",
            f"TRL's adaptive bonus, target {target:g} nats",
            use_adaptive_entropy=True,
            entropy_target=target,
        )
        for target in (0.1, 0.2)
    },
    # fraction of the tokens, window of the covariance
    "clip_cov_paper": _method("clip_cov", "wide_clip", "Clip-Cov, the paper's r and window"),
    "clip_cov_0.1": _method(
        "clip_cov", "wide_clip", "Clip-Cov 10 %, window 0.1 to 5", fraction=0.1, cov_low=0.1, cov_high=5.0
    ),
    "clip_cov_0.2": _method(
        "clip_cov", "wide_clip", "Clip-Cov 20 %, window 0.1 to 20", fraction=0.2, cov_low=0.1, cov_high=20.0
    ),
    **{
        f"clip_cov_restrain_{share:g}": _method(
            "clip_cov", "wide_clip", f"Clip-Cov, {share:g} of the net covariance", restrain=share
        )
        for share in (0.5, 1.0, 2.0)
    },
    "kl_cov_paper": _method("kl_cov", "no_clip", "KL-Cov, the paper's k and β"),
    **{
        f"kl_cov_0.1_beta{coef:g}": _method(
            "kl_cov", "no_clip", f"KL-Cov 10 %, β {coef:g}", fraction=0.1, coef=coef
        )
        for coef in (1.0, 3.0, 10.0)
    },
    "kl_cov_0.02_beta3": _method("kl_cov", "no_clip", "KL-Cov 2 %, β 3", fraction=0.02, coef=3.0),
    **{
        f"kl_cov_restrain_{share:g}": _method(
            "kl_cov", "no_clip", f"KL-Cov, {share:g} of the net covariance, β 3", restrain=share, coef=3.0
        )
        for share in (0.5, 1.0, 2.0)
    },
    # What else changes it: eight updates a rollout or one, half the completions, where the tokens are chosen.
    "wide_clip_twice": _grpo("wide_clip", "PPO clip 1, two epochs over a rollout", **_WIDE, **_TWICE),
    "clip_cov_restrain_1_twice": _method(
        "clip_cov", "wide_clip_twice", "Clip-Cov, all of the net covariance, two epochs", _TWICE, restrain=1.0
    ),
    "wide_clip_once": _grpo("wide_clip", "PPO clip 1, one update a rollout", **_WIDE, **_ONCE),
    "clip_cov_restrain_1_once": _method(
        "clip_cov", "wide_clip_once", "Clip-Cov, all of the net covariance, one update", _ONCE, restrain=1.0
    ),
    "wide_clip_small": _grpo("wide_clip", "PPO clip 1, 128 completions a rollout", **_WIDE, **_SMALL),
    "clip_cov_restrain_1_small": _method(
        "clip_cov",
        "wide_clip_small",
        "Clip-Cov, all of the net covariance, 128 completions",
        _SMALL,
        restrain=1.0,
    ),
    **{
        f"clip_cov_restrain_1_{scope}": _method(
            "clip_cov",
            "wide_clip",
            f"Clip-Cov, all of the net covariance, chosen per {scope}",
            restrain=1.0,
            scope=scope,
        )
        for scope in ("update", "microbatch")
    },
}

# What docs/results/exploration.md reports on five seeds; settings were chosen on the development seeds.
REPORTED: tuple[str, ...] = (
    "wide_clip",
    "no_clip",
    "clip_higher",
    "bonus_0.005",
    "adaptive_0.2",
    "ref_kl_0.1",
    "clip_cov_0.2",
    "clip_cov_restrain_1",
    "kl_cov_0.1_beta1",
    "kl_cov_restrain_1",
)
# How updates per rollout, the number of completions and the scope change it.
VARIANTS: tuple[str, ...] = (
    "clip_cov_restrain_1_once",
    "clip_cov_restrain_1_small",
    "clip_cov_restrain_1_update",
    "clip_cov_restrain_1_microbatch",
)


def recipe_of(arm: str, seed: int, rollouts: int = ROLLOUTS) -> dict[str, Any]:
    """Return the recipe of an arm; the seed draws the pool, the order, and every completion."""
    if arm not in ARMS:
        raise UserError(f"The study has no arm {arm!r}; it has: {', '.join(ARMS)}.")
    recipe = copy.deepcopy(BASE)
    for key, value in ARMS[arm].changes.items():
        recipe[key] = recipe[key] | value if isinstance(value, dict) and key in recipe else value
    recipe["grpo"]["max_steps"] = recipe["grpo"]["max_steps"] * rollouts // ROLLOUTS
    recipe["data"]["seed"] = seed
    return {"name": arm, **recipe, "seed": seed}


# --- one run ------------------------------------------------------------------------------------------------


def probabilities(model_name: str | Path, seed: int) -> dict[str, Any]:
    """Return what a model does on the pool of a seed and on fresh problems, exactly: no sampling is involved.

    Keys: `pool` and `fresh`, each with `pass` (k: mean of 1 − (1 − p)^k), `greedy`, and `p` of every problem of the pool.
    """
    import torch

    from entropilot.engines.loading import load_model, quiet
    from entropilot.recipes import Data, Recipe
    from entropilot.sandbox.tasks import POOL as TIER
    from entropilot.studies.properties import chances

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


# --- the tables ---------------------------------------------------------------------------------------------


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


def with_controls(arms: Sequence[str]) -> list[str]:
    """Return the arms, each after its controls, none twice; GRPO is the first."""
    found: list[str] = []

    def add(arm: str) -> None:
        if arm not in ARMS:
            raise UserError(f"The study has no arm {arm!r}; it has: {', '.join(ARMS)}.")
        control = ARMS[arm].control
        if control is not None:
            add(control)
        if arm not in found:
            found.append(arm)

    for arm in ("grpo", *arms):
        add(arm)
    return found


Table = dict[str, list[dict[str, Any]]]


def _column(rows: list[dict[str, Any]], name: str) -> list[float | None]:
    return [row[name] for row in rows]


def tables(found: Table) -> str:
    """Return the study's tables as text."""
    parts = [
        "the set, at the end: exact accuracy at T = 1, greedy, entropy; paired differences to the control\n",
        aligned(_main(found), (0, 1)),
        "\ncurves: accuracy of the training samples / policy entropy, mean over seeds\n",
        aligned(_curves(found)),
        "\nwhat was restrained; the law R = -a exp(H) + b on (entropy, training accuracy)\n",
        aligned(_cells(found, _MECHANISM)),
        "\nthe covariance of all tokens; shares of its sum over the run, quadrants by probability and advantage\n",
        aligned(_cells(found, _COVARIANCE)),
        "\npass@k on the set, exact; base: the model before training\n",
        aligned(_passes(found)),
    ]
    return "\n".join(parts)


def _main(found: Table) -> list[list[str]]:
    rows = [
        [
            "arm",
            "control",
            "accuracy",
            "less control",
            "greedy",
            "H",
            "H / control",
            "H / GRPO at its plateau",
            "fresh greedy",
        ]
    ]
    for arm, runs in found.items():
        control = ARMS[arm].control
        against = found.get(control or "", [])
        rows.append(
            [
                arm,
                control or "–",
                cell(_column(runs, "pool pass@1")),
                cell(paired(_column(runs, "pool pass@1"), _column(against, "pool pass@1")), sign=True)
                if against
                else "–",
                cell(_column(runs, "pool greedy")),
                cell(_column(runs, "entropy")),
                ratio_cell(_column(runs, "entropy"), _column(against, "entropy")) if against else "–",  # type: ignore[arg-type]
                ratio_cell(_column(runs, "entropy at plateau"), _column(found["grpo"], "entropy at plateau")),  # type: ignore[arg-type]
                cell(_column(runs, "fresh greedy")),
            ]
        )
    return rows


def _curves(found: Table) -> list[list[str]]:
    marks = [m for m in next(iter(found.values()))[0]["curve"] if int(m) % 20 == 0 or int(m) == ROLLOUTS]
    rows = [["arm", *(f"rollout {mark}" for mark in marks)]]
    for arm, runs in found.items():
        pairs = [[run["curve"].get(mark, (np.nan, np.nan)) for run in runs] for mark in marks]
        rows.append(
            [arm, *(f"{np.mean([a for a, _ in p]):.3f} / {np.mean([h for _, h in p]):.3f}" for p in pairs)]
        )
    return rows


_MECHANISM = {
    "tokens": ("chosen", ".0f"),
    "share of net covariance": ("restrained", ".2f"),
    "|log ratio| median": ("log ratio median", ".3f"),
    "p99": ("log ratio p99", ".2f"),
    "length": ("peak length", ".1f"),
    "a": ("a", ".3f"),
    "ceiling": ("ceiling", ".3f"),
    "R²": ("r2", ".2f"),
    "forecast RMSE": ("forecast", ".3f"),
    "no change RMSE": ("naive", ".3f"),
}

_COVARIANCE = {
    "mean": ("covariance", ".3f"),
    "> 0": ("covariance positive", ".2f"),
    "top 2 %": ("top 2 %", ".2f"),
    "likely, A > 0": ("quadrant likely_good", ".2f"),
    "likely, A < 0": ("quadrant likely_bad", ".2f"),
    "rare, A > 0": ("quadrant rare_good", ".2f"),
    "rare, A < 0": ("quadrant rare_bad", ".2f"),
    "gain by a third": ("gain by a third", ".2f"),
    "entropy spent by a third": ("spent by a third", ".2f"),
}


def _cells(found: Table, columns: dict[str, tuple[str, str]]) -> list[list[str]]:
    rows = [["arm", *columns]]
    for arm, runs in found.items():
        rows.append([arm, *(cell(_column(runs, name), spec) for name, spec in columns.values())])
    return rows


def _passes(found: Table) -> list[list[str]]:
    ladder = [1, 4, 16, 64, 256, 1024, 4096, 16384]
    rows = [["arm", *(f"k={k}" for k in ladder), "base ahead from k", "problems with p < 0.001"]]
    base = [run["base pass"] for run in found["grpo"]]
    rows.append(["base", *(f"{np.mean([b[str(k)] for b in base]):.3f}" for k in ladder), "–", "–"])
    for arm, runs in found.items():
        crossings = (
            "–" if any(run["crossing"] is None for run in runs) else _range([run["crossing"] for run in runs])
        )
        means = [f"{np.mean([run['pool pass'][str(k)] for run in runs]):.3f}" for k in ladder]
        rows.append([arm, *means, crossings, cell(_column(runs, "lost"))])
    return rows


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
