"""Refuse settings that can't work before the first step; `entropilot check` and the trainer ask the same questions.

Everything here reads a `GRPOConfig` (or anything with its attributes) and imports no engine.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

from entropilot.errors import UserError
from entropilot.methods import Method

# Only these losses have the PPO clip that `epsilon` sets; in cispo epsilon_high means something else.
CLIPPED_LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
TRL_EPSILON = 0.2


def updates_per_rollout(args: Any) -> float:
    """Return optimiser updates per rollout: steps_per_generation · num_iterations / gradient_accumulation_steps."""
    return args.steps_per_generation * args.num_iterations / args.gradient_accumulation_steps


def refuse_on_policy(method: Method | None, args: Any) -> None:
    """Refuse a method that acts through the drift from the rollout's policy where there is no drift.

    Raises:
        UserError: KL-Cov with one update per rollout, where it does nothing (or, under vLLM correction, follows
            the sign of rounding noise).
    """
    if method is None or not method.needs_stale_logp or updates_per_rollout(args) > 1:
        return
    accumulation = args.gradient_accumulation_steps
    raise UserError(
        f"KL-Cov needs stale log-probs: with steps_per_generation = {args.steps_per_generation}, num_iterations = "
        f"{args.num_iterations} and gradient_accumulation_steps = {accumulation} there is one update per rollout, so "
        f"the log-ratio is always 0; set steps_per_generation to {2 * accumulation} or more, or num_iterations to 2."
    )


def refuse_early_update_scope(method: Method | None, args: Any) -> None:
    """Refuse scope=update where the optimiser mini-batch is not sampled yet when its first part is trained on.

    Raises:
        UserError: an update reaches over the end of a rollout.
    """
    if method is None or method.scope != "update":
        return
    parts, accumulation = args.steps_per_generation * args.num_iterations, args.gradient_accumulation_steps
    if accumulation > args.steps_per_generation or parts % accumulation:
        raise UserError(
            "scope=update chooses over one optimiser mini-batch, but with gradient_accumulation_steps = "
            f"{accumulation}, steps_per_generation = {args.steps_per_generation} and num_iterations = "
            f"{args.num_iterations} a mini-batch reaches into the next rollout, which is not sampled yet when its first "
            f"part is trained on; use scope=rollout, or set steps_per_generation to a multiple of {accumulation}."
        )


def settle_clip(method: Method | None, args: Any) -> tuple[Method | None, dict[str, Any]]:
    """Decide whose PPO clip is in force: the user's if `epsilon` or `epsilon_high` differ from TRL's, else the method's.

    Returns:
        The method (with the user's clip in it, if that won, because it also decides which tokens Clip-Cov may choose)
        and {"low", "high", "source"}; a bound of infinity never clips, None means that the loss has none.
    """
    if args.loss_type not in CLIPPED_LOSSES:
        return method, {"low": None, "high": None, "source": f"loss_type {args.loss_type} has no PPO clip"}
    if method is not None and args.epsilon == TRL_EPSILON and args.epsilon_high is None:
        low, high = (math.inf if bound is None else bound for bound in (method.clip_low, method.clip_high))
        return method, {"low": low, "high": high, "source": "method"}
    low, high = args.epsilon, args.epsilon if args.epsilon_high is None else args.epsilon_high
    if method is not None:
        method = cast(Method, replace(cast(Any, method), clip_low=low, clip_high=high))
    source = "user" if args.epsilon != TRL_EPSILON or args.epsilon_high is not None else "TRL default"
    return method, {"low": low, "high": high, "source": source}
