"""One file per published method; no method imports another."""

from entropilot.methods.clip_cov import ClipCov
from entropilot.methods.kl_cov import KLCov
from entropilot.methods.steering import Method, Scope, Steering

# What a recipe writes behind `method:`.
METHODS: dict[str, type[ClipCov] | type[KLCov]] = {"clip_cov": ClipCov, "kl_cov": KLCov}

__all__ = ["METHODS", "ClipCov", "KLCov", "Method", "Scope", "Steering"]
