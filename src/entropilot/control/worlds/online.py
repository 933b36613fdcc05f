"""Run the online loop: collect with the current policy, keep its distribution as the label, ask a teacher, train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from entropilot.control.worlds.learners import Learner, LearnSettings, learn
from entropilot.control.worlds.worlds import Teacher, Walks, make_worlds, prefer_by, teach, walk
from entropilot.errors import UserError


@dataclass(frozen=True)
class OnlineSettings:
    """Rounds of `segments` segments and half as many queries, each segment in one; `steps` of training after each."""

    rounds: int = 10
    segments: int = 40
    length: int = 16
    steps: int = 25
    learning_rate: float = 0.03
    teacher: Teacher = "author"
    flip: float = 0.0  # probability that the teacher errs
    slip: float = 0.3
    sparse: bool = False
    gamma: float = 0.9
    lam: float = 1.0
    look_ahead: int | None = None

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.segments < 2 or self.segments % 2:
            raise UserError(
                f"rounds={self.rounds} must be at least 1 and segments={self.segments} an even number of at least 2."
            )


def _join(one: Walks, other: Walks) -> Walks:
    return Walks(
        *(
            torch.cat([getattr(one, name), getattr(other, name)], 1)
            for name in ("states", "actions", "author", "author_logp")
        )
    )


def online(learner: Learner, settings: OnlineSettings, seeds: list[int]) -> dict[str, Any]:
    """Return queries, environment steps and regret (rounds + 1, seeds) on finite worlds, from the uniform policy.

    The label is exact: the collecting policy's distribution at every step, stored when it was collected. A learner that
    plans (`pebble`) begins anew every round, the others continue.
    """
    worlds = make_worlds(seeds, settings.slip, settings.sparse, settings.gamma)
    actions = worlds.reward.shape[-1]
    policy = torch.full_like(worlds.reward, 1 / actions).log()
    generator = torch.Generator().manual_seed(seeds[0])
    m = len(seeds)
    kept: Walks | None = None
    known: list[Tensor] = []  # every round's policy, the authors
    pairs, preferred = torch.zeros(m, 0, 2, dtype=torch.long), torch.zeros(m, 0, dtype=torch.float64)
    regret, queries, steps = [worlds.regret(policy).tolist()], [0], [0]
    train = LearnSettings(
        learner,
        worlds.alpha,
        settings.lam,
        settings.gamma,
        settings.look_ahead,
        stops=(settings.steps,) if learner != "pebble" else (8 * settings.steps,),
        learning_rate=settings.learning_rate,
    )
    for _ in range(settings.rounds):
        authors = policy[:, None]
        new = walk(worlds, authors, settings.segments, settings.length, generator)
        score = teach(worlds, new, authors, settings.teacher)
        order = torch.stack([torch.randperm(settings.segments, generator=generator) for _ in seeds])
        asked = order.view(m, -1, 2)
        answers = prefer_by(score, asked, False, generator)
        new.author = new.author + len(known)
        known.append(policy)
        wrong = torch.rand(answers.shape, generator=generator, dtype=answers.dtype) < settings.flip
        answers = torch.where(wrong, 1 - answers, answers)
        offset = 0 if kept is None else kept.states.shape[1]
        kept = new if kept is None else _join(kept, new)
        pairs, preferred = torch.cat([pairs, asked + offset], 1), torch.cat([preferred, answers], 1)
        policy = learn(kept, pairs, preferred, train, policy, worlds, torch.stack(known, 1))[-1]
        queries.append(pairs.shape[1])
        steps.append(kept.states.shape[1] * settings.length)
        regret.append(worlds.regret(policy).tolist())
    return {
        "learner": learner,
        "queries": queries,
        "environment_steps": steps,
        "regret": regret,
        "seeds": seeds,
    }
