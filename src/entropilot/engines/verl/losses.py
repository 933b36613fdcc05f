"""Policy losses for verl: its own vanilla loss, steered by a token method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss, compute_policy_loss_vanilla, register_policy_loss

from entropilot.engines.verl import advantages, plugin
from entropilot.engines.verl.choosing import CHOICE
from entropilot.engines.verl.settings import PREFIX, clip_of, method_of, token_methods, with_clip
from entropilot.errors import UserError
from entropilot.maths.tokens import TokenBatch
from entropilot.methods.token_method import Method

_ENGINE = "entropilot.engines.verl.engine"


def steered_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Return verl's vanilla loss with the effect of a method on the chosen tokens; the signature is verl's.

    Where the method detaches a token, its policy gradient stops, and where it reweights one, it is multiplied; the
    gradient of verl's `kl_loss` and of its entropy bonus does not pass through here and goes on. A penalty is averaged as
    `loss_agg_mode` averages the loss, and
    weighted by `rollout_is_weights` like it.

    Args:
        old_log_prob: log π_old(a_t), nats, (b, t).
        log_prob: log π_θ(a_t), nats, (b, t), with its graph.
        advantages: (b, t).
        response_mask: (b, t), non-zero where a token counts.
        loss_agg_mode: verl's name of the average.
        config: verl's `ActorConfig`.
        rollout_is_weights: (b, t), of verl's rollout correction.

    Raises:
        UserError: no engine of ours chose the tokens, or a setting does not fit.
    """
    choice, method = CHOICE.get(), method_of(config)
    assert method is not None  # this loss is registered under the names of methods only
    if choice is None:
        raise UserError(_no_choice(config))
    if choice.selected.shape != log_prob.shape:
        raise UserError(
            f"The choice of tokens has shape {tuple(choice.selected.shape)}, but verl's loss has "
            f"{tuple(log_prob.shape)}; entropilot's losses don't work with this part of verl {plugin.version('verl')}."
        )
    stale = log_prob.detach() if choice.fresh else old_log_prob
    batch = TokenBatch(old_logp=stale, logp=log_prob, advantages=advantages, mask=response_mask)
    steering = with_clip(config, method).steer(batch, choice.selected)
    log_prob = steering.applied(log_prob)
    loss, metrics = compute_policy_loss_vanilla(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=response_mask,
        loss_agg_mode=loss_agg_mode,
        config=_clipped(config, method),
        rollout_is_weights=rollout_is_weights,
    )
    if steering.extra is not None:
        extra = steering.extra if rollout_is_weights is None else steering.extra * rollout_is_weights
        loss = loss + agg_loss(
            loss_mat=extra, loss_mask=response_mask, loss_agg_mode=loss_agg_mode, **config.global_batch_info
        )
    return loss, metrics


def _clipped(config: Any, method: Method) -> Any:
    """Return verl's configuration with the clip in force; the user's own object stays as it is."""
    low, high, dual = clip_of(config, method)
    changed = copy.copy(config)
    for field, value in (("clip_ratio_low", low), ("clip_ratio_high", high), ("clip_ratio_c", dual)):
        object.__setattr__(changed, field, value)  # verl's configurations are frozen for their users
    return changed


def _no_choice(config: Any) -> str:
    loss = config.policy_loss.get("loss_mode")
    cause = plugin.FAILURES.get(_ENGINE)
    if cause is not None:
        why = f"entropilot's engine could not be registered ({cause})"
    else:
        why = f"the strategy {config.strategy!r} does not run on entropilot's engine"
    return (
        f"loss_mode = {loss} needs tokens that are chosen over the whole optimiser mini-batch, but {why}, and choosing "
        "in each micro-batch would be another method; set actor_rollout_ref.actor.strategy to fsdp or fsdp2, or "
        f"loss_mode to verl's own {str(loss).removeprefix(PREFIX)}."
    )


def register() -> None:
    """Register one loss for every token method, as `entropilot_` and the method's name, and the advantage methods."""
    register_loss: Callable[[str], Callable[[Any], Any]] = register_policy_loss
    for name in token_methods():
        register_loss(PREFIX + name)(steered_loss)
    advantages.register()
