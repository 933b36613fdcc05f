"""Find what is wrong with a run: all checks, on a log that was read or on rows of a run that goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import resources

from entropilot.law.findings import entropy, learning, updates
from entropilot.law.findings.finding import SEVERITIES, Check, RunFinding
from entropilot.law.findings.signals import Signal, Signals

CHECKS: dict[str, Check] = {
    "dead run": learning.dead_run,
    "reward collapse": learning.reward_collapse,
    "entropy explosion": entropy.entropy_explosion,
    "drift": updates.drift,
    "inert method": updates.inert_method,
    "entropy collapse": entropy.entropy_collapse,
    "groups without contrast": learning.one_sided_groups,
    "zero-gradient steps": learning.zero_gradients,
    "truncation": updates.truncation,
    "clip at its limit": updates.clip_at_limit,
    "entropies apart": entropy.entropies_apart,
    "validation falls": learning.validation_falls,
    "majorities flip": learning.majorities_flip,
    "repetition": entropy.repetition,
}

# By check: what it looks at; any one of the alternatives is enough.
NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "dead run": (("reward",), ("equal groups",), ("all right", "all wrong"), ("loss", "gradient")),
    "reward collapse": (("reward",),),
    "entropy explosion": (("entropy",),),
    "drift": (("kl",), ("log ratio",)),
    "inert method": (("chosen",), ("log ratio",)),
    "entropy collapse": (("entropy",),),
    "groups without contrast": (("equal groups",), ("all right", "all wrong")),
    "zero-gradient steps": (("gradient",),),
    "truncation": (("truncated",),),
    "clip at its limit": (("clip",), ("clip low", "clip high")),
    "entropies apart": (("engine difference",), ("rollout entropy", "training entropy")),
    "validation falls": (("reward", "validation"),),
    "majorities flip": (("flip rate",),),
    "repetition": (("length", "entropy"),),
}

# By check and meaning: how many values are asked for, where it is not learning.LEAST.
FEWEST: dict[tuple[str, str], int] = {
    ("inert method", "chosen"): updates.FEW,
    ("inert method", "log ratio"): updates.FEW,
    ("validation falls", "validation"): learning.VALIDATIONS,
    ("repetition", "length"): entropy.LENGTHS,
}


# What the public runs don't log, so that a check's false alarms could not be counted on them.
NOT_PUBLIC: dict[str, str] = {
    "drift": "no KL",
    "inert method": "no chosen tokens",
    "groups without contrast": "no rewards by group",
    "zero-gradient steps": "no gradient norm",
    "truncation": "no truncated completions",
    "clip at its limit": "no clip ratio",
    "entropies apart": "no second entropy",
    "majorities flip": "no majority answers",
    "repetition": "no completion lengths",
}


def unchecked(signals: Signals) -> list[str]:
    """List the checks for which the run logged nothing."""
    return [name for name in NEEDS if not _has(signals, name, enough=False)]


def too_short(signals: Signals) -> list[str]:
    """List the checks for which the run logged something, but fewer values than they judge by."""
    return [
        name for name in NEEDS if _has(signals, name, enough=False) and not _has(signals, name, enough=True)
    ]


def _has(signals: Signals, name: str, enough: bool) -> bool:
    """Tell whether a check's metrics were logged, at all or often enough."""

    def logged(meaning: str) -> bool:
        least = FEWEST.get((name, meaning), learning.LEAST) if enough else 1
        return signals.get(meaning, least) is not None

    return any(all(map(logged, needed)) for needed in NEEDS[name])


def find(signals: Signals, controls: Sequence[Signals] = ()) -> list[RunFinding]:
    """Find what is wrong with a run, errors first.

    Args:
        signals: of the run.
        controls: of runs without the method. A finding that a control shows too says so, and a performance below
            theirs is a finding of its own.
    """
    found = [finding for check in CHECKS.values() if (finding := check(signals)) is not None]
    found = [
        replace(
            finding,
            healthy=healthy_rate(finding.name),
            also_in=tuple(
                control.run.name for control in controls if CHECKS[finding.name](control) is not None
            ),
        )
        for finding in found
    ]
    below = below_controls(signals, controls)
    if below is not None:
        found.append(below)
    return sorted(found, key=lambda finding: -SEVERITIES.index(finding.severity))


def below_controls(signals: Signals, controls: Sequence[Signals]) -> RunFinding | None:
    """Find a performance at the end below that of the controls, beyond noise, and beyond their spread where it is known."""
    for meaning in ("validation", "reward"):
        own = signals.get(meaning)
        others = [other for control in controls if (other := control.get(meaning)) is not None]
        if own is not None and others:
            break
    else:
        return None
    ends = [_at(other, own.steps[-1]) for other in others]
    middle = sum(end.end for end in ends) / len(ends)
    spread = sum((end.end - middle) ** 2 for end in ends) / max(1, len(ends) - 1)
    noise = own.mean_noise**2 + sum(end.mean_noise**2 for end in ends) / len(ends) ** 2 + spread
    gap = middle - own.end
    if not gap > 2 * math.sqrt(noise) or gap <= 0:
        return None
    return RunFinding(
        "below the controls",
        "warning",
        (own.steps[0], own.steps[-1]),
        f"{own.name} ends at {own.end:.3g} and the mean of {len(ends)} control{'s' * (len(ends) > 1)} is {middle:.3g}, two "
        "standard deviations or more apart",
        {"own": own.end, "controls": middle, "controls compared": float(len(ends))},
        "The run ends below the runs without the method."
        + (" A single control does not show how much seeds differ." if len(ends) == 1 else ""),
        "Compare several seeds of both before you conclude anything, or weaken the method.",
        "not measured, because the public runs have no controls",
    )


def _at(signal: Signal, step: float) -> Signal:
    """Return a signal up to a step, so that runs of different lengths are compared at the same one."""
    kept = signal.steps <= step
    return Signal(signal.name, signal.steps[kept], signal.values[kept]) if kept.sum() >= 3 else signal


def healthy_rate(name: str) -> str:
    """Say how often a check spoke on healthy public runs, or why that is not known."""
    rate = _rates().get(name)
    if rate is None:
        return f"not measured, because the public runs log {NOT_PUBLIC[name]}"
    return f"spoke on {rate[0]} of {rate[1]} healthy public runs"


@cache
def _rates() -> dict[str, tuple[int, int]]:
    text = resources.files("entropilot.law.findings").joinpath("rates.json").read_text(encoding="utf-8")
    return {name: (row["spoke"], row["healthy"]) for name, row in json.loads(text)["checks"].items()}
