"""Define unit and meaning of each column that `control train` records, for the header and the page."""

from __future__ import annotations

from entropilot.control.learning.registry import Learner

COLUMNS = {
    "phase": ("name", "bc while all segments are imitated, preference after that"),
    "ranked_right": ("share", "of the last batch's pairs, whose preferred segment scores higher"),
    "success": ("share", "of evaluation episodes that are solved at any step; the policy acts by its mean"),
    "episodes": ("episodes", "how many were evaluated"),
    "seconds": ("s", "since this session of the run began, evaluation included"),
}


def definitions(learner: Learner) -> dict[str, dict[str, str]]:
    """Return {column: unit and definition} of a method's run.

    Log-probs leave the normaliser of the policy's Gaussian out: log π(a|s) = −‖m(s) − a‖².
    """
    text = "of the last batch. Phase bc: ‖m(s) − a‖², that is minus log π(a|s) up to a constant, mean over states"
    unit = "nats"
    if learner.phase is not None:
        text, unit = f"{text}. Phase preference: {learner.measures}", learner.unit
    columns = {"loss": (unit, text), **COLUMNS}
    return {name: {"unit": unit, "definition": text} for name, (unit, text) in columns.items()}
