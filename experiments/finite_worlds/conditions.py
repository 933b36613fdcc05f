"""Under which conditions does the policy label help? Finite worlds, one condition changed at a time, paired over seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from entropilot.control.worlds.learners import Learner, LearnSettings, clone, learn
from entropilot.control.worlds.worlds import Teacher, make_authors, make_worlds, prefer_by, teach, walk

LEARNERS: tuple[Learner, ...] = ("bc", "sft", "cpl", "ppl", "ppl_sampled", "ppl_fitted", "ppl_dirac")
# What the label could do: the expectation of PPL's identity taken exactly, which needs the worlds' transitions.
WITH_EXPECTATION: tuple[Learner, ...] = ("cpl", "ppl", "ppl_expected_cut", "ppl_expected")


@dataclass(frozen=True)
class Condition:
    """A world, its data and the loss. Skills: 1 is optimal, 0 knows nothing; two of them are two authors."""

    slip: float = 0.3
    sparse: bool = False
    gamma: float = 0.9  # the world's; the loss uses the same
    skills: tuple[float, ...] = (0.8, 0.2)
    bias: float = 1.0
    teacher: Teacher = "author"
    noisy: bool = False
    pairing: Literal["any", "within", "across"] = "any"  # of two authors: whose segments are compared
    segments: int = 400
    length: int = 16
    lam: float = 1.0
    look_ahead: int | None = None
    window: Literal["sum", "mean_L", "mean_terms"] = "sum"
    alpha: float | None = None  # of the loss; none: the world's temperature, where both models are exact
    learning_rate: float = 0.03


STOPS = (12, 25, 50, 100, 200)


def regrets(
    condition: Condition,
    seeds: list[int],
    learners: tuple[Learner, ...] = LEARNERS,
    stops: tuple[int, ...] = STOPS,
) -> dict[str, np.ndarray]:
    """Return by learner the regret (stops, seeds) in every seed's world, a share of the uniform policy's."""
    worlds = make_worlds(seeds, condition.slip, condition.sparse, condition.gamma)
    authors = make_authors(worlds, condition.skills, condition.bias, seeds)
    generator = torch.Generator().manual_seed(seeds[0])
    walks = walk(worlds, authors, condition.segments, condition.length, generator)
    score = teach(worlds, walks, authors, condition.teacher)
    pairs = torch.stack([draw_pairs(condition, generator) for _ in seeds])
    preferred = prefer_by(score, pairs, condition.noisy, generator)
    begin = clone(walks, *worlds.reward.shape[1:])
    found = {}
    for learner in learners:
        settings = LearnSettings(
            learner,
            worlds.alpha if condition.alpha is None else condition.alpha,
            condition.lam,
            condition.gamma,
            condition.look_ahead,
            condition.window,
            stops,
            condition.learning_rate,
        )
        policies = learn(walks, pairs, preferred, settings, begin, worlds, authors)
        found[learner] = np.stack([worlds.regret(policy).numpy() for policy in policies])
    return found


def draw_pairs(condition: Condition, generator: torch.Generator) -> torch.Tensor:
    """Return a world's pairs, (segments // 2, 2), every segment in one; authors take turns, so parity is the author."""
    order = torch.randperm(condition.segments, generator=generator)
    if condition.pairing == "any":
        return order.view(-1, 2)
    even, odd = order[order % 2 == 0], order[order % 2 == 1]
    if condition.pairing == "across":  # which of the two comes first is by chance
        mixed = torch.stack([even, odd], -1)
        return torch.where(torch.rand(len(mixed), 1, generator=generator) < 0.5, mixed, mixed.flip(-1))
    return torch.cat([even.view(-1, 2), odd.view(-1, 2)])


def run_condition(
    condition: Condition,
    seeds: list[int],
    tuning: list[int],
    learners: tuple[Learner, ...] = LEARNERS,
) -> dict[str, Any]:
    """Return the regret of every learner in every seed's world, stopped where the `tuning` seeds' mean is lowest.

    Without that the stopping step decides who wins: every learner overfits its pairs, CPL soonest.
    """
    tuned, tested = regrets(condition, tuning, learners), regrets(condition, seeds, learners)
    stop = {learner: int(tuned[learner].mean(1).argmin()) for learner in learners}
    return {
        "condition": asdict(condition),
        "seeds": seeds,
        "stop": {learner: STOPS[place] for learner, place in stop.items()},
        "regret": {learner: tested[learner][place].tolist() for learner, place in stop.items()},
        "last": {learner: tested[learner][-1].tolist() for learner in learners},
    }


def conditions() -> dict[str, Condition]:
    """Return the study's conditions: teacher × slip × gap between authors, and then one change at a time."""
    base = Condition()
    gaps = {"one author": (0.5,), "small gap": (0.6, 0.4), "large gap": (0.8, 0.2), "huge gap": (1.0, -0.5)}
    found: dict[str, Condition] = {}
    teachers: tuple[Teacher, ...] = ("author", "advantage", "return")
    for teacher in teachers:
        for slip in (0.0, 0.3, 0.8):
            for gap, skills in gaps.items():
                found[f"{teacher}, slip {slip}, {gap}"] = replace(
                    base, teacher=teacher, slip=slip, skills=skills
                )
    changes: dict[str, dict[str, Any]] = {
        "sparse reward": {"sparse": True},
        "sparse reward, one author": {"sparse": True, "skills": (0.5,)},
        "λ 0.5": {"lam": 0.5},
        "L 1": {"look_ahead": 1},
        "L 4": {"look_ahead": 4},
        "window mean_L, L 4": {"look_ahead": 4, "window": "mean_L"},
        "window mean_terms": {"window": "mean_terms"},
        "γ 0.5": {"gamma": 0.5},
        "γ 0.97": {"gamma": 0.97},
        "α of the loss 0.1": {"alpha": 0.1},
        "labels drawn": {"noisy": True},
        "unbiased authors": {"bias": 0.0},
        "bias 2": {"bias": 2.0},
        "100 segments": {"segments": 100},
        "1600 segments": {"segments": 1600},
        "3200 segments": {"segments": 3200},
        "3200 segments, huge gap, slip 0.8": {"segments": 3200, "skills": (1.0, -0.5), "slip": 0.8},
        "length 4": {"length": 4},
        "length 48": {"length": 48},
    }
    for name, change in changes.items():
        found[name] = replace(base, **change)
    return found
