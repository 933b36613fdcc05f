"""Draw the courses of studies 2 and 3: reward, entropy and held-out accuracy over the completions drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.real_model import rl

ROLLOUT = 128  # completions
# Four updates take 128 completions in every arm (`on_policy` draws them in four rollouts).
UPDATES = 4
PANELS = (
    ("reward", "reward of training"),
    ("entropy", "token entropy, nats"),
    ("accuracy", "held-out accuracy"),
)
COLOURS = ("#8a8a8a", "#1f6fb2", "#b23a1f", "#2a8a4a", "#7a4fa3", "#b8860b")


def by_rollout(course: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Return (completions drawn before, value) of a course of (step, value): one of each rollout, the mean within it."""
    found: dict[int, list[float]] = {}
    for step, value in course:
        found.setdefault((int(step) - 1) // UPDATES, []).append(value)
    return [ROLLOUT * place for place in found], [float(np.mean(values)) for values in found.values()]


def draw(kept: Mapping[str, Sequence[Mapping[str, Any]]], file: Path) -> None:
    """Write an SVG: a thin line for each seed, a thick one for their mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    arms = [arm for arm in rl.ARMS | rl.LABEL_FREE if kept.get(arm)]
    with plt.rc_context({"svg.hashsalt": "entropilot", "font.size": 8}):
        figure, axes = plt.subplots(1, len(PANELS), figsize=(8.4, 2.8), layout="constrained")
        for axis, (name, title) in zip(axes, PANELS, strict=True):
            for arm, colour in zip(arms, COLOURS[: len(arms)], strict=True):
                courses = [by_rollout(row["run"][name]["course"]) for row in kept[arm]]
                for places, values in courses:
                    axis.plot(places, values, color=colour, linewidth=0.6, alpha=0.4)
                if len({len(places) for places, _ in courses}) == 1:
                    mean = np.mean([values for _, values in courses], axis=0)
                    axis.plot(courses[0][0], mean, color=colour, linewidth=1.8, label=arm)
            axis.set(title=title, xlabel="completions drawn")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        axes[0].legend(frameon=False)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)
