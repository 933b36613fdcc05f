"""The arms of the exploration study: GRPO on a fixed pool, and one change each, beside the arm that it is compared with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from entropilot.errors import UserError

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
