"""One file per published method; no method imports another.

The names below are loaded when they are first used: the rewards of EMPO and of the majority need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from entropilot.methods.clip_cov import ClipCov
    from entropilot.methods.empo import EMPO
    from entropilot.methods.entropy_min import EntropyMin
    from entropilot.methods.kl_cov import KLCov
    from entropilot.methods.majority import Majority
    from entropilot.methods.token_method import Method, Scope, Steering

    # Those that choose tokens, by the name that a recipe writes behind `method:`.
    METHODS: dict[str, type[ClipCov] | type[KLCov]] = {"clip_cov": ClipCov, "kl_cov": KLCov}

_HOME = {
    "ClipCov": "clip_cov",
    "EMPO": "empo",
    "EntropyMin": "entropy_min",
    "KLCov": "kl_cov",
    "Majority": "majority",
    "Method": "token_method",
    "Scope": "token_method",
    "Steering": "token_method",
}

__all__ = ["METHODS", "ClipCov", "EMPO", "EntropyMin", "KLCov", "Majority", "Method", "Scope", "Steering"]


def __getattr__(name: str) -> Any:
    if name == "METHODS":
        return {key: __getattr__(kind) for key, kind in (("clip_cov", "ClipCov"), ("kl_cov", "KLCov"))}
    if name in _HOME:
        return getattr(import_module(f"entropilot.methods.{_HOME[name]}"), name)
    raise AttributeError(f"module 'entropilot.methods' has no attribute {name!r}")
