"""Define unit and meaning of each column that `control train` records, for the header and the page."""

from __future__ import annotations

from entropilot.control.learning.registry import Learner
from entropilot.metrics import CONTROL, described


def definitions(learner: Learner) -> dict[str, dict[str, str]]:
    """Return {column: unit and definition} of a method's run, with what its own loss is in phase preference."""
    if learner.phase is None:
        return described(CONTROL)
    text = f"{CONTROL['loss'][1]}. Phase preference: {learner.measures}"
    return described(CONTROL | {"loss": (learner.unit, text)})
