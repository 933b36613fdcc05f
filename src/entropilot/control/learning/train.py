"""Train a policy on segments: imitation of all of them, then preferences with a new optimiser."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor

from entropilot.control.learning.phase import Data, Imitation, new_actor
from entropilot.control.learning.registry import Learner, check_settings
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.segments.actor import Actor
from entropilot.control.segments.check import check, check_pairs
from entropilot.control.segments.types import Pairs, Segments
from entropilot.errors import UserError


def prepare(
    segments: Segments, pairs: Pairs | None, settings: TrainSettings, task: str | None = None
) -> Learner:
    """Check the data before anything is written; return the method's entry.

    Raises:
        UserError: it cannot be trained on, with the numbers of the segments or pairs; or the settings cannot work.
    """
    learner = check_settings(settings)
    check(segments, task)
    if learner.phase is None:
        return learner
    if pairs is None:
        raise UserError(f"{settings.method} needs preferences; label the segments with control label.")
    check_pairs(pairs, len(segments))
    if learner.needs_labels and not segments.labelled:
        raise UserError(
            f"{settings.method} needs the author's mean and std at every step, which these segments lack; "
            "take method: ppl_dirac, or ppl_fitted, which fits authors."
        )
    return learner


def imitate(segments: Segments, settings: TrainSettings) -> Actor:
    """Return the policy after the first phase, behaviour cloning of all segments."""
    actor = new_actor(segments, settings)
    phase = Imitation(actor, Data(segments, None, actor), settings)
    while phase.step < phase.last:
        phase.update()
    return actor


def prefer(
    actor: Actor,
    segments: Segments,
    pairs: Pairs,
    settings: TrainSettings,
    on_step: Callable[[Actor, int, dict[str, Tensor]], Any] = lambda *_: None,
    note: Callable[[dict[str, Any]], Any] = lambda _: None,
) -> Actor:
    """Return a policy after the second phase; the one given, which imitates, is left as it is.

    Args:
        on_step: called after every update of the policy, with its number from 1.
        note: called with what is to be said of the segments: how many authors were fitted.
    """
    learner = prepare(segments, pairs, settings)
    actor = copy.deepcopy(actor)
    if learner.phase is None:
        return actor
    segments, about = learner.training_set(segments, settings)
    note(about)
    phase = learner.begin(actor, Data(segments, pairs, actor), settings)
    while phase.step < phase.last:
        values = phase.update()
        if phase.step > phase.lead_in:
            on_step(actor, phase.step - phase.lead_in, values)
    return actor
