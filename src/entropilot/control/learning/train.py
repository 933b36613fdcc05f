"""Train a policy on segments: imitation of all of them, then preferences with a new optimiser."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from entropilot.control.learning import checkpoint as checkpoints
from entropilot.control.learning.phase import Data, Phase, new_actor
from entropilot.control.learning.piql import train_piql
from entropilot.control.learning.settings import MethodName, TrainSettings, settings_from
from entropilot.control.segments.actor import Actor
from entropilot.control.segments.check import check, check_pairs
from entropilot.control.segments.types import Pairs, Segments
from entropilot.errors import UserError

__all__ = ["MethodName", "TrainSettings", "imitate", "new_actor", "prefer", "prepare", "run", "settings_from"]


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
    from entropilot.control.segments.authors import fit_authors, with_labels

    return with_labels(segments, fit_authors(segments, seed=settings.seed))


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
    from entropilot.control.segments.workers import success_rate
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
