"""Train in a folder: a record, a checkpoint to resume from, and the policy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from entropilot.control.learning import checkpoint as checkpoints
from entropilot.control.learning.metrics import definitions
from entropilot.control.learning.phase import Data, Imitation, Phase, new_actor
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.learning.train import prepare
from entropilot.control.segments.types import Pairs, Segments
from entropilot.control.segments.workers import success_rate
from entropilot.errors import UserError
from entropilot.records import RunWriter

Row = dict[str, Any]


@dataclass
class _Session:
    """What the phases of a run share: where they write, and when they evaluate."""

    settings: TrainSettings
    identity: Row  # settings, task and data: what a checkpoint is continued with
    checkpoint: Path
    writer: RunWriter
    report: Callable[[int, Row], Any]
    total: int  # updates of all phases
    processes: int = 1
    began: float = field(default_factory=time.perf_counter)

    def save(self, phase: Phase) -> None:
        checkpoints.save(self.checkpoint, phase.state() | self.identity)

    def train(self, phase: Phase, offset: int) -> None:
        """Take the updates that a phase has left; `offset` updates came before it."""
        while phase.step < phase.last:
            values = phase.update()
            step, own = offset + phase.step, phase.step - phase.lead_in
            last, every = step == self.total, self.settings.evaluate_every
            if last or (every and own % every == 0):
                self._record(phase, step, values, last)
            if last or phase.step % self.settings.checkpoint_every == 0:
                self.save(phase)

    def _record(self, phase: Phase, step: int, values: dict[str, Any], last: bool) -> None:
        row: Row = {name: value.item() for name, value in values.items()} | {"phase": phase.name}
        if not math.isfinite(row["loss"]):
            raise UserError(f"The loss became {row['loss']} at step {step}; lower learning_rate or alpha.")
        episodes = self.settings.final_episodes if last else self.settings.evaluate_episodes
        if episodes and (last or phase.step > phase.lead_in):  # before that the policy is still the clone
            actor, task = phase.actor.to_numpy(), self.identity["task"]
            row["success"] = success_rate(task, actor, episodes, 0, self.processes)
            row["episodes"] = episodes
        row["seconds"] = time.perf_counter() - self.began
        self.writer.row(step, row)
        self.report(step, row)


def run(
    task: str,
    segments: Segments,
    pairs: Pairs | None,
    settings: TrainSettings,
    out: Path,
    resume: bool = False,
    processes: int = 1,
    report: Callable[[int, Row], Any] = lambda *_: None,
) -> Path:
    """Train in a folder: run.jsonl, checkpoint.pt, policy.npz; return the policy's path.

    Raises:
        UserError: the data can't be trained on, the folder holds another run, or nothing that can be resumed with these
            settings and data.
    """
    learner = prepare(segments, pairs, settings, task)
    identity: Row = {
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()},
        "task": task,
        "data": checkpoints.digest(segments, None if learner.phase is None else pairs),
    }
    state = checkpoints.load(out, identity) if resume else None
    done = 0
    if state is not None:
        done = state["step"] + (0 if state["phase"] == Imitation.name else settings.bc_steps)
        # On another CPU too, the run goes on in the precision that it began with.
        settings = replace(settings, bf16=state["bf16"])
    segments, _ = learner.training_set(segments, settings)
    actor = new_actor(segments, settings)
    identity["bf16"] = actor.bf16
    data = Data(segments, pairs, actor)
    recipe = {"task": task, "train": identity["settings"]}
    header = {"name": out.name, "recipe": recipe, "metrics": definitions(learner)}
    writer = RunWriter(out, header, resume_step=done if resume else None)
    total = settings.bc_steps + learner.updates(settings)
    session = _Session(settings, identity, out / checkpoints.NAME, writer, report, total, processes)
    reason = "interrupted"
    try:
        if state is None or state["phase"] == Imitation.name:
            phase = Imitation(actor, data, settings)
            if state is None:
                session.save(phase)  # a run that is cut off before its first checkpoint can be resumed too
            else:
                phase.load(state)
            session.train(phase, 0)
        if learner.phase is not None:
            phase = learner.begin(actor, data, settings)
            if state is not None and state["phase"] == phase.name:
                phase.load(state)
            session.train(phase, settings.bc_steps)
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
