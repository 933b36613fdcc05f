"""Record entropy, covariance and what the method did, per optimiser step, into the run and the trackers.

A probe watches an engine through its `EngineView` and changes nothing in it: validation draws its own random numbers,
and nothing that is kept carries a graph. Sums and counts are added over ranks before they are divided.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainerCallback

from entropilot.analysis.stopping import label_free_stop
from entropilot.engine_view import EngineView
from entropilot.law.findings.live import LiveFindings
from entropilot.law.live import alarm, law_metrics
from entropilot.maths.entropy import policy_entropy
from entropilot.metrics import ACCURACY, ENTROPY, REWARD, SEMANTIC, semantic_name
from entropilot.recording.fixed_prompts import FixedPrompts
from entropilot.recording.metrics import rollout_metrics, update_metrics
from entropilot.recording.observer import MicroBatch, Rollout
from entropilot.recording.prefixes import Prefixes, response_metrics
from entropilot.recording.token_samples import TokenSamples
from entropilot.recording.validation import Validation as Validation
from entropilot.records import RunWriter, token_steps
from entropilot.rewards.groups import named_group_rewards, summarise

TOLD = "findings/told"


@dataclass(eq=False)
class Probe(TrainerCallback):
    """Watch a training: `EntropyGRPOTrainer(observer=probe)` is all that a script needs.

    On TRL the trainer registers it as a callback. Another engine calls `before_rollout`, `on_rollout`, `on_micro_batch`,
    and around every optimiser step `begin_update` and `end_update`; after the last one `end_training`.

    Attributes:
        writer: where rows go; None keeps to the engine's own trackers. Only the main process writes.
        folder: where token samples go, the same on every rank; None takes none.
        validation: None measures nothing on held-out problems.
        tokens_every: optimiser steps between two token samples; 0 takes none. None takes about 20 in a run where the
            engine is transformers' Trainer, which knows its number of steps, and one every 50 steps elsewhere.
        tokens_rows: completions of the rollout per token sample: a group whose rewards differ, where there is one, and
            others spread over rewards.
        fixed_prompts: prompts that every token sample completes anew; None takes the first of `validation`.
        entropy_every: rollouts between two policy entropies at T = 1 where training runs at another temperature
            (one extra pass each); at T = 1 the entropy comes with the old log-probs and is measured every rollout.
        prefixes: completions on which entropy is measured around every update, beside the covariance of responses
            that should explain its change (arXiv:2505.22617, Fig. 8); None measures neither.
        stop: what to do when a reward that needs no label has nothing more to teach (`analysis.stopping`): "off",
            "warn" (a sentence), or "stop" (a sentence, and training ends after this update).
        on_finding: what to do when the checks of `entropilot diagnose` find something wrong: "off", "warn" (a sentence),
            or "stop" (a sentence, and at a finding of severity error training ends after this update).
        on_row: is called with every finished row (the progress bar).
        on_alarm: is called with a sentence, once for each: what entropy can buy is nearly spent, a reward without
            labels has nothing more to teach, a finding.
    """

    writer: RunWriter | None = None
    folder: Path | None = None
    validation: Validation | None = None
    tokens_every: int | None = 0
    tokens_rows: int = 16
    fixed_prompts: FixedPrompts | None = None
    entropy_every: int = 1
    prefixes: Prefixes | None = None
    stop: Literal["off", "warn", "stop"] = "off"
    on_finding: Literal["off", "warn", "stop"] = "off"
    on_row: Callable[[int, dict[str, Any]], None] | None = None
    on_alarm: Callable[[str], None] | None = None
    settings: dict[str, Any] = field(
        default_factory=dict
    )  # of the run, so that the alarm advises nothing that is set
    # (step, H, R) of every rollout, R where it was measured; a resumed run is given its past.
    history: list[tuple[int, float, float]] = field(default_factory=list)
    alarmed: bool = False  # the alarm was raised already
    # (step, semantic entropy, H, majority share, flip rate) of every rollout, where a reward clusters; likewise.
    meanings: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    stopped: bool = False  # the stop rule has spoken already
    told: dict[str, str] = field(default_factory=dict)  # the findings that were told, by name; likewise

    rollouts: int = field(default=0, init=False)
    _pending: dict[str, Any] = field(default_factory=dict, init=False)
    _passes: list[MicroBatch] = field(default_factory=list, init=False)
    _covariance_signs: list[bool] = field(default_factory=list, init=False)
    _samples: TokenSamples | None = field(default=None, init=False)
    _steps: int | None = field(default=None, init=False)  # of the whole training, where it is known
    # What the checkpoint of a resumed run kept of the token samples; without it, the step of the last one.
    _kept: tuple[dict[str, Any], dict[str, torch.Tensor]] | None = field(default=None, init=False)
    _resumed: int | None = field(default=None, init=False)
    _step_began: float = field(default=0.0, init=False)
    _learning_rate: float = field(default=0.0, init=False)
    leaving: bool = field(
        default=False, init=False
    )  # training ends before its time: nothing more is measured
    _engine: EngineView | None = field(default=None, init=False)
    _findings: LiveFindings | None = field(default=None, init=False)

    def take_up(self, rows: Iterable[Mapping[str, Any]], step: int) -> None:
        """Take in the rows of a run that is resumed behind `step`, so that what looks back goes on from them."""
        name = REWARD if self.validation is None else ACCURACY
        past = [row for row in rows if row["step"] <= step]
        sampled = [] if self.folder is None else token_steps(self.folder)
        self._resumed = max((taken for taken in sampled if taken <= step), default=None)
        for row in past:
            self.told |= row.get(TOLD) or {}
            if row.get("covariance/mean") is not None:
                self._covariance_signs.append(row["covariance/mean"] > 0)
            if row.get(ENTROPY) is None:
                continue
            measured = row.get(name)
            self.history.append((row["step"], row[ENTROPY], math.nan if measured is None else measured))
            self.alarmed = self.alarmed or "law/alarm" in row
            meaning = _meaning_of(row)
            if meaning is not None:
                self.meanings.append((row["step"], *meaning))
            self.stopped = self.stopped or "stop/reason" in row
        if past and self.prefixes is not None:
            self.prefixes.last = past[-1].get("dynamics/entropy_after")
        self._findings = self._watch(past)

    @property
    def over(self) -> bool:
        """Tell whether a rule has spoken that ends training."""
        broken = any(sentence.startswith("error") for sentence in self.told.values())
        return (self.stopped and self.stop == "stop") or (broken and self.on_finding == "stop")

    @property
    def _tokens(self) -> TokenSamples:
        if self._samples is None:  # not earlier: the number of steps has to be known
            self._samples = TokenSamples(
                self.folder,
                self.tokens_every,
                self.tokens_rows,
                self.validation,
                self.fixed_prompts,
                steps=self._steps,
                last=self._resumed,
            )
            if self._kept is not None:
                self._samples.take_up(*self._kept)
        return self._samples

    def state(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """Return what a checkpoint has to keep that the record does not hold, plain data and tensors; None for nothing."""
        return None if self.folder is None or self.tokens_every == 0 else self._tokens.state()

    def restore(self, facts: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Take what `state` returned when the checkpoint was written; training has not begun yet."""
        self._kept = facts, tensors

    def _watch(self, past: Sequence[Mapping[str, Any]] = ()) -> LiveFindings:
        return LiveFindings({"recipe": {"method": self.settings.get("method")}}, past, self.told)

    # --- as an observer -------------------------------------------------------------------------------------

    def before_rollout(self, engine: EngineView) -> None:
        """Measure held-out accuracy where it is due: with the very policy that the rollout's entropy is of."""
        self._engine = engine
        self.rollouts = engine.rollout
        self._tokens.finish(engine)
        due = self.validation is not None and self.rollouts % self.validation.every == 0
        if due and ACCURACY not in self._pending:  # once, where an update takes several rollouts
            assert self.validation is not None
            metrics, drawn = self.validation.measure(engine, self._tokens.with_validation(engine))
            self._pending |= metrics
            self._tokens.drawn(drawn)
        if self.prefixes is not None:
            self.prefixes.before(engine)

    def on_rollout(self, engine: EngineView, rollout: Rollout) -> None:
        """Take the rollout's entropy, covariance, rewards and lengths; they go into its first update's row."""
        began = time.perf_counter()
        self._pending |= {"rollout": self.rollouts, "seconds/rollout": rollout.seconds}
        self._pending |= rollout_metrics(rollout, engine.num_generations) | rollout.measured
        self._pending |= engine.completion_metrics()
        self._pending |= self._policy_entropy(engine, rollout) | self._meaning(engine)
        if self.prefixes is not None:
            self._pending |= response_metrics(rollout, engine.num_generations)
        self._covariance_signs.append(self._pending["covariance/mean"] > 0)
        self._pending["covariance/positive_share"] = sum(self._covariance_signs) / len(self._covariance_signs)
        self._tokens.on_rollout(engine, rollout)
        self._pending["seconds/probe"] = time.perf_counter() - began

    def _meaning(self, engine: EngineView) -> dict[str, Any]:
        """Return what every reward that looks at groups saw in this rollout, over all ranks."""
        row: dict[str, Any] = {}
        for label, reward in named_group_rewards(engine.rewards).items():
            values = summarise(engine.gather_objects(reward.stats))
            row |= {semantic_name(name, label): value for name, value in values.items()}
        return row

    def _policy_entropy(self, engine: EngineView, rollout: Rollout) -> dict[str, float]:
        batch = rollout.batch
        if engine.temperature == 1.0 and batch.entropy is not None:
            total, count = policy_entropy(batch.entropy, batch.mask)
            return {ENTROPY: (total / count.clamp(min=1)).item()}
        if self.rollouts % max(1, self.entropy_every):
            return {}
        with engine.at_temperature(1.0):
            _, entropy = engine.score(rollout.output)
        rows = slice(rollout.first_row, rollout.first_row + len(entropy))
        total, count = policy_entropy(entropy.float(), batch.mask[rows, : entropy.shape[1]])
        total, count = engine.reduce(torch.stack([total, count.to(total)]))
        return {ENTROPY: (total / count.clamp(min=1)).item()}

    def on_micro_batch(self, engine: EngineView, part: MicroBatch) -> None:
        """Keep a training pass until its optimiser step is done."""
        self._engine = engine  # a run that is resumed inside a rollout begins here
        self._passes.append(part)

    # --- around an optimiser step ---------------------------------------------------------------------------

    def begin_update(self) -> None:
        """Start the clock of the step."""
        self._step_began = time.perf_counter()

    def end_update(self, engine: EngineView, learning_rate: float) -> bool:
        """Finish the row of this step: write it, and hand its scalars to the trackers.

        Returns:
            Whether training should stop, because `stop` or `on_finding` says so.
        """
        if not self._passes:
            return False
        row, step = self._pending, engine.step
        row |= update_metrics(self._passes, engine)
        row["learning_rate"] = learning_rate
        row["seconds/update"] = sum(part.seconds for part in self._passes)
        if self.prefixes is not None:
            row |= self.prefixes.after(engine)
        row["seconds/step"] = time.perf_counter() - self._step_began
        row |= self._law(step, row) | self._stop(step, row) | self._find(step, row)
        self._pending, self._passes = {}, []
        for name, value in row.items():
            # What a group reward saw it has handed to the trainer itself.
            ours = name not in ("rollout", "learning_rate") and not name.startswith(SEMANTIC)
            if isinstance(value, int | float) and ours:
                engine.log(name, value)
        self._finish(engine, step, row)
        return ("stop/reason" in row or TOLD in row) and self.over

    def end_training(self, engine: EngineView, *, report: bool = True) -> None:
        """Measure once more after the last update; the row's step is one past the last.

        Args:
            engine: the engine.
            report: hand it to the engine's trackers, which must have begun.
        """
        self._tokens.finish(engine)
        if self.validation is not None:
            step, row = engine.step + 1, self.validation.measure(engine)[0]
            self._finish(engine, step, row)
            if report:
                engine.report(
                    step, {name: value for name, value in row.items() if isinstance(value, int | float)}
                )

    def _law(self, step: int, row: dict[str, Any]) -> dict[str, Any]:
        """Return the law so far, whenever R was measured, and raise the alarm once when its entropy is nearly spent."""
        if ENTROPY not in row:
            return {}
        name = REWARD if self.validation is None else ACCURACY
        self.history.append((step, row[ENTROPY], row.get(name, math.nan)))
        if name not in row:
            return {}
        steps, entropy, performance = zip(*self.history, strict=True)
        metrics: dict[str, Any] = law_metrics(steps, entropy, performance)
        sentence = alarm(
            steps, entropy, performance, performance_name=name, settings=self.settings, raised=self.alarmed
        )
        if sentence is not None:
            self.alarmed = True
            metrics["law/alarm"] = sentence
            if self.on_alarm is not None:
                self.on_alarm(sentence)
        return metrics

    def _stop(self, step: int, row: dict[str, Any]) -> dict[str, Any]:
        """Say once that there is nothing more to learn without labels, by what can be seen without one."""
        meaning = _meaning_of(row)
        if meaning is None or ENTROPY not in row:
            return {}
        self.meanings.append((step, *meaning))
        if self.stopped or self.stop == "off":
            return {}
        reason = label_free_stop(*zip(*self.meanings, strict=True))
        if reason is None:
            return {}
        self.stopped = True
        if self.on_alarm is not None:
            self.on_alarm(reason.words)
        return {"stop/reason": reason.words}

    def _find(self, step: int, row: Mapping[str, Any]) -> dict[str, Any]:
        """Say once what is wrong with the run so far; row values are the same on all ranks, so that all stop together."""
        if self.on_finding == "off":
            return {}
        if self._findings is None:
            self._findings = self._watch()
        new = {finding.name: finding.sentence() for finding in self._findings.add(step, row)}
        if not new:
            return {}
        self.told |= new
        if self.on_alarm is not None:
            for sentence in new.values():
                self.on_alarm(sentence)
        return {TOLD: new}

    def _finish(self, engine: EngineView, step: int, row: dict[str, Any]) -> None:
        if self.writer is not None and engine.is_main:
            self.writer.row(step, row)
        if self.on_row is not None:
            self.on_row(step, row)

    # --- as a callback of transformers' Trainer -------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the number of steps, by which token samples are spread over the run."""
        self._steps = state.max_steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock of the step."""
        self.begin_update()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the learning rate of this update; when the step ends the schedule has gone on to the next."""
        self._learning_rate = kwargs["optimizer"].param_groups[0]["lr"]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Finish the row of this step."""
        if self._engine is not None and self.end_update(self._engine, self._learning_rate):
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure once more after the last update."""
        if self._engine is not None and not self.leaving:
            self.end_training(self._engine)


def _meaning_of(row: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """Return (semantic entropy, policy entropy, majority share, flip rate) of a row: of its first group reward.

    None where it has no group reward; the flip rate is nan where no prompt was visited before.
    """
    names = (name for name in row if name.startswith(SEMANTIC) and name.endswith("/entropy"))
    name = next((name for name in names if row[name] is not None), None)
    if name is None or row.get(ENTROPY) is None:
        return None
    reward = name.removesuffix("entropy")
    flips = row.get(f"{reward}flip_rate")
    return row[name], row[ENTROPY], row[f"{reward}majority_share"], math.nan if flips is None else flips
