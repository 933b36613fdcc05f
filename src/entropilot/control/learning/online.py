"""Run the online loop on MetaWorld: collect, ask a teacher, train, repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np


def online_metaworld(
    task: str,
    settings: Any,
    rounds: int = 8,
    segments: int = 100,
    flip: float = 0.0,
    processes: int = 1,
    noise: float = 0.3,
    report: Callable[[dict[str, Any]], Any] = lambda _: None,
) -> list[dict[str, Any]]:
    """Run the loop on a MetaWorld task from a weak clone of the script; return a row a round.

    `settings` are `train.TrainSettings`: its `bc_steps` clone what the first policy collected, then every round takes
    `steps` steps on all pairs so far. The label is the collecting policy's mean and `noise` at every step.
    """
    from entropilot.control.learning.train import imitate, prefer
    from entropilot.control.segments.behaviour import imitation_checkpoints
    from entropilot.control.segments.collect import collect
    from entropilot.control.segments.labels import compare, fixed_pairs, script_values
    from entropilot.control.segments.labels import scores as score_segments
    from entropilot.control.segments.segments import concatenate
    from entropilot.control.segments.types import Pairs
    from entropilot.control.segments.workers import success_rate

    policy = imitation_checkpoints(task, 0, 18)[18].with_std(noise)
    parts, actor, found, used = [], None, [], 0
    first, second, preferred = [], [], []
    for number in range(rounds):
        part = collect(task, policy, segments, 2_000 + 50 * settings.seed + number, processes=processes)
        part.author_names = np.array([f"round {number}"])
        values = script_values(part, processes=processes)
        rng = np.random.default_rng([17, settings.seed, number])
        asked = compare(
            score_segments(part, "script", values),
            *fixed_pairs(segments, segments // 2, rng),
            flip=flip,
            rng=rng,
        )
        offset = sum(len(p) for p in parts)
        parts.append(part)
        first.append(asked.first + offset)
        second.append(asked.second + offset)
        preferred.append(asked.preferred)
        pairs = Pairs(np.concatenate(first), np.concatenate(second), np.concatenate(preferred))
        # The simulator's states are needed for labels only; they would be copied with every round.
        lean = [replace(p, snapshots=p.snapshots[:, :, :0]) for p in parts]
        joined = concatenate(lean)
        actor = prefer(actor or imitate(joined, settings), joined, pairs, settings)
        used += int(part.lengths.sum())
        policy = actor.to_numpy(f"round {number + 1}").with_std(noise)
        row = {
            "round": number + 1,
            "queries": len(pairs),
            "environment_steps": used,
            "success": success_rate(task, policy.with_std(0.0), settings.final_episodes, 0, processes),
        }
        found.append(row)
        report(row)
    return found
