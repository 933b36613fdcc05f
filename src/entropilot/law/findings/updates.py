"""Check the updates of a run: drift from the old or reference policy, clipping, truncation, a method without effect."""

from __future__ import annotations

import numpy as np

from entropilot.law.findings.finding import RunFinding
from entropilot.law.findings.learning import LEAST
from entropilot.law.findings.signals import Signals
from entropilot.methods.registry import REGISTRY

CLIPPED = 0.2  # share of tokens at the clip bound
FEW = 3  # values from which a method that never acts is seen; it shows from the first one
TRUNCATED, TRUNCATED_RISE = 0.2, 0.1  # share of completions at the length limit, and its rise


def drift(signals: Signals) -> RunFinding | None:
    """Find a KL or |log-ratio| that is no number, or ten times what it was in the first half, and large."""
    for meaning, large in (("kl", 0.5), ("log ratio", 1.0)):
        signal = signals.get(meaning, LEAST)
        if signal is None:
            continue
        broken = ~np.isfinite(signal.values)
        if broken.any():
            step = float(signal.steps[int(broken.argmax())])
            text, numbers = f"{signal.name} is no finite number from step {step:g}", {"step": step}
        else:
            usual = float(np.median(np.abs(signal.values[: signal.values.size // 2])))
            size = np.abs(signal.smooth)
            high = size > max(10 * usual, large)
            if not high.any():
                continue
            step = float(signal.smooth_steps[int(high.argmax())])
            text = f"{signal.name} reached {size.max():.3g}, and its median in the first half was {usual:.2g}"
            numbers = {"highest": float(size.max()), "usual": usual}
        return RunFinding(
            "drift",
            "error",
            (step, signal.steps[-1]),
            text,
            numbers,
            "The model is now far from the one that sampled the answers, so the updates rest on outdated probabilities.",
            "Lower the learning rate, make fewer updates per rollout, clip the ratio, or add a KL penalty towards the "
            "reference model.",
        )
    return None


def clip_at_limit(signals: Signals) -> RunFinding | None:
    """Find a fifth of the tokens or more at the clip bound, in the last quarter."""
    clip = signals.get("clip", LEAST) or signals.total("clip low", "clip high")
    if clip is None or clip.values.size < LEAST:
        return None
    late = clip.since(0.75)
    share = float(late.values.mean())
    if not share >= CLIPPED:
        return None
    return RunFinding(
        "clip at its limit",
        "warning",
        (late.steps[0], late.steps[-1]),
        f"{100 * share:.0f} % of the tokens are clipped in the last quarter ({clip.name})",
        {"share": share},
        "Clipped tokens add nothing to an update, so most likely the updates are too large for the clip range.",
        "Lower the learning rate or make fewer updates per rollout. Check that the engine that samples and the one that "
        "trains give the same log-probs.",
    )


def truncation(signals: Signals) -> RunFinding | None:
    """Find truncated completions that have become common while completions grew."""
    truncated, length = signals.get("truncated", LEAST), signals.get("length", LEAST)
    if truncated is None:
        return None
    rise = truncated.end - truncated.start
    longer = length is None or length.end > 1.1 * length.start
    if truncated.end < TRUNCATED or rise < TRUNCATED_RISE or not longer:
        return None
    grown = "" if length is None else f" and {length.name} from {length.start:.0f} to {length.end:.0f} tokens"
    return RunFinding(
        "truncation",
        "warning",
        (truncated.steps[0], truncated.steps[-1]),
        f"{truncated.name} rose from {100 * truncated.start:.0f} to {100 * truncated.end:.0f} %{grown}",
        {"start": truncated.start, "end": truncated.end},
        "Answers that reach the length limit are cut off and count as wrong, however good their reasoning is.",
        "Raise the length limit, leave truncated answers out of the loss, or add a small penalty on length.",
    )


def inert_method(signals: Signals) -> RunFinding | None:
    """Find a method without effect: it never chooses a token, or it needs stale log-probs and the log-ratio is always 0.

    The run's header names the method, and the registry says what the method needs.
    """
    recipe = signals.run.header.get("recipe")
    given = recipe.get("method") if isinstance(recipe, dict) else None
    names = [str(name) for name in (given if isinstance(given, list) else [given])]
    entry = next(
        (REGISTRY[name] for name in names if name in REGISTRY and REGISTRY[name].kind == "token"), None
    )
    if entry is None:
        return None
    ratio, chosen = signals.get("log ratio", FEW), signals.get("chosen", FEW)
    if chosen is not None and not chosen.values.any():
        shown, text = chosen, f"{chosen.name} is 0 at all {chosen.values.size} steps"
        advice = "Raise fraction or the batch size, or set restrain, so that some tokens are chosen."
    elif entry.needs_stale_logp and ratio is not None and float(np.abs(ratio.values).max()) < 1e-6:
        shown, text = ratio, f"{ratio.name} is 0 at all {ratio.values.size} steps"
        advice = "Set steps_per_generation above gradient_accumulation_steps: then the model changes after it has sampled."
    else:
        return None
    return RunFinding(
        "inert method",
        "error",
        (shown.steps[0], shown.steps[-1]),
        text,
        {"value": 0.0, "steps": float(shown.values.size)},
        f"{entry.name} changes nothing: the run is the same as one without it.",
        advice,
    )
