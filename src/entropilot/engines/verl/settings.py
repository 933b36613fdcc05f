"""Read a method's settings from verl's configuration and from the environment."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from entropilot.errors import UserError
from entropilot.methods import registry
from entropilot.methods.token_method import Method

PREFIX = "entropilot_"  # of a loss's name
VARIABLE = "ENTROPILOT_METHOD"
ADVANTAGE_VARIABLE = "ENTROPILOT_ADVANTAGE"  # of an estimator, so that it goes together with a loss of ours
SECTION = "actor_rollout_ref.actor.policy_loss"
# Field of the method -> field of verl's PolicyLossConfig, which is closed: other fields come from the environment.
FIELDS: dict[str, dict[str, str]] = {
    "clip_cov": {"fraction": "clip_cov_ratio", "cov_low": "clip_cov_lb", "cov_high": "clip_cov_ub"},
    "kl_cov": {"fraction": "kl_cov_ratio", "coef": "ppo_kl_coef"},
}
NO_CLIP = 1e9  # a bound that no ratio reaches; infinity times an advantage of 0 would be NaN
_VERL_CLIP = (0.2, 0.2)  # verl's defaults of clip_ratio_low and clip_ratio_high


def token_methods() -> list[str]:
    """Return the names of all token methods that verl can run: ours, and those that other installed packages offer.

    Without those that read the place of the answer, because verl's losses see no text.
    """
    entries = (registry.find(name) for name in registry.names())
    return [
        entry.name
        for entry in entries
        if entry.kind == "token" and not getattr(entry.load(), "reads_span", False)
    ]


def advantage_methods(*, from_rewards: bool) -> list[str]:
    """Return the names of the advantage methods that verl can run: as estimators, or as losses.

    Args:
        from_rewards: those that take the place of an estimator; else those that change the advantages of single tokens.
            A rule that changes whole completions by the entropy of the rollout is neither.
    """
    classes = {name: registry.find(name) for name in registry.names()}
    classes = {name: entry.load() for name, entry in classes.items() if entry.kind == "advantage"}
    return [
        name
        for name, cls in classes.items()
        if cls.from_rewards == from_rewards and cls.per_token != from_rewards
    ]


def method_name(config: Any) -> str | None:
    """Return the method that verl's actor configuration asks for, such as `kl_cov`; None for a loss of verl's own."""
    loss = str(config.policy_loss.get("loss_mode", "vanilla"))
    return loss.removeprefix(PREFIX) if loss.startswith(PREFIX) else None


def method_of(config: Any) -> Method | None:
    """Build the token method that verl's actor configuration asks for; None for another loss.

    Raises:
        UserError: a setting that the method refuses, or ENTROPILOT_METHOD is no JSON object of its fields.
    """
    name = method_name(config)
    if name is None or registry.find(name).kind != "token":
        return None
    known = FIELDS.get(name, {})
    given = {field: getattr(config.policy_loss, source) for field, source in known.items()}
    method = cast(Method, built(name, {field: value for field, value in given.items() if value is not None}))
    if method.scope == "microbatch":
        raise UserError(
            f"{VARIABLE}: scope = microbatch is what verl's own losses do; set {SECTION}.loss_mode={name} for it, or "
            "choose the scope rollout or update."
        )
    return method


def built(name: str, given: dict[str, Any], variable: str = VARIABLE) -> Any:
    """Build a method from fields of verl's, and from the environment, which wins.

    Args:
        name: of the method.
        given: the fields that verl's configuration sets.
        variable: of the environment.

    Raises:
        UserError: a setting that the method refuses, one that needs what verl does not show, or no JSON object.
    """
    cls = registry.find(name).load()
    extra = _from_environment(name, cls, variable)
    if extra.get("restrain") is not None:
        given = {field: value for field, value in given.items() if field != "fraction"}  # takes its place
    try:
        method = cls(**{**given, **extra})
    except ValueError as error:
        spelled = ", ".join(
            f"{field} is {SECTION}.{source}" for field, source in FIELDS.get(name, {}).items()
        )
        raise UserError(
            f"{error} In verl {spelled or 'every field'}; other fields are set in {variable}."
        ) from error
    if getattr(method, "adapts", False):
        fields = {field.name for field in dataclasses.fields(cls)}
        off = '{"adaptive": false}' if "adaptive" in fields and "zeta" in fields else '{"target": null}'
        raise UserError(
            f"{name} changes with the entropy of every rollout, which verl does not show to a loss; set "
            f"{variable}='{off}', so that it acts at all times."
        )
    return method


def _from_environment(name: str, cls: type, variable: str) -> dict[str, Any]:
    text = os.environ.get(variable, "").strip()
    if not text:
        return {}
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(
            f'{variable} = {text!r} is no JSON; write an object of fields, such as {{"restrain": 1.0}}.'
        ) from error
    if not isinstance(values, dict):
        raise UserError(f'{variable} = {text!r} is no JSON object; write one, such as {{"restrain": 1.0}}.')
    fields = [field.name for field in dataclasses.fields(cast(Any, cls))]
    hints = get_type_hints(cls)
    for field, value in values.items():
        if field not in fields:
            raise UserError(f"{variable}: {name} has no field {field!r}; it has {', '.join(fields)}.")
        try:
            values[field] = TypeAdapter(hints[field]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise UserError(f"{variable}: {field} = {value!r} does not fit ({reason}); change it.") from error
    return values


def clip_of(config: Any, method: Method) -> tuple[float, float, float]:
    """Return (low, high, dual) of the PPO clip in force: the method's own, unless the user changed verl's defaults.

    `dual` is verl's `clip_ratio_c`, a bound for negative advantages that the published methods do not have: it is
    verl's where the user set a clip, and out of reach where the method's own is in force.
    """
    low = config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low
    high = config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high
    if (low, high) != _VERL_CLIP:
        return low, high, config.get("clip_ratio_c", 3.0)
    own = [NO_CLIP if bound is None else bound for bound in (method.clip_low, method.clip_high)]
    return own[0], own[1], NO_CLIP


def with_clip(config: Any, method: Method) -> Method:
    """Return the method with the clip in force, which also decides which tokens Clip-Cov may choose."""
    low, high, _ = clip_of(config, method)
    return cast(Method, dataclasses.replace(cast(Any, method), clip_low=low, clip_high=high))
