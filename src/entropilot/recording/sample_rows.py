"""Choose the rows of a rollout that a token sample shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def choose_rows(rewards: Sequence[float], groups: Sequence[int], count: int) -> list[int]:
    """Return up to `count` rows of a rollout, in its order: a group whose rewards differ, and rows spread over rewards.

    The group is the one with the largest standard deviation of rewards, the first of equals; it is taken whole, or
    spread over its rewards where it is larger than `count`. Further rows come from the distinct rewards in turn, lowest
    first (from evenly spaced ones where there are too many), each from the group with the fewest rows so far.

    Args:
        rewards: of every row, NaN where nothing scored it.
        groups: number of the prompt of every row.
        count: of rows.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    # Not by the deviation: that of equal rewards is not always 0, by rounding.
    values = {group: [rewards[row] for row in rows] for group, rows in members.items()}
    spread = {group: float(np.std(own)) for group, own in values.items() if np.ptp(own) > 0}
    mixed = max(spread, key=spread.__getitem__, default=None)
    taken: list[int] = []
    if mixed is not None:
        taken += _over_rewards(rewards, groups, members[mixed], count, [])
    rest = [row for row in range(len(rewards)) if row not in set(taken)]
    return sorted(taken + _over_rewards(rewards, groups, rest, count - len(taken), taken))


def _over_rewards(
    rewards: Sequence[float], groups: Sequence[int], rows: Sequence[int], count: int, before: Sequence[int]
) -> list[int]:
    """Return up to `count` of these rows, from their distinct rewards in turn."""
    if len(rows) <= count:
        return list(rows)
    levels: dict[float | None, list[int]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (np.isnan(rewards[row]), rewards[row], row)):
        levels[None if np.isnan(rewards[row]) else rewards[row]].append(row)
    queues = list(levels.values())
    scored = queues[:-1] if None in levels else queues  # rows that nothing scored come last
    queues = scored if len(scored) >= count else queues
    if len(queues) > count > 0:
        queues = [queues[place] for place in np.linspace(0, len(queues) - 1, count).round().astype(int)]
    taken: list[int] = []
    load = defaultdict(int)
    for row in before:
        load[groups[row]] += 1
    while len(taken) < count:
        for queue in [queue for queue in queues if queue][: count - len(taken)]:
            row = min(queue, key=lambda row: (load[groups[row]], row))
            queue.remove(row)
            load[groups[row]] += 1
            taken.append(row)
    return taken
