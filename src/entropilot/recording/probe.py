"""The probe: entropy, covariance and what the method did, per optimiser step, into the record and the trackers.

It watches an `EntropyGRPOTrainer` and changes nothing in it: validation draws its own random numbers, and
nothing it keeps carries a graph. Sums and counts are added over ranks before they are divided.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback
from trl.models import unwrap_model_for_generation

from entropilot.analysis.stopping import label_free_stop
from entropilot.evaluation.in_memory import Reward, Row, evaluate
from entropilot.law.live import alarm, law_metrics
from entropilot.maths.covariance import token_covariance
from entropilot.maths.entropy import policy_entropy
from entropilot.recording.metrics import completion_metrics, rollout_metrics, update_metrics
from entropilot.recording.observer import MicroBatch, Rollout
from entropilot.recording.prefixes import Prefixes, response_metrics
from entropilot.records import RunWriter, write_tokens
from entropilot.rewards.groups import GroupReward, summarise


@dataclass
class Validation:
    """Held-out problems, and when to look at them.

    Attributes:
        rows: the problems.
        reward: a TRL reward callable with values in [0, 1]; the mean is the accuracy.
        every: rollouts between two measurements; the first is before the first rollout.
        temperature: of the sampling, 0 is greedy.
        samples: per problem.
        max_new_tokens: length limit.
        top_p: nucleus.
        batch_size: completions per forward pass.
        seed: of the sampling; the same for every measurement, so that two of them are paired.
    """

    rows: list[Row]
    reward: Reward
    every: int = 1
    temperature: float = 1.0
    samples: int = 1
    max_new_tokens: int = 256
    top_p: float = 1.0
    batch_size: int = 256
    seed: int = 0


@dataclass(eq=False)
class Probe(TrainerCallback):
    """Observer and callback in one: pass it to `EntropyGRPOTrainer(observer=...)`, and to `add_callback`.

    Attributes:
        writer: where rows go; None keeps to the trainer's own metrics.
        folder: where token samples go; None writes none.
        validation: None measures nothing on held-out problems.
        tokens_every: optimiser steps between two token samples; 0 takes none.
        tokens_rows: completions per sample, whole groups from the first row on.
        entropy_every: rollouts between two policy entropies at T = 1 where training runs at another temperature
            (one extra pass each); at T = 1 the entropy comes with the old log-probs and is measured every rollout.
        prefixes: completions on which entropy is measured around every update, beside the covariance of responses
            that should explain its change (arXiv:2505.22617, Fig. 8); None measures neither.
        stop: what to do when a reward that needs no label has nothing more to teach (`analysis.stopping`): "off",
            "warn" (a sentence), or "stop" (a sentence, and training ends after this update).
        on_row: is called with every finished row (the progress bar).
        on_alarm: is called once, with a sentence, when what entropy can buy is nearly spent.
    """

    writer: RunWriter | None = None
    folder: Path | None = None
    validation: Validation | None = None
    tokens_every: int = 0
    tokens_rows: int = 16
    entropy_every: int = 1
    prefixes: Prefixes | None = None
    stop: Literal["off", "warn", "stop"] = "off"
    on_row: Callable[[int, dict[str, Any]], None] | None = None
    on_alarm: Callable[[str], None] | None = None
    settings: dict[str, Any] = field(
        default_factory=dict
    )  # of the run, so that the alarm advises nothing that is set
    # (step, H, R) of every rollout, R where it was measured; a resumed run is given its past.
    history: list[tuple[int, float, float]] = field(default_factory=list)
    alarmed: bool = False  # the alarm was raised already
    # (step, semantic entropy, H, majority share) of every rollout, where a reward clusters; likewise on resuming.
    meanings: list[tuple[int, float, float, float]] = field(default_factory=list)
    stopped: bool = False  # the stop rule has spoken already

    rollouts: int = field(default=0, init=False)
    _pending: dict[str, Any] = field(default_factory=dict, init=False)
    _seen: list[MicroBatch] = field(default_factory=list, init=False)
    _covariance_signs: list[bool] = field(default_factory=list, init=False)
    _tokens_next: int = field(default=0, init=False)
    _step_began: float = field(default=0.0, init=False)
    _learning_rate: float = field(default=0.0, init=False)
    _trainer: Any = field(default=None, init=False)

    # --- as an observer -------------------------------------------------------------------------------------

    def before_rollout(self, trainer: Any) -> None:
        """Measure held-out accuracy where it is due: with the very policy that the rollout's entropy is of."""
        self._trainer = trainer
        # Counted from the step, so that a resumed run keeps the schedule; rounded up, because a rollout may
        # be sampled in the middle of an update, and the last one before a checkpoint is not taken up again.
        args = trainer.args
        passes = trainer.state.global_step * args.gradient_accumulation_steps
        self.rollouts = -(-passes // (args.steps_per_generation * args.num_iterations))
        due = self.validation is not None and self.rollouts % self.validation.every == 0
        if due and "validation/accuracy" not in self._pending:  # once, where an update takes several rollouts
            self._pending |= self.measure(trainer)
        if self.prefixes is not None:
            self.prefixes.before(trainer)

    def measure(self, trainer: Any) -> dict[str, float]:
        """Return held-out accuracy of the current weights, over all ranks; the training's randomness is untouched."""
        validation = self.validation
        assert validation is not None
        began = time.perf_counter()
        accelerator = trainer.accelerator
        # Every rank takes the same number of rows (sharded models generate in step); copies do not count.
        rank, world = accelerator.process_index, accelerator.num_processes
        numbers = list(range(rank, len(validation.rows), world))
        real = len(numbers)
        numbers += [0] * (-(-len(validation.rows) // world) - real)
        with unwrap_model_for_generation(trainer.model_wrapped, accelerator) as model:
            result = evaluate(
                model,
                trainer.processing_class,
                [validation.rows[number] for number in numbers],
                validation.reward,
                temperature=validation.temperature,
                max_new_tokens=validation.max_new_tokens,
                samples=validation.samples,
                top_p=validation.top_p,
                batch_size=validation.batch_size,
                seed=validation.seed,
                indices=numbers,  # so that the samples are the same on any number of ranks
            )
        scores = [score for row in result.scores[:real] for score in row]
        lengths = [length for row in result.lengths[:real] for length in row]
        cut = [c for row in result.cut[:real] for c in row]
        sums = torch.tensor([sum(scores), sum(lengths), sum(cut), len(scores)], device=accelerator.device)
        right, tokens, cut, count = accelerator.reduce(sums, reduction="sum").tolist()
        return {
            "validation/accuracy": right / count,
            "validation/length": tokens / count,
            "validation/truncated": cut / count,
            "validation/samples": int(count),
            "seconds/validation": time.perf_counter() - began,
        }

    def on_rollout(self, trainer: Any, rollout: Rollout) -> None:
        """Take the rollout's entropy, covariance, rewards and lengths; they go into its first update's row."""
        began = time.perf_counter()
        step = trainer.state.global_step + 1
        self._pending |= {"rollout": self.rollouts, "seconds/rollout": rollout.seconds}
        self._pending |= rollout_metrics(rollout, trainer.num_generations) | completion_metrics(trainer)
        self._pending |= self._policy_entropy(trainer, rollout) | self._meaning(trainer)
        if self.prefixes is not None:
            self._pending |= response_metrics(rollout, trainer.num_generations)
        self._covariance_signs.append(self._pending["covariance/mean"] > 0)
        self._pending["covariance/positive_share"] = sum(self._covariance_signs) / len(self._covariance_signs)
        if self.tokens_every and step >= self._tokens_next:
            self._write_tokens(trainer, rollout, step)
            self._tokens_next = step + self.tokens_every
        self._pending["seconds/probe"] = time.perf_counter() - began

    def _meaning(self, trainer: Any) -> dict[str, Any]:
        """Return what the first reward that looks at groups saw in this rollout, over all ranks."""
        for reward in trainer.reward_funcs:
            if isinstance(reward, GroupReward):
                return summarise(gather_object([reward.stats]))
        return {}

    def _policy_entropy(self, trainer: Any, rollout: Rollout) -> dict[str, float]:
        batch = rollout.batch
        if trainer.temperature == 1.0 and batch.entropy is not None:
            total, count = policy_entropy(batch.entropy, batch.mask)
            return {"entropy/policy_T1": (total / count.clamp(min=1)).item()}
        if self.rollouts % max(1, self.entropy_every):
            return {}
        with trainer.at_temperature(1.0):
            _, entropy = trainer.score(rollout.output)
        rows = slice(rollout.first_row, rollout.first_row + len(entropy))
        total, count = policy_entropy(entropy.float(), batch.mask[rows, : entropy.shape[1]])
        total, count = trainer.accelerator.reduce(torch.stack([total, count.to(total)]), reduction="sum")
        return {"entropy/policy_T1": (total / count.clamp(min=1)).item()}

    def on_micro_batch(self, trainer: Any, seen: MicroBatch) -> None:
        """Keep a training pass until its optimiser step is done."""
        self._seen.append(seen)

    # --- as a callback --------------------------------------------------------------------------------------

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock of the step."""
        self._step_began = time.perf_counter()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the learning rate of this update; when the step ends the schedule has gone on to the next."""
        self._learning_rate = kwargs["optimizer"].param_groups[0]["lr"]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Finish the row of this step: write it, and hand its scalars to the trackers."""
        if self._trainer is None or not self._seen:
            return
        trainer, row = self._trainer, self._pending
        row |= update_metrics(self._seen, trainer)
        row["learning_rate"] = self._learning_rate
        row["seconds/update"] = sum(seen.seconds for seen in self._seen)
        if self.prefixes is not None:
            row |= self.prefixes.after(trainer)
        row["seconds/step"] = time.perf_counter() - self._step_began
        row |= self._law(state.global_step, row) | self._stop(state.global_step, row)
        if "stop/reason" in row and self.stop == "stop":
            control.should_training_stop = True
        self._pending, self._seen = {}, []
        for name, value in row.items():
            # What a group reward saw it has handed to the trainer itself.
            ours = name not in ("rollout", "learning_rate") and not name.startswith("semantic/")
            if isinstance(value, int | float) and ours:
                trainer._metrics["train"][name].append(
                    value
                )  # TRL averages these and hands them to report_to
        self._finish(state.global_step, row)

    def _law(self, step: int, row: dict[str, Any]) -> dict[str, Any]:
        """Return the law so far, whenever R was measured, and raise the alarm once when its entropy is nearly spent."""
        if "entropy/policy_T1" not in row:
            return {}
        name = "reward/mean" if self.validation is None else "validation/accuracy"
        self.history.append((step, row["entropy/policy_T1"], row.get(name, math.nan)))
        if name not in row:
            return {}
        steps, entropy, performance = zip(*self.history, strict=True)
        found: dict[str, Any] = law_metrics(steps, entropy, performance)
        sentence = alarm(
            steps, entropy, performance, performance_name=name, settings=self.settings, raised=self.alarmed
        )
        if sentence is not None:
            self.alarmed = True
            found["law/alarm"] = sentence
            if self.on_alarm is not None:
                self.on_alarm(sentence)
        return found

    def _stop(self, step: int, row: dict[str, Any]) -> dict[str, Any]:
        """Say once that there is nothing more to learn without labels, by what can be seen without one."""
        if "semantic/entropy" not in row or "entropy/policy_T1" not in row:
            return {}
        seen = (row["semantic/entropy"], row["entropy/policy_T1"], row["semantic/majority_share"])
        self.meanings.append((step, *seen))
        if self.stopped or self.stop == "off":
            return {}
        found = label_free_stop(*zip(*self.meanings, strict=True))
        if found is None:
            return {}
        self.stopped = True
        if self.on_alarm is not None:
            self.on_alarm(found.words)
        return {"stop/reason": found.words}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure once more after the last update; the row's step is one past the last."""
        if self._trainer is not None and self.validation is not None:
            self._finish(state.global_step + 1, self.measure(self._trainer))

    def _finish(self, step: int, row: dict[str, Any]) -> None:
        if self.writer is not None:
            self.writer.row(step, row)
        if self.on_row is not None:
            self.on_row(step, row)

    # --- token samples --------------------------------------------------------------------------------------

    def _write_tokens(self, trainer: Any, rollout: Rollout, step: int) -> None:
        """Write the first completions of this rank's rollout, token by token."""
        if not trainer.accelerator.is_main_process or self.folder is None:
            return
        output, tokenizer = rollout.output, trainer.processing_class
        covariance = token_covariance(rollout.batch.logp, rollout.batch.advantages, rollout.eligible)
        columns: dict[str, list[Any]] = defaultdict(list)
        for row in range(min(self.tokens_rows, len(output["completion_ids"]))):
            here = rollout.first_row + row
            mask = output["completion_mask"][row].bool()
            ids = output["completion_ids"][row][mask].tolist()
            prompt = output["prompt_ids"][row][output["prompt_mask"][row].bool()]
            width = len(mask)

            def values(
                x: Tensor | None, here: int = here, width: int = width, mask: Tensor = mask
            ) -> list[Any]:
                return [] if x is None else x[here, :width][mask].tolist()

            columns["step"].append(step)
            columns["prompt"].append(tokenizer.decode(prompt))
            columns["completion"].append(tokenizer.decode(ids))
            columns["reward"].append(rollout.rewards[here].item())
            columns["tokens"].append([tokenizer.decode([token]) for token in ids])
            columns["logp"].append(values(rollout.batch.logp))
            columns["entropy"].append(values(rollout.batch.entropy))
            columns["advantage"].append(values(rollout.batch.advantages))
            columns["covariance"].append(values(covariance))
            for reward in trainer.reward_funcs:
                if isinstance(reward, GroupReward):
                    columns["cluster"].append(reward.labels[row])
                    columns["answer"].append(reward.answers[row])
                    break
            chosen = torch.zeros_like(rollout.batch.mask) if rollout.selected is None else rollout.selected
            columns["chosen"].append(values(chosen))
        write_tokens(self.folder, step, columns)
