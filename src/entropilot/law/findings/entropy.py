"""Check the entropy of a run: collapse, explosion, two entropies far apart, repetition."""

from __future__ import annotations

import numpy as np

from entropilot.law.advice import FEWER_UPDATES, on_repeated_problems
from entropilot.law.findings.finding import RunFinding
from entropilot.law.findings.learning import LEAST, SOLVED
from entropilot.law.findings.signals import Signal, Signals

SPENT = 0.1  # of the first entropy, below which it counts as collapsed
GROWN, GROWN_NATS = (
    3.0,
    0.3,
)  # how many times the first entropy, and by how many nats at least, counts as exploded
LENGTHS = 2 * LEAST  # mean lengths, of whose last half a course is judged
APART, APART_NATS = 1.5, 0.05  # ratio and difference of two entropies


def entropy_collapse(signals: Signals) -> RunFinding | None:
    """Find an entropy below a tenth of its start, and a reward that has stopped rising."""
    entropy = _entropy(signals)
    if entropy is None or entropy.start <= 0 or entropy.end >= SPENT * entropy.start:
        return None
    low = entropy.smooth < SPENT * entropy.start
    reached = float(entropy.smooth_steps[int(low.argmax())])
    reward = signals.get("reward", LEAST)
    if reward is not None:
        late = Signal(reward.name, *(part[reward.steps >= reached] for part in (reward.steps, reward.values)))
        if late.values.size < 6 or late.rises:
            return None
        if reward.end >= SOLVED and reward.values.max() <= 1:
            return None
    return RunFinding(
        "entropy collapse",
        "warning",
        (reached, entropy.steps[-1]),
        f"{entropy.name} fell from {entropy.start:.3g} to {entropy.end:.2g} nats, and the reward has not risen since",
        {"start": entropy.start, "end": entropy.end},
        "The model gives nearly the same answer every time, so it hardly finds better ones.",
        f"Go back to an earlier checkpoint, and {FEWER_UPDATES}, or lower the learning rate; {on_repeated_problems()}.",
    )


def entropy_explosion(signals: Signals) -> RunFinding | None:
    """Find an entropy three times its start or more, and 0.3 nats above it."""
    entropy = _entropy(signals)
    if entropy is None:
        return None
    smooth = entropy.smooth
    high = (smooth > GROWN * entropy.start) & (smooth > entropy.start + GROWN_NATS)
    if not high.any():
        return None
    at = int(high.argmax())
    return RunFinding(
        "entropy explosion",
        "error",
        (entropy.smooth_steps[at], entropy.steps[-1]),
        f"{entropy.name} rose from {entropy.start:.3g} to {float(smooth.max()):.3g} nats",
        {"start": entropy.start, "highest": float(smooth.max())},
        "The model drifts towards random text, and then the reward usually falls.",
        "Go back to a checkpoint before the rise. Lower the entropy bonus, epsilon_high or the learning rate.",
    )


def entropies_apart(signals: Signals) -> RunFinding | None:
    """Find rollout and training entropy, or the log-probs of two engines, far apart in most steps."""
    difference = signals.get("engine difference", LEAST)
    if difference is not None and float(np.median(difference.values)) > APART_NATS:
        middle = float(np.median(difference.values))
        text = f"{difference.name} has a median of {middle:.3g}"
        return _apart(difference, text, {"median difference": middle})
    both = signals.pair("rollout entropy", "training entropy")
    if both is None or both[0].steps.size < LEAST:
        return None
    rollout, training = both
    low, high = np.minimum(rollout.values, training.values), np.maximum(rollout.values, training.values)
    far = (high > APART * low) & (high - low > APART_NATS)
    if far.mean() < 0.5:
        return None
    text = (
        f"{rollout.name} and {training.name} differ by a factor above {APART:g} at {far.sum()} of {far.size} steps "
        f"(medians {np.median(rollout.values):.3g} and {np.median(training.values):.3g} nats)"
    )
    return _apart(rollout, text, {"share": float(far.mean())})


def repetition(signals: Signals) -> RunFinding | None:
    """Find completions that grow by half while entropy halves, over the last half of the run."""
    length, entropy = signals.get("length", LENGTHS), _entropy(signals)
    if length is None or entropy is None:
        return None
    late, calm = length.since(0.5), entropy.since(0.5)
    if late.end < 1.5 * late.start or calm.end > 0.5 * calm.start:
        return None
    return RunFinding(
        "repetition",
        "warning",
        (late.steps[0], late.steps[-1]),
        f"{length.name} grew from {late.start:.0f} to {late.end:.0f} while {entropy.name} fell from {calm.start:.3g} to "
        f"{calm.end:.2g} nats",
        {"length": late.end / late.start, "entropy": calm.end / calm.start},
        "Text that grows longer and more predictable often repeats itself.",
        "Read a few of the longest answers. Penalise length, or stop at repeated phrases.",
    )


def _entropy(signals: Signals) -> Signal | None:
    entropy = signals.get("entropy", LEAST)
    return entropy if entropy is not None and np.isfinite(entropy.values).all() else None


def _apart(signal: Signal, text: str, numbers: dict[str, float]) -> RunFinding:
    return RunFinding(
        "entropies apart",
        "warning",
        (signal.steps[0], signal.steps[-1]),
        text,
        numbers,
        "Either the two are defined differently (temperature, kind of mean), or the engine that samples does not run the "
        "same model as the one that trains.",
        "Measure both at the same temperature. If they still differ, check the sampler's weights and precision, and "
        "correct by importance sampling.",
    )
