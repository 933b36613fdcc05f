"""Save what reward functions remember with a checkpoint, and give it back when a run is taken up again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entropilot.files import written_whole

FILE = "entropilot_rewards.json"


def save_states(folder: Path, rewards: Sequence[Any]) -> None:
    """Write what the rewards remember into the folder of a checkpoint; nothing where none remembers anything.

    A reward that remembers has `state()`, which returns plain data, and `take_up(state)`.
    """
    states = [reward.state() if hasattr(reward, "state") else None for reward in rewards]
    if any(state is not None for state in states):
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(folder / FILE) as file:
            file.write(json.dumps(states).encode())


def load_states(folder: Path, rewards: Sequence[Any]) -> None:
    """Give the rewards what they remembered; without the file, as in a checkpoint of an older version, they begin anew."""
    path = folder / FILE
    if not path.is_file():
        return
    for reward, state in zip(rewards, json.loads(path.read_text(encoding="utf-8")), strict=False):
        if state is not None and hasattr(reward, "take_up"):
            reward.take_up(state)
