"""entropilot: track, forecast and control policy entropy in reinforcement learning of language models.

The names below are loaded when they are first used, so that statistics never import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    # methods and the engine
    "AnswerMask": "entropilot.methods",
    "ClipCov": "entropilot.methods",
    "EMPO": "entropilot.methods",
    "EntropyMin": "entropilot.methods",
    "KLCov": "entropilot.methods",
    "Majority": "entropilot.methods",
    "PPL": "entropilot.methods",
    "EntropyGRPOTrainer": "entropilot.engines.trl.trainer",
    "SCRL": "entropilot.methods",
    "PPLTrainer": "entropilot.engines.trl.preference",
    "Probe": "entropilot.recording.probe",
    # loops of one's own
    "TokenBatch": "entropilot.maths.tokens",
    "policy_loss": "entropilot.methods.policy_loss",
    "token_covariance": "entropilot.maths.covariance",
    # recipes, runs and answers
    "Recipe": "entropilot.recipes.schema",
    "load_recipe": "entropilot.recipes.schema",
    "train": "entropilot.api",
    "evaluate": "entropilot.api",
    "cluster": "entropilot.api",
    # records and the law
    "Run": "entropilot.records",
    "read_run": "entropilot.records",
    "read": "entropilot.readers",
    "LawFit": "entropilot.law.law",
    "fit_law": "entropilot.law.law",
    "forecast": "entropilot.api",
    "UserError": "entropilot.errors",
}
__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from entropilot.api import cluster, evaluate, forecast, train
    from entropilot.engines.trl.preference import PPLTrainer
    from entropilot.engines.trl.trainer import EntropyGRPOTrainer
    from entropilot.errors import UserError
    from entropilot.law.law import LawFit, fit_law
    from entropilot.maths.covariance import token_covariance
    from entropilot.maths.tokens import TokenBatch
    from entropilot.methods import EMPO, PPL, SCRL, AnswerMask, ClipCov, EntropyMin, KLCov, Majority
    from entropilot.methods.policy_loss import policy_loss
    from entropilot.readers import read
    from entropilot.recipes.schema import Recipe, load_recipe
    from entropilot.recording.probe import Probe
    from entropilot.records import Run, read_run


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'entropilot' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "entropilot"):
            raise
        raise ImportError(
            f"entropilot.{name} needs {missing}; install torch for your machine first, then: "
            'pip install "entropilot[train]"',
            name=missing,
        ) from None


def __dir__() -> list[str]:
    return sorted(__all__)
