"""Reward whole groups of completions in verl: EMPO, or agreement with the majority. No label is used.

Nothing here knows verl's trainer or its queue: ids and texts in, one score per row out. If verl one day hands the
whole batch to an advantage estimator, this is what moves there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entropilot.answers.clusters import cluster
from entropilot.errors import UserError
from entropilot.inputs.messages import last_user_turn
from entropilot.rewards.groups import GroupReward, summarise
from entropilot.rewards.named import build_reward
from entropilot.rewards.visits import margin

SECTION = "trainer.v1.entropilot"


@dataclass(frozen=True)
class Response:
    """Hold one row of verl's batch.

    Attributes:
        group: the prompt's id; rows of one prompt share it.
        session: which of the prompt's samples it belongs to; one sample may have several rows, such as turns of an agent.
        turn: the row's place in its session; the last one holds the answer.
        prompt: verl's `raw_prompt`, messages or text.
        text: the response.
    """

    group: str
    session: str
    turn: int
    prompt: Any
    text: str


def build_group_reward(settings: Mapping[str, Any]) -> GroupReward:
    """Build the reward that `trainer.v1.entropilot` asks for.

    Args:
        settings: `reward` (empo or majority), and the rule's own fields, `judge`, `judge_args`, `extract`.

    Raises:
        UserError: there is no such reward or field.
    """
    args = dict(settings)
    name = args.pop("reward", None)
    if name not in ("empo", "majority"):
        raise UserError(
            f"+{SECTION}.reward = {name!r} is no reward of whole groups; set it to empo or majority, or "
            "trainer.v1.trainer_mode to sync."
        )
    reward = build_reward(name, None, args)
    assert isinstance(reward, GroupReward)
    if reward.teacher is not None:
        raise UserError(f"+{SECTION}.teacher: verl keeps no teacher; remove it, or train with TRL.")
    return reward


def score_groups(
    responses: Sequence[Response], reward: GroupReward, size: int
) -> tuple[list[float], dict[str, float]]:
    """Return one score per row, and what to log of the groups.

    A group is whole by its id, wherever its rows stand in the batch. A sample that verl lost (its agent loop returned
    nothing) counts as one without an answer, so that shares stay shares of `size`. A group that the rule leaves out
    scores 0 throughout, which gives it no advantage.

    Args:
        responses: the rows of the whole batch.
        reward: rule, judge and extraction.
        size: verl's `rollout.n`.
    """
    groups: dict[str, dict[str, Response]] = {}
    for row in responses:
        sessions = groups.setdefault(row.group, {})
        known = sessions.get(row.session)
        if known is None or row.turn > known.turn:
            sessions[row.session] = row
    whole = [list(sessions.values()) for sessions in groups.values()]
    answers = [[reward.extract(row.text) for row in group] for group in whole]
    lost = [max(0, size - len(group)) for group in whole]
    answers = [[*group, *([None] * absent)] for group, absent in zip(answers, lost, strict=True)]
    questions = [last_user_turn(group[0].prompt) or "" for group in whole]
    clusters = cluster(answers, reward.judge, questions)
    rewards = [reward.rule.rewards(found.labels, found.missing) for found in clusters]
    scores = {
        (row.group, row.session): value or 0.0
        for group, values in zip(whole, rewards, strict=True)
        for row, value in zip(group, values, strict=False)  # behind them stand the lost ones
    }
    stats = {
        "entropies": [found.semantic_entropy for found in clusters],
        "clusters": sum(len(found.sizes) for found in clusters),
        "majority": sum(max(found.shares) for found in clusters),
        "margin": sum(margin(found) for found in clusters),
        "filtered": sum(all(value is None for value in group) for group in rewards),
        "groups": len(clusters),
        "unanswered": sum(sum(found.missing) for found in clusters),
        "completions": sum(len(found.labels) for found in clusters),
    }
    metrics = {name: value for name, value in summarise([stats]).items() if isinstance(value, int | float)}
    return [scores[row.group, row.session] for row in responses], {
        **metrics,
        "semantic/lost": float(sum(lost)),
    }
