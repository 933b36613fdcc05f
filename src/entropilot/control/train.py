"""Train a policy on segments: imitation of all of them, then preferences with a new optimiser."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entropilot.control import checkpoint as checkpoints
from entropilot.control.actor import STD, Actor, action_logp, cpu_has_bf16
from entropilot.control.segments import Pairs, Segments, check, check_pairs
from entropilot.control.settings import MethodName, TrainSettings, settings_from
from entropilot.errors import UserError
from entropilot.methods.cpl import CPL
from entropilot.methods.imitation import imitation_loss
from entropilot.methods.ppl import PPL, dirac_label, gaussian_label, sampled_label

__all__ = ["MethodName", "TrainSettings", "imitate", "new_actor", "prefer", "prepare", "run", "settings_from"]


class Data:
    """Segments and pairs as tensors, states standardised once."""

    def __init__(self, segments: Segments, pairs: Pairs | None, actor: Actor) -> None:
        self.inputs = actor.standardise(torch.as_tensor(segments.states))
        self.actions = torch.as_tensor(segments.actions)
        steps = self.inputs.shape[1]
        self.mask = torch.arange(steps) < torch.as_tensor(segments.lengths)[:, None]
        self.mean_b = torch.as_tensor(segments.mean_b)
        self.std_b = torch.as_tensor(segments.std_b)
        self.rewards = torch.as_tensor(segments.rewards)
        if pairs is not None:
            self.first = torch.as_tensor(pairs.first)
            self.second = torch.as_tensor(pairs.second)
            self.preferred = torch.as_tensor(pairs.preferred, dtype=torch.float32)
            # How often each segment is preferred: what SFT imitates.
            wins = torch.zeros(len(self.inputs))
            wins.index_add_(0, self.first, self.preferred)
            wins.index_add_(0, self.second, 1 - self.preferred)
            self.wins = wins


def new_actor(segments: Segments, settings: TrainSettings) -> Actor:
    """Return an untrained policy, its inputs standardised by the segments."""
    bf16 = cpu_has_bf16() if settings.bf16 is None else settings.bf16
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        actor = Actor(segments.states.shape[-1], segments.actions.shape[-1], settings.hidden, bf16)
    states = torch.as_tensor(segments.states)
    inside = torch.arange(states.shape[1]) < torch.as_tensor(segments.lengths)[:, None]
    actor.standardise_by(states[inside])
    return actor


def prepare(
    segments: Segments, pairs: Pairs | None, settings: TrainSettings, task: str | None = None
) -> None:
    """Refuse what cannot be trained on, before anything is written.

    Raises:
        UserError: with the numbers of the segments or pairs.
    """
    check(segments, task)
    if settings.method == "bc":
        return
    if pairs is None:
        raise UserError(f"{settings.method} needs preferences; label the segments with control label.")
    check_pairs(pairs, len(segments))
    if settings.method in ("ppl", "ppl_sampled") and not segments.labelled:
        raise UserError(
            f"{settings.method} needs the author's mean and std at every step, which these segments lack; "
            "take method: ppl_dirac, or ppl_fitted, which fits authors."
        )


def with_fitted_authors(segments: Segments, settings: TrainSettings) -> Segments:
    """Return what a method trains on: with the labels of fitted authors for ppl_fitted, else the segments as they are."""
    if settings.method != "ppl_fitted":
        return segments
    from entropilot.control.authors import fit_authors, with_labels

    return with_labels(segments, fit_authors(segments, seed=settings.seed))


def _author_logp(data: Data) -> Tensor:
    """log π_b(a) in the convention of `action_logp`, that is plus (d/2)·log π, (n, t)."""
    from entropilot.maths.gaussian import gaussian_logp

    return gaussian_logp(data.actions, data.mean_b, data.std_b) + 0.5 * data.actions.shape[-1] * math.log(
        math.pi
    )


class Phase:
    """One phase of a run: its loss on a batch, its optimiser, its generator. `state` and `load` make it resumable."""

    def __init__(self, actor: Actor, data: Data, settings: TrainSettings, name: str) -> None:
        self.actor, self.data, self.settings, self.name, self.step = actor, data, settings, name, 0
        imitation = name == "bc"
        self.last = settings.bc_steps if imitation else settings.steps
        rate = settings.bc_learning_rate if imitation else settings.learning_rate
        self.optimiser = torch.optim.Adam(actor.parameters(), lr=rate, fused=True)
        self.generator = torch.Generator().manual_seed(2 * settings.seed + imitation)
        self.method = settings.loss()
        self.reference: Tensor | None = None
        if imitation:
            inside = data.mask.flatten().nonzero()[:, 0]
            self.flat_inputs, self.flat_actions = (
                data.inputs.flatten(0, 1)[inside],
                data.actions.flatten(0, 1)[inside],
            )
        elif settings.method in ("cpl_kl", "dpo"):
            with torch.no_grad():
                self.reference = action_logp(actor(data.inputs), data.actions)
        elif settings.method == "ppl_sampled":
            self.author_logp = _author_logp(data)
        if isinstance(self.method, PPL):
            self.weights = self.method.weights(data.mask, torch.float32)
            self.std = torch.full((data.actions.shape[-1],), STD)

    def update(self) -> dict[str, Tensor]:
        """Take one optimiser step; return what is recorded."""
        loss, values = self._imitate() if self.name == "bc" else self._prefer()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.step += 1
        return {"loss": loss.detach(), **values}

    def _imitate(self) -> tuple[Tensor, dict[str, Tensor]]:
        rows = torch.randint(len(self.flat_inputs), (self.settings.bc_batch,), generator=self.generator)
        logp = action_logp(self.actor(self.flat_inputs[rows]), self.flat_actions[rows])
        return -logp.mean(), {}

    def _prefer(self) -> tuple[Tensor, dict[str, Tensor]]:
        data, settings = self.data, self.settings
        if settings.method == "sft":
            rows = torch.multinomial(data.wins, 2 * settings.batch, True, generator=self.generator)
            logp = action_logp(self.actor(data.inputs[rows]), data.actions[rows])
            return imitation_loss(logp, data.mask[rows]), {}
        pairs = torch.randint(len(data.first), (settings.batch,), generator=self.generator)
        rows = torch.cat([data.first[pairs], data.second[pairs]])
        score_1, score_2 = self.score(rows).split(settings.batch)
        preferred = data.preferred[pairs]
        assert self.method is not None
        loss = self.method.loss(score_1, score_2, preferred).mean()
        right = ((score_1 > score_2) == (preferred > 0.5)).float().mean()
        return loss, {"ranked_right": right.detach()}

    def score(self, rows: Tensor) -> Tensor:
        """Return S of segments, (b,)."""
        data, settings = self.data, self.settings
        mean, mask = self.actor(data.inputs[rows]), data.mask[rows]
        logp = action_logp(mean, data.actions[rows])
        if isinstance(self.method, CPL):
            return self.method.score(logp, mask, None if self.reference is None else self.reference[rows])
        assert isinstance(self.method, PPL)
        if settings.method in ("ppl", "ppl_fitted"):
            kl = gaussian_label(
                data.mean_b[rows], data.std_b[rows], mean, self.std.expand_as(mean), settings.constant
            )
            if settings.constant == "drop":
                # −E_b[log π_θ] in the convention of `action_logp`, as the other labels and log π_θ itself are.
                kl = kl - 0.5 * mean.shape[-1] * math.log(math.pi)
        elif settings.method == "ppl_sampled":
            kl = sampled_label(self.author_logp[rows], logp, settings.constant)
        else:
            kl = dirac_label(logp)
        return self.method.score(logp, kl, mask, self.weights[rows])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "phase": self.name,
            "step": self.step,
            "actor": self.actor.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "reference": self.reference,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.actor.load_state_dict(state["actor"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.step, self.reference = state["step"], state["reference"]


def imitate(segments: Segments, settings: TrainSettings) -> Actor:
    """Return the policy after the first phase, behaviour cloning of all segments."""
    actor = new_actor(segments, settings)
    phase = Phase(actor, Data(segments, None, actor), settings, "bc")
    while phase.step < phase.last:
        phase.update()
    return actor


def prefer(
    actor: Actor,
    segments: Segments,
    pairs: Pairs,
    settings: TrainSettings,
    on_step: Callable[[Actor, int, dict[str, Tensor]], Any] = lambda *_: None,
) -> Actor:
    """Return a policy after the second phase; the one given, which imitates, is left as it is."""
    prepare(segments, pairs, settings)
    actor = copy.deepcopy(actor)
    if settings.method == "bc":
        return actor
    segments = with_fitted_authors(segments, settings)
    if settings.method == "piql":
        from entropilot.control.piql import train_piql

        return train_piql(actor, segments, pairs, settings, on_step)
    phase = Phase(actor, Data(segments, pairs, actor), settings, "preference")
    while phase.step < phase.last:
        values = phase.update()
        on_step(actor, phase.step, values)
    return actor


def run(
    task: str,
    segments: Segments,
    pairs: Pairs | None,
    settings: TrainSettings,
    out: Path,
    resume: bool = False,
    processes: int = 1,
    report: Callable[[int, dict[str, Any]], Any] = lambda *_: None,
) -> Path:
    """Train in a folder: run.jsonl, checkpoint.pt, policy.npz; return the policy's path.

    Raises:
        UserError: the data can't be trained on, the folder holds another run, or nothing that can be resumed with these
            settings and data.
    """
    from entropilot.control.workers import success_rate
    from entropilot.records import RunWriter

    prepare(segments, pairs, settings, task)
    if settings.method == "piql":
        raise UserError("piql is trained by control bench only; take cpl, ppl or sft here.")
    kept = out / checkpoints.NAME
    mine = {
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()},
        "task": task,
        "data": checkpoints.digest(segments, None if settings.method == "bc" else pairs),
    }
    state = checkpoints.load(out, mine) if resume else None
    total = settings.bc_steps + (0 if settings.method == "bc" else settings.steps)
    done = 0 if state is None else state["step"] + (settings.bc_steps if state["phase"] != "bc" else 0)
    header = {"name": out.name, "recipe": {"task": task, "train": asdict(settings)}, "metrics": METRICS}
    if state is not None:  # on another CPU too, the run goes on in the precision that it began with
        settings = replace(settings, bf16=state["bf16"])
    segments = with_fitted_authors(segments, settings)
    actor = new_actor(segments, settings)
    mine["bf16"] = actor.bf16
    data = Data(segments, pairs, actor)
    phase = Phase(actor, data, settings, "bc")
    writer = RunWriter(out, header, resume_step=done if resume else None)
    began, reason = time.perf_counter(), "interrupted"
    try:
        if state is None:  # a run that is cut off before its first checkpoint can be resumed too
            checkpoints.save(kept, phase.state() | mine)
        for name in ("bc",) if settings.method == "bc" else ("bc", "preference"):
            if state is not None and name == "bc" and state["phase"] != "bc":
                continue
            if name != phase.name:
                phase = Phase(actor, data, settings, name)
            if state is not None and state["phase"] == name:
                phase.load(state)
            offset = 0 if name == "bc" else settings.bc_steps
            while phase.step < phase.last:
                values = phase.update()
                step = offset + phase.step
                last = step == total
                due = settings.evaluate_every and phase.step % settings.evaluate_every == 0
                if due or last:
                    row: dict[str, Any] = {k: v.item() for k, v in values.items()} | {"phase": name}
                    if not math.isfinite(row["loss"]):
                        raise UserError(
                            f"The loss became {row['loss']} at step {step}; lower learning_rate or alpha."
                        )
                    episodes = settings.final_episodes if last else settings.evaluate_episodes
                    if episodes:
                        row["success"] = success_rate(task, actor.to_numpy(), episodes, 0, processes)
                        row["episodes"] = episodes
                    row["seconds"] = time.perf_counter() - began
                    writer.row(step, row)
                    report(step, row)
                if phase.step % settings.checkpoint_every == 0 or last:
                    checkpoints.save(kept, phase.state() | mine)
        path = out / "policy.npz"
        actor.to_numpy(f"{task} {settings.method}").save(path)
        reason = "finished"
        return path
    except UserError as error:
        reason = str(error)
        raise
    finally:
        writer.end(reason)
        writer.close()


METRICS = {
    "loss": "of the last batch, nats",
    "ranked_right": "share of the last batch whose preferred segment scores higher",
    "success": "share of evaluation episodes solved at any step, deterministic policy",
    "episodes": "evaluation episodes",
    "seconds": "since the start, evaluation included",
}
