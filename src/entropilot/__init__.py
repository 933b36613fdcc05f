"""entropilot: reinforcement learning of reasoning language models when labels are scarce and entropy is the currency.

The names below are loaded when they are first used, so that statistics never import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "ClipCov": "entropilot.methods",
    "KLCov": "entropilot.methods",
    "TokenBatch": "entropilot.maths.tokens",
    "policy_loss": "entropilot.methods.policy_loss",
    "token_covariance": "entropilot.maths.covariance",
    "EntropyGRPOTrainer": "entropilot.engines.trl.trainer",
    "PPLTrainer": "entropilot.engines.trl.preference",
    "LawFit": "entropilot.law.law",
    "fit_law": "entropilot.law.law",
    "Run": "entropilot.records",
    "read_run": "entropilot.records",
    "UserError": "entropilot.errors",
}
__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from entropilot.engines.trl.preference import PPLTrainer
    from entropilot.engines.trl.trainer import EntropyGRPOTrainer
    from entropilot.errors import UserError
    from entropilot.law.law import LawFit, fit_law
    from entropilot.maths.covariance import token_covariance
    from entropilot.maths.tokens import TokenBatch
    from entropilot.methods import ClipCov, KLCov
    from entropilot.methods.policy_loss import policy_loss
    from entropilot.records import Run, read_run


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'entropilot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
