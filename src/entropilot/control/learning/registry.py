"""List the methods that learn a policy from preferences, by name: one entry each; nothing else asks for a name.

To add a method, write its loss in `entropilot/methods/`, a `Phase` that trains with it, and its entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from entropilot.control.learning.phase import Data, Phase
from entropilot.control.learning.piql import ImplicitQ
from entropilot.control.learning.preference import Contrastive, Regret, Winners
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.segments.actor import Actor
from entropilot.control.segments.authors import fit_authors, with_labels
from entropilot.control.segments.types import Segments
from entropilot.errors import UserError
from entropilot.methods.cpl import CPL, cpl_kl, dpo_segment
from entropilot.methods.piql import PIQL
from entropilot.methods.ppl import PPL
from entropilot.recipes.values import fit_fields

Method = CPL | PPL | PIQL


@dataclass(frozen=True)
class Learner:
    """Hold how a method trains after imitation.

    Attributes:
        phase: makes the second phase, from (actor, data, settings) and, if there is a `method`, that; None: there is none.
        method: makes the loss from the settings; it raises ValueError if they cannot work.
        measures: what `loss` is in the second phase, for the header of a run.
        unit: of that loss.
        needs_labels: whether every step must have its author's mean and std.
        fits_authors: whether these are fitted to the segments instead.
        lead_in: updates before `settings.steps` that leave the policy as it is.
    """

    phase: Callable[..., Phase] | None
    method: Callable[[TrainSettings], Method] | None = None
    measures: str = ""
    unit: str = "nats"
    needs_labels: bool = False
    fits_authors: bool = False
    lead_in: Callable[[TrainSettings], int] = lambda _: 0

    def begin(self, actor: Actor, data: Data, settings: TrainSettings) -> Phase:
        """Return the second phase."""
        assert self.phase is not None
        if self.method is None:
            return self.phase(actor, data, settings)
        return self.phase(actor, data, settings, self.method(settings))

    def updates(self, settings: TrainSettings) -> int:
        """Return how many updates the second phase takes."""
        return 0 if self.phase is None else self.lead_in(settings) + settings.steps

    def training_set(self, segments: Segments, settings: TrainSettings) -> tuple[Segments, dict[str, Any]]:
        """Return the segments to train on, and what a result says of them: how many authors were fitted."""
        if not self.fits_authors:
            return segments, {}
        authors = fit_authors(segments, seed=settings.seed)
        return with_labels(segments, authors), {"authors": authors.count}


def _cpl(usual: CPL) -> Callable[[TrainSettings], CPL]:
    return lambda settings: replace(
        usual, alpha=_set(settings.alpha, usual.alpha), lam=_set(settings.lam, usual.lam)
    )


def _ppl(settings: TrainSettings) -> PPL:
    return PPL(
        _set(settings.alpha, 0.1),
        _set(settings.lam, 0.5),
        settings.gamma,
        settings.look_ahead,
        settings.window,
        settings.constant,
    )


def _set(value: float | None, default: float) -> float:
    return default if value is None else value


_ANSWERS = "minus the log-probability of the answers, mean over pairs"

LEARNERS: dict[str, Learner] = {
    "bc": Learner(None),
    "sft": Learner(Winners, measures="minus log π(a|s) of the preferred segments, mean over steps"),
    "cpl": Learner(Contrastive, _cpl(CPL()), _ANSWERS),
    "cpl_kl": Learner(Contrastive, _cpl(cpl_kl()), _ANSWERS),
    "dpo": Learner(Contrastive, _cpl(dpo_segment()), _ANSWERS),
    "ppl": Learner(Regret, _ppl, _ANSWERS, needs_labels=True),
    "ppl_sampled": Learner(partial(Regret, label="sampled"), _ppl, _ANSWERS, needs_labels=True),
    "ppl_dirac": Learner(partial(Regret, label="dirac"), _ppl, _ANSWERS),
    "ppl_fitted": Learner(Regret, _ppl, _ANSWERS, fits_authors=True),
    "piql": Learner(
        ImplicitQ,
        TrainSettings.piql_method,
        f"{_ANSWERS} while the reward model trains; then the sum of V's expectile loss and Q's squared error "
        "(both in squared units of the standardised reward) and the weighted imitation loss (nats)",
        "nats, then mixed",
        lead_in=TrainSettings.reward_steps,
    ),
}


def learner_of(method: str) -> Learner:
    """Look a method up by its name.

    Raises:
        UserError: there is none of that name.
    """
    if method not in LEARNERS:
        raise UserError(f"The method {method!r} does not exist; choose one of {', '.join(LEARNERS)}.")
    return LEARNERS[method]


def check_settings(settings: TrainSettings) -> Learner:
    """Check that a method exists and takes these settings; return its entry.

    Raises:
        UserError: it does not.
    """
    learner = learner_of(settings.method)
    try:
        if learner.method is not None:
            learner.method(settings)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error
    return learner


def settings_from(values: dict[str, Any]) -> TrainSettings:
    """Read the settings of a recipe's section `train`.

    Raises:
        UserError: a key that does not exist, a value of another kind, or settings that cannot work.
    """
    settings = TrainSettings(**fit_fields(TrainSettings, values, "train", "control train"))
    check_settings(settings)
    return settings
