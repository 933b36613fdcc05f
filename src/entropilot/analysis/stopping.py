"""Decide when to stop learning without labels, from signals that need none.

Ours, not a paper's: users of such rewards ask for it. Once a policy agrees with itself, more updates make it surer and not
better: the meanings of its answers stop changing while its tokens still lose entropy. Majority answers that begin to
change again are the other sign: wrong ones are taking over.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropilot.analysis.values import flat
from entropilot.errors import UserError

Array = NDArray[np.float64]


class StopRule(NamedTuple):
    """Hold the limits of the rule.

    Attributes:
        window: rollouts that are averaged; the last window is compared with the one before it.
        flat: semantic entropy has flattened where it fell by less than this share of its first window's value, or rose.
        falling: token entropy keeps falling where it fell by more than this share of the window before.
        majority: or the mean share of the largest cluster exceeds this.
        flips: or the flip rate of majorities lies this much above the lowest it was in a window before.
    """

    window: int = 8
    flat: float = 0.02
    falling: float = 0.05
    majority: float = 0.97
    flips: float = 0.05


class Stop(NamedTuple):
    """Hold where the rule first holds.

    Attributes:
        step: of that rollout.
        reason: "flips", "majority" or "flat".
        words: a sentence for people.
    """

    step: float
    reason: str
    words: str


def label_free_stop(
    steps: ArrayLike,
    semantic_entropy: ArrayLike,
    token_entropy: ArrayLike,
    majority_share: ArrayLike,
    flip_rate: ArrayLike | None = None,
    rule: StopRule | None = None,
) -> Stop | None:
    """Return where a run that learns without labels should end, None where it should go on.

    Args:
        steps: of the rollouts.
        semantic_entropy: mean over a rollout's groups, nats.
        token_entropy: policy entropy, nats.
        majority_share: mean share of a group's largest cluster.
        flip_rate: how often majorities changed between visits; nan where no prompt was visited before.
        rule: the limits.

    Raises:
        UserError: the series are not as many, or a limit makes no sense.
    """
    rule = rule or StopRule()
    if rule.window < 2 or not 0 < rule.majority <= 1 or min(rule.flat, rule.falling, rule.flips) < 0:
        raise UserError(
            "A stop rule needs a window of 2 or more, a majority in (0, 1], and shares of 0 or more."
        )
    names = ("steps", "semantic_entropy", "token_entropy", "majority_share")
    t, meaning, token, majority = (
        flat(name, values)
        for name, values in zip(names, (steps, semantic_entropy, token_entropy, majority_share), strict=True)
    )
    flips = flat("flip_rate", np.full(t.size, np.nan) if flip_rate is None else flip_rate)
    if not t.size == meaning.size == token.size == majority.size == flips.size:
        raise UserError("A stop rule needs as many values of every series.")
    known = np.isfinite(meaning) & np.isfinite(token) & np.isfinite(majority)
    t, meaning, token, majority, flips = (series[known] for series in (t, meaning, token, majority, flips))
    w = rule.window
    if t.size < w:
        return None
    averaged = [np.convolve(series, np.full(w, 1 / w), mode="valid") for series in (meaning, token, majority)]
    flipping = np.convolve(flips, np.full(w, 1 / w), mode="valid")  # nan where a window holds one
    for end in range(w, t.size + 1):
        m, h, share = (series[end - w] for series in averaged)
        lowest = np.fmin.reduce(flipping[: end - w + 1])
        if flipping[end - w] - lowest > rule.flips:
            return Stop(
                float(t[end - 1]),
                "flips",
                f"at step {t[end - 1]:g} the majority answers of {flipping[end - w]:.0%} of the prompts change from visit "
                f"to visit, up from {lowest:.0%}: wrong majorities may be taking over, and the reward confirms them",
            )
        if share > rule.majority:
            return Stop(
                float(t[end - 1]),
                "majority",
                f"at step {t[end - 1]:g} the largest cluster holds {share:.0%} of a group on average, above the limit of "
                f"{rule.majority:.0%}: the policy agrees with itself, and its reward says little more",
            )
        if end < 2 * w:
            continue
        m_before, h_before = (series[end - 2 * w] for series in averaged[:2])
        if m_before - m < rule.flat * averaged[0][0] and h_before - h > rule.falling * h_before:
            return Stop(
                float(t[end - 1]),
                "flat",
                f"at step {t[end - 1]:g} semantic entropy falls no more ({m_before:.3f} to {m:.3f} nats over {w} rollouts) "
                f"while token entropy still falls ({h_before:.3f} to {h:.3f}): answers agree no better, the policy "
                "only gets surer",
            )
    return None
