"""Tell which of several processes this is, and exchange objects between them; one process needs no torch."""

from __future__ import annotations

import os
import sys
from typing import Any


def _group() -> Any:
    """Return `torch.distributed` where it is running, else None; torch is not imported for the question."""
    distributed = sys.modules.get("torch.distributed")
    running = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if running else None


def rank() -> int:
    """Return this process's number, from 0.

    It is torch.distributed's where that runs, else what the launcher (torchrun, accelerate) put into RANK.
    """
    group = _group()
    if group is not None:
        return group.get_rank()
    several = int(os.environ.get("WORLD_SIZE") or 1) > 1
    return int(os.environ.get("RANK") or 0) if several else 0


def gather_objects(value: Any) -> list[Any]:
    """Return the (picklable) value of every process, in order of rank; of a single process, its own alone."""
    group = _group()
    if group is None:
        return [value]
    values: list[Any] = [None] * group.get_world_size()
    group.all_gather_object(values, value)
    return values
