"""Hold one file per published method; no method imports another.

The names below are loaded when they are first used: the rewards of EMPO and of the majority need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from entropilot.methods.registry import REGISTRY

if TYPE_CHECKING:
    from entropilot.methods.answer_mask import AnswerMask
    from entropilot.methods.clip_cov import ClipCov
    from entropilot.methods.cpl import CPL
    from entropilot.methods.empo import EMPO
    from entropilot.methods.entropy_min import EntropyMin
    from entropilot.methods.kl_cov import KLCov
    from entropilot.methods.majority import Majority
    from entropilot.methods.ppl import PPL
    from entropilot.methods.scrl import SCRL
    from entropilot.methods.token_method import Method, Scope, Steering
    from entropilot.methods.trapo import TraPO

_HOMES: dict[str, str] = dict.fromkeys(("Method", "Scope", "Steering"), "entropilot.methods.token_method")
_HOMES |= {home: module for module, _, home in (entry.home.partition(":") for entry in REGISTRY.values())}

__all__ = [
    "AnswerMask",
    "CPL",
    "ClipCov",
    "EMPO",
    "EntropyMin",
    "KLCov",
    "Majority",
    "Method",
    "PPL",
    "SCRL",
    "Scope",
    "Steering",
    "TraPO",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'entropilot.methods' has no attribute {name!r}")
