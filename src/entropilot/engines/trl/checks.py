"""Refuse settings that can't work before the first step; `entropilot check` and the trainer ask the same questions.

Everything here reads a `GRPOConfig` (or anything with its attributes) and imports no engine.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any, cast

from entropilot.errors import UserError
from entropilot.maths.advantages import ESTIMATORS
from entropilot.methods import Method
from entropilot.methods.advantage_method import AdvantageMethod

logger = logging.getLogger("entropilot")

# Only these losses have the PPO clip that `epsilon` sets; in cispo epsilon_high means something else.
CLIPPED_LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
TRL_EPSILON = 0.2


def refuse_estimator(estimator: str, aggregation: str = "sum_then_normalize") -> None:
    """Refuse an advantage estimator that does not exist, or that TRL's aggregation of rewards leaves no room for.

    Raises:
        UserError: it is refused.
    """
    if estimator not in ESTIMATORS:
        raise UserError(
            f"advantage_estimator={estimator!r} does not exist; choose one of {', '.join(ESTIMATORS)}."
        )
    if estimator != "grpo" and aggregation != "sum_then_normalize":
        raise UserError(
            f"advantage_estimator={estimator!r} needs one reward per completion; "
            "set multi_objective_aggregation to sum_then_normalize."
        )


def refuse_rule(rule: AdvantageMethod | None, estimator: str, args: Any) -> None:
    """Refuse an advantage method that leaves no room for the estimator, or that the loss can't take.

    Raises:
        UserError: it is refused.
    """
    if rule is None:
        return
    name = type(rule).__name__
    if rule.from_rewards and estimator != "grpo":
        raise UserError(
            f"{name} and advantage_estimator={estimator!r} both turn rewards into advantages; leave one of them out."
        )
    if rule.from_rewards and args.multi_objective_aggregation != "sum_then_normalize":
        raise UserError(
            f"{name} needs one reward per completion; set multi_objective_aggregation to sum_then_normalize."
        )
    if rule.per_token and args.importance_sampling_level != "token":
        raise UserError(
            f"{name} gives every token its own advantage, but with importance_sampling_level = "
            f"{args.importance_sampling_level} there is one ratio per completion, through which an advantage reaches all "
            "of its tokens; set importance_sampling_level to token."
        )


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


def _wrote_epsilon(args: Any) -> bool:
    """Return whether the user wrote `epsilon` or `epsilon_high`.

    A dataclass hands its default on as the very object that stands in the class. A number that a script, a recipe or a
    command line wrote is another object, also where it is equal, so 0.2 that was written is told from TRL's 0.2.
    """
    if args.epsilon_high is not None or args.epsilon != TRL_EPSILON:
        return True
    default = getattr(type(args), "epsilon", None)
    return default is not None and args.epsilon is not default


def settle_clip(method: Method | None, args: Any) -> tuple[Method | None, dict[str, Any]]:
    """Decide whose PPO clip is in force: the user's if `epsilon` or `epsilon_high` were written, else the method's.

    Returns:
        The method (with the user's clip in it, if that won, because it also decides which tokens Clip-Cov may choose)
        and {"low", "high", "source"}; a bound of infinity never clips, None means that the loss has none.

    Raises:
        UserError: the method's clip would leave TRL's `delta` without effect.
    """
    if args.loss_type not in CLIPPED_LOSSES:
        return method, {"low": None, "high": None, "source": f"loss_type {args.loss_type} has no PPO clip"}
    written = _wrote_epsilon(args)
    if method is not None and not written:
        low, high = (math.inf if bound is None else bound for bound in (method.clip_low, method.clip_high))
        delta = getattr(args, "delta", None)
        if delta is not None and delta <= 1 + high:
            own = "no PPO clip above" if math.isinf(high) else f"a PPO clip of {high:g} above"
            raise UserError(
                f"delta = {delta:g} bounds the ratio where A < 0 only if it exceeds 1 + epsilon_high, but "
                f"{type(method).__name__} sets {own}, so it would have no effect; set epsilon and epsilon_high yourself "
                f"(epsilon_high below {delta - 1:g}), or remove delta."
            )
        return method, {"low": low, "high": high, "source": "method"}
    low, high = args.epsilon, args.epsilon if args.epsilon_high is None else args.epsilon_high
    if method is not None:
        method = cast(Method, replace(cast(Any, method), clip_low=low, clip_high=high))
    return method, {"low": low, "high": high, "source": "user" if written else "TRL default"}


def describe_clip(method: Method | None, clip: dict[str, Any]) -> str:
    """Return what the PPO clip is, and who set it."""
    low, high, source = clip["low"], clip["high"], clip["source"]
    if low is None:
        return f"none ({source})"
    bounds = [
        f"ratio at least {max(0.0, 1 - low):g} where A < 0" if low < 1 else "",
        f"ratio at most {1 + high:g} where A > 0" if not math.isinf(high) else "",
    ]
    who = {
        "method": f"set by {type(method).__name__}; write epsilon to keep a clip of your own",
        "user": "set by epsilon and epsilon_high",
        "TRL default": "TRL's default",
    }[source]
    return f"{', '.join(filter(None, bounds)) or 'none'} ({who})"


def announce_clip(method: Method | None, clip: dict[str, Any]) -> None:
    """Say the clip once at start; aloud where a method has changed it."""
    level = logging.WARNING if clip["source"] == "method" else logging.INFO
    logger.log(level, f"PPO clip: {describe_clip(method, clip)}.")
