"""The online loop: collect with the current policy, keep its distribution as the label, ask a teacher, train, repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entropilot.control.analytic import Teacher, Walks, make_worlds, prefer_by, teach, walk
from entropilot.control.learners import Learner, LearnSettings, learn
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


def metaworld_parameters(
    state: int = 35, action: int = 4, hidden: tuple[int, ...] = (256, 256)
) -> dict[str, int]:
    """Return the trainable numbers of each method on MetaWorld.

    PPL and CPL train the policy. P-IQL adds a reward model, V and Q. PEBBLE, as its authors' code has it
    (arXiv:2106.05091): a Gaussian policy with two outputs an action, two critics, a temperature, and three reward models,
    here all with the same hidden layers; their two target critics follow without being trained.
    """

    def mlp(inputs: int, outputs: int) -> int:
        sizes = [inputs, *hidden, outputs]
        return sum((a + 1) * b for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    policy = mlp(state, action)
    piql = policy + 2 * mlp(state + action, 1) + mlp(state, 1)
    pebble = mlp(state, 2 * action) + 2 * mlp(state + action, 1) + 1 + 3 * mlp(state + action, 1)
    return {"ppl": policy, "cpl": policy, "ppl_dirac": policy, "piql": piql, "pebble": pebble}


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
    from entropilot.control.behaviour import imitation_checkpoints
    from entropilot.control.collect import collect
    from entropilot.control.labels import compare, fixed_pairs, script_values
    from entropilot.control.labels import scores as score_segments
    from entropilot.control.segments import Pairs, concatenate
    from entropilot.control.train import imitate, prefer
    from entropilot.control.workers import success_rate

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
