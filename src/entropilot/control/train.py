"""Train a policy on segments: imitation of all of them, then preferences with a new optimiser."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from entropilot.control.actor import STD, Actor, action_logp, cpu_has_bf16
from entropilot.control.segments import Pairs, Segments, check, check_pairs
from entropilot.errors import UserError
from entropilot.methods.cpl import CPL
from entropilot.methods.imitation import imitation_loss
from entropilot.methods.ppl import PPL, dirac_label, gaussian_label, sampled_label

MethodName = Literal["bc", "sft", "cpl", "cpl_kl", "dpo", "ppl", "ppl_sampled", "ppl_dirac", "piql"]
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class TrainSettings:
    """What a run is made of; the losses' settings as in `methods`.

    alpha and lam none: the method's own (CPL, PPL 0.1 and 0.5; CPL-KL 0.2 and 0.75; DPO 0.1 and 1).
    """

    method: MethodName = "ppl"
    alpha: float | None = None
    lam: float | None = None
    gamma: float = 1.0
    look_ahead: int | None = 16
    window: Literal["sum", "mean_L", "mean_terms"] = "mean_L"
    constant: Literal["keep", "drop", "means"] = "keep"
    hidden: tuple[int, ...] = (256, 256)
    bc_steps: int = 1500
    bc_learning_rate: float = 3e-4
    bc_batch: int = 4096  # states
    steps: int = 1500
    learning_rate: float = 1e-4  # CPL's; at 3e-4 runs went up and then down again
    batch: int = 32  # pairs
    evaluate_every: int = 300
    evaluate_episodes: int = 20
    final_episodes: int = 100
    checkpoint_every: int = 500
    bf16: bool | None = None  # none: where the CPU has it
    seed: int = 0
    piql: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in get_args(MethodName):
            raise UserError(
                f"The method {self.method!r} does not exist; choose one of {', '.join(get_args(MethodName))}."
            )
        for name in ("bc_steps", "steps", "evaluate_every", "final_episodes", "evaluate_episodes"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must be at least 0.")
        for name in ("bc_learning_rate", "learning_rate", "batch", "bc_batch", "checkpoint_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name}={getattr(self, name)} must be a positive number.")
        self.loss()

    def loss(self) -> PPL | CPL | None:
        """Return the preference method; None where there is none.

        Raises:
            UserError: its settings cannot work.
        """
        own = {"cpl_kl": (0.2, 0.75), "dpo": (0.1, 1.0)}.get(self.method, (0.1, 0.5))
        alpha = own[0] if self.alpha is None else self.alpha
        lam = own[1] if self.lam is None else self.lam
        try:
            if self.method.startswith("ppl"):
                return PPL(alpha, lam, self.gamma, self.look_ahead, self.window, self.constant)
            return CPL(alpha, lam) if self.method in ("cpl", "cpl_kl", "dpo") else None
        except ValueError as error:
            raise UserError(str(error)) from error


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
            "take method: ppl_dirac, or fit authors with control label --fit."
        )


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
        if settings.method == "ppl":
            kl = gaussian_label(
                data.mean_b[rows], data.std_b[rows], mean, self.std.expand_as(mean), settings.constant
            )
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
    if settings.method == "piql":
        from entropilot.control.piql import train_piql

        return train_piql(actor, segments, pairs, settings, on_step)
    phase = Phase(actor, Data(segments, pairs, actor), settings, "preference")
    while phase.step < phase.last:
        values = phase.update()
        on_step(actor, phase.step, values)
    return actor


def settings_from(values: dict[str, Any]) -> TrainSettings:
    """Return settings from a recipe's section.

    Raises:
        UserError: a key that does not exist, or a value of another kind.
    """
    from pydantic import TypeAdapter, ValidationError

    known = [f.name for f in fields(TrainSettings)]
    for key in values:
        if key not in known:
            raise UserError(f"train.{key} does not exist; the keys here are: {', '.join(known)}.")
    try:
        return TypeAdapter(TrainSettings).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"train.{place} = {first['input']!r} does not fit ({first['msg'].lower()}); change this value."
        ) from error


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
        UserError: the data can't be trained on, the folder holds another run, or there is nothing to resume.
    """
    from entropilot.control.workers import success_rate
    from entropilot.records import RunWriter

    prepare(segments, pairs, settings, task)
    if settings.method == "piql":
        raise UserError("piql is trained by control bench only; take cpl, ppl or sft here.")
    checkpoint = out / CHECKPOINT
    state = None
    if resume:
        if not checkpoint.is_file():
            raise UserError(f"{out} holds no checkpoint to resume from; leave out --resume.")
        state = torch.load(checkpoint, weights_only=True)
        if state["settings"] != _plain(settings) or state["task"] != task:
            raise UserError(
                f"The run in {out} was begun with other settings; resume with its recipe, or choose another --out."
            )
    total = settings.bc_steps + (0 if settings.method == "bc" else settings.steps)
    done = 0 if state is None else state["step"] + (settings.bc_steps if state["phase"] != "bc" else 0)
    header = {"name": out.name, "recipe": {"task": task, "train": asdict(settings)}, "metrics": METRICS}
    writer = RunWriter(out, header, resume_step=done if resume else None)
    actor = new_actor(segments, settings)
    data = Data(segments, pairs, actor)
    began, reason = time.perf_counter(), "interrupted"
    try:
        for name in ("bc",) if settings.method == "bc" else ("bc", "preference"):
            if state is not None and name == "bc" and state["phase"] != "bc":
                continue
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
                    _save(checkpoint, phase.state() | {"settings": _plain(settings), "task": task})
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


def _plain(settings: TrainSettings) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()}


def _save(path: Path, state: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)
