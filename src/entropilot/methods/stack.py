"""Let several methods act in one training: at most one advantage method, one token method and one controller."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from entropilot.errors import UserError
from entropilot.methods import registry
from entropilot.methods.adaptive import Memory, Reading

# What an object must have to be of a kind that can be combined.
_VERBS = {"token": ("select", "steer"), "advantage": ("estimate",), "controller": ("steer_to",)}


def _kind(method: Any) -> str | None:
    return next(
        (kind for kind, verbs in _VERBS.items() if all(hasattr(method, verb) for verb in verbs)), None
    )


@dataclass(frozen=True)
class Stack:
    """Hold the methods that act together; None where there is none of a kind.

    Attributes:
        advantage: see `AdvantageMethod`.
        token: see `entropilot.methods.token_method.Method`.
        controller: has `steer_to`, as `EntropyTarget`.
    """

    # Any: a method of another package has the verbs, and need not be declared as one.
    advantage: Any = None
    token: Any = None
    controller: Any = None

    @classmethod
    def of(cls, method: Any) -> Stack:
        """Return the stack that an argument means: None, a method, the name of one, or a list of these.

        Raises:
            UserError: something that is no such method, two of one kind, or a controller without a method to drive.
        """
        parts: dict[str, Any] = {}
        for item in method if isinstance(method, list | tuple) else [method]:
            if item is None:
                continue
            made = _built(item)
            kind = _kind(made)
            if kind is None:
                raise UserError(
                    f"method={made!r} is no token method (it has no select and steer) and no advantage method (no "
                    "estimate); give KLCov(), ClipCov(), or None."
                )
            if kind in parts:
                raise UserError(
                    f"method: {type(parts[kind]).__name__} and {type(made).__name__} are both {kind} methods; give one "
                    "of them."
                )
            parts[kind] = made
        stack = cls(**parts)
        if stack.controller is not None:
            stack.driven  # noqa: B018 - refuses what can't be driven
        return stack

    @property
    def methods(self) -> Any:
        """Return what was given: None, one method, or a tuple of several."""
        parts = tuple(part for item in fields(self) if (part := getattr(self, item.name)) is not None)
        return parts if len(parts) > 1 else parts[0] if parts else None

    @property
    def driven(self) -> str:
        """Return the kind of the method that the controller drives.

        Raises:
            UserError: there is none, or more than one.
        """
        kinds = [kind for kind in ("advantage", "token") if hasattr(getattr(self, kind), "driven")]
        if len(kinds) != 1:
            names = [name for name, entry in registry.REGISTRY.items() if entry.driven]
            given = "two of its methods can be driven" if kinds else "there is no method that it could drive"
            raise UserError(
                f"{type(self.controller).__name__} holds entropy through one other method, but {given}; give one of "
                f"{', '.join(names)} beside it."
            )
        return kinds[0]

    @property
    def adapts(self) -> bool:
        """Tell whether a method changes its settings between rollouts."""
        parts = (self.advantage, self.token)
        return self.controller is not None or any(getattr(part, "adapts", False) for part in parts)

    @property
    def reads_rollout(self) -> bool:
        """Tell whether a method needs log-probs and entropy of a rollout before its tokens are chosen."""
        return self.advantage is not None or self.adapts

    def adapt(self, memory: dict[str, Memory], reading: Reading) -> tuple[Stack, dict[str, Memory]]:
        """Return the methods as they act on this rollout, and what they remember, by kind.

        Args:
            memory: of the rollout before; empty at the start.
            reading: of this rollout.
        """
        changed: dict[str, Any] = {}
        after: dict[str, Memory] = {}
        if self.controller is not None:
            strength, target, after["controller"] = self.controller.steer_to(
                memory.get("controller", {}), reading
            )
            changed[self.driven] = getattr(self, self.driven).driven(strength, target)
        for kind in ("advantage", "token"):
            part = changed.get(kind, getattr(self, kind))
            if getattr(part, "adapts", False):
                changed[kind], after[kind] = part.adapt(memory.get(kind, {}), reading)
        return replace(self, **changed), after


def _built(item: Any) -> Any:
    if isinstance(item, str):
        kind = registry.find(item).kind
        if kind not in _VERBS:
            known = [name for kind in _VERBS for name in registry.of_kind(kind)]  # type: ignore[arg-type]
            raise UserError(
                f"method={item!r} chooses no tokens and gives no advantages; choose one of {', '.join(known)}, or None."
            )
        return registry.build(item)
    if isinstance(item, type):
        raise UserError(f"method={item.__name__} is a class; write method={item.__name__}().")
    return item
