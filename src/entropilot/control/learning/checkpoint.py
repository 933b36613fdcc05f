"""Save and load a run's checkpoint; a run continues with its own settings and data only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from entropilot.control.segments.types import Pairs, Segments
from entropilot.errors import UserError
from entropilot.files import written_whole
from entropilot.records import FILE_NAME

NAME = "checkpoint.pt"
HOLDS = {"phase", "step", "actor", "optimiser", "generator", "settings", "task"}


def digest(segments: Segments, pairs: Pairs | None) -> dict[str, str]:
    """Return a digest of each array that a run trains on, and of the pairs, by the name that people see."""
    arrays = {
        "states": [segments.states, segments.lengths],
        "actions": [segments.actions],
        "author labels": [segments.mean_b, segments.std_b],
    }
    if pairs is not None:
        arrays["pairs"] = [pairs.first, pairs.second, pairs.preferred]
    found = {}
    for name, parts in arrays.items():
        sha = hashlib.sha256()
        for part in parts:
            array = np.ascontiguousarray(part)
            sha.update(f"{array.dtype.str} {array.shape};".encode())
            sha.update(array.tobytes())
        found[name] = sha.hexdigest()
    return found


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; a kill leaves the one before."""
    with written_whole(path) as file:
        torch.save(state, file)


def load(out: Path, mine: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoint of the run in a folder.

    Args:
        mine: the settings, the task and the digest of the data (`digest`) that it is to be continued with.

    Raises:
        UserError: there is none, it can't be read, or it is of other settings or other data.
    """
    path = out / NAME
    if not path.is_file():
        if (out / FILE_NAME).is_file():
            raise UserError(
                f"The run in {out} has no checkpoint to resume from; remove the folder, or choose another --out."
            )
        raise UserError(f"{out} holds no checkpoint to resume from; leave out --resume.")
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # of many kinds, by where the file is torn
        raise UserError(
            f"{path} can't be read as a checkpoint, it is torn or something else; choose another --out."
        ) from error
    if not isinstance(state, dict) or not state.keys() >= HOLDS:
        raise UserError(f"{path} is no checkpoint of control train; choose another --out.")
    if state["settings"] != mine["settings"] or state["task"] != mine["task"]:
        raise UserError(
            f"The run in {out} was begun with other settings; resume with its recipe, or choose another --out."
        )
    if "data" not in state or "bf16" not in state:
        raise UserError(
            f"{path} was written by an earlier version and does not say what data it is of; choose another --out."
        )
    changed = [name for name in mine["data"] if state["data"].get(name) != mine["data"][name]]
    if changed:
        raise UserError(
            f"The run in {out} was begun on other data ({', '.join(changed)} differ); resume with its files, or choose "
            "another --out."
        )
    return state
