"""Check whether a run learns: dead runs, groups without contrast, zero gradients, falls of reward or validation."""

from __future__ import annotations

import numpy as np

from entropilot.law.findings.finding import RunFinding
from entropilot.law.findings.signals import Signal, Signals

LEAST = 10  # points below which a course is not judged
VALIDATIONS = 5  # of validation, which is measured more seldom
ONE_SIDED = 0.95  # share of groups without contrast; docs/how-to/diagnose-a-run.md says how it was chosen
SOLVED = 0.95  # mean reward, of at most 1, from which a task counts as solved
ZERO_STEPS = 0.1  # share of steps without gradient
FLIPS = 0.05  # rise of the flip rate of majorities above its lowest mean; as `analysis.stopping`
# Deviations of a mean by which it lies below the highest one; white noise alone does so in 1 % of series of 10 to 400.
FALL = 5.0


def equal_groups(signals: Signals) -> Signal | None:
    """Return the share of groups whose rewards are all equal."""
    return signals.get("equal groups") or signals.total("all right", "all wrong")


def dead_run(signals: Signals) -> RunFinding | None:
    """Find a run in which no group has an advantage: rewards all equal, or loss and gradient 0 throughout."""
    reward, equal, loss = (signals.get("reward", LEAST), equal_groups(signals), signals.get("loss", LEAST))
    gradient = signals.get("gradient", LEAST)
    if reward is not None and np.ptp(reward.values) <= 1e-12 * max(1.0, float(np.abs(reward.values).max())):
        shown, text = reward, f"{reward.name} is {reward.values[0]:.3g} at all {reward.values.size} steps"
    elif equal is not None and equal.values.size >= LEAST and equal.values.min() >= 1 - 1e-9:
        shown, text = (
            equal,
            f"all groups have equal rewards at all {equal.values.size} steps ({equal.name} = 1)",
        )
    elif loss is not None and gradient is not None and not (loss.values.any() or gradient.values.any()):
        shown, text = loss, f"{loss.name} and {gradient.name} are 0 at all {loss.values.size} steps"
    else:
        return None
    return RunFinding(
        "dead run",
        "error",
        (shown.steps[0], shown.steps[-1]),
        text,
        {"value": float(shown.values[0]), "steps": float(shown.values.size)},
        "All answers to a problem get the same reward, so the model can't learn which of them is better.",
        "Check the reward of a few answers by hand. Take easier problems, sample more answers per problem, or start from "
        "a model that solves some of them.",
    )


def one_sided_groups(signals: Signals) -> RunFinding | None:
    """Find groups of which nearly all have equal rewards in the last quarter, in a run that no longer learns."""
    equal = equal_groups(signals)
    if equal is None or equal.values.size < LEAST:
        return None
    late = equal.since(0.75)
    share = float(late.values.mean())
    if share < ONE_SIDED or equal.values.min() >= 1 - 1e-9:
        return None
    reward = signals.get("reward", LEAST)
    if reward is not None and (
        reward.since(0.5).rises or (reward.end >= SOLVED and reward.values.max() <= 1)
    ):
        return None  # the other groups are enough, or nothing is left to learn
    numbers, split = {"share": share}, ""
    right, wrong = signals.get("all right"), signals.get("all wrong")
    if right is not None and wrong is not None:
        numbers |= {"all right": float(right.since(0.75).values.mean())}
        numbers |= {"all wrong": float(wrong.since(0.75).values.mean())}
        split = (
            f" ({100 * numbers['all right']:.0f} % all right, {100 * numbers['all wrong']:.0f} % all wrong)"
        )
    return RunFinding(
        "groups without contrast",
        "warning",
        (late.steps[0], late.steps[-1]),
        f"{100 * share:.0f} % of the groups have equal rewards in the last quarter{split}",
        numbers,
        "Only a group with better and worse answers to its problem teaches anything, and the reward no longer rises.",
        "Take problems that are solved now and then (entropilot prompts rank finds them), leave out groups with equal "
        "rewards, or sample more answers per problem.",
    )


def zero_gradients(signals: Signals) -> RunFinding | None:
    """Find a tenth of the steps or more without any gradient."""
    gradient = signals.get("gradient", LEAST)
    if gradient is None:
        return None
    zero = gradient.values == 0
    share = float(zero.mean())
    if share < ZERO_STEPS or share == 1:
        return None
    steps = gradient.steps[zero]
    return RunFinding(
        "zero-gradient steps",
        "warning",
        (steps[0], steps[-1]),
        f"{gradient.name} is 0 at {zero.sum()} of {zero.size} steps",
        {"share": share, "steps": float(zero.sum())},
        "Sampling answers for these steps took time, and the steps changed nothing.",
        "Leave out groups with equal rewards, take harder or easier problems, or use more problems per step.",
    )


def reward_collapse(signals: Signals) -> RunFinding | None:
    """Find a reward that has lost half or more of its highest level over its lowest, far beyond its noise."""
    reward = signals.get("reward", LEAST)
    if reward is None or not np.isfinite(reward.values).all():
        return None
    smooth = reward.smooth
    at = int(smooth.argmax())
    peak, low = float(smooth[at]), min(float(smooth[: at + 1].min()), float(smooth.min()), reward.end)
    fall = peak - reward.end
    if fall <= 0.5 * (peak - low) or fall <= FALL * reward.mean_noise or fall <= 0.25 * abs(peak):
        return None
    return RunFinding(
        "reward collapse",
        "error",
        (reward.smooth_steps[at], reward.steps[-1]),
        f"{reward.name} fell from {peak:.3g} to {reward.end:.3g} (means over a tenth of the run)",
        {"peak": peak, "end": reward.end},
        "The model has lost what it had learnt.",
        "Go back to a checkpoint before the fall. Lower the learning rate, add a KL penalty towards the reference model, "
        "or clip the ratio.",
    )


def validation_falls(signals: Signals) -> RunFinding | None:
    """Find a training reward that rises while validation falls from its peak."""
    reward, validation = signals.get("reward", LEAST), signals.get("validation", VALIDATIONS)
    if reward is None or validation is None:
        return None
    smooth = validation.smooth
    at = int(smooth.argmax())
    fall = float(smooth[at]) - validation.end
    bound = max(FALL * validation.mean_noise, 0.02 * max(abs(float(smooth[at])), 1e-9))
    later = reward.steps >= validation.smooth_steps[at]
    if fall <= bound or later.sum() < 2 * reward.width:
        return None
    part = Signal(reward.name, reward.steps[later], reward.values[later])
    if not part.rises:
        return None
    return RunFinding(
        "validation falls",
        "warning",
        (validation.smooth_steps[at], validation.steps[-1]),
        f"{reward.name} rose from {part.start:.3g} to {part.end:.3g} while {validation.name} fell from "
        f"{float(smooth[at]):.3g} to {validation.end:.3g}",
        {"reward rise": part.end - part.start, "validation fall": fall},
        "The model learns the training problems by heart, or ways to get reward without solving the task.",
        "Use the checkpoint at which validation was highest. Train on more problems, and look for wrong answers that get "
        "reward.",
    )


def majorities_flip(signals: Signals) -> RunFinding | None:
    """Find majority answers that change from visit to visit more than they did before: a sign that needs no label."""
    flips = signals.get("flip rate", LEAST)
    if flips is None:
        return None
    smooth = flips.smooth
    at = int(smooth.argmin())
    rise = flips.end - float(smooth[at])
    if rise <= max(FLIPS, FALL * flips.mean_noise):
        return None
    return RunFinding(
        "majorities flip",
        "warning",
        (flips.smooth_steps[at], flips.steps[-1]),
        f"{flips.name} rose from {float(smooth[at]):.3g} to {flips.end:.3g} (means over a tenth of the run)",
        {"lowest": float(smooth[at]), "end": flips.end},
        "The most frequent answer to a problem changes more often than before. A reward for agreement may be confirming "
        "wrong answers.",
        "Go back to the checkpoint where the rate was lowest. Stop there, or let a slowly updated teacher (teacher: ema) "
        "or a few labels decide.",
    )
