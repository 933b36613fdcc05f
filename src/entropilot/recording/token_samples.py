"""Write sampled completions token by token, with what the probe knows of each token.

A sample holds two kinds of rows. Training rows are some completions of the rollout: a group whose rewards differ, and
others spread over rewards. The other rows complete the same few prompts at every sample, so that one prompt can be
followed through a run.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entropilot.engine_view import EngineView
from entropilot.evaluation.in_memory import Row
from entropilot.evaluation.sampling.sampler import Sample
from entropilot.inputs.messages import render_prompt
from entropilot.maths.covariance import token_covariance
from entropilot.recording.fixed_prompts import FixedPrompts
from entropilot.recording.observer import Rollout
from entropilot.recording.padding import padded
from entropilot.recording.sample_rows import choose_rows
from entropilot.recording.validation import Validation
from entropilot.records import read_tokens, write_tokens
from entropilot.rewards.groups import named_group_rewards

# Of the training rows of a sample, and as many of the others; a row that is too much is left out.
MOST_TOKENS = 65_536
PER_RUN = 20  # samples, where nothing is set and the number of steps is known
EVERY = 50  # steps between two samples, where neither is
PER_TOKEN = ("logp", "entropy", "advantage", "covariance")


@dataclass
class _Taken:
    """A sample whose drift is not known yet, as this rank needs it; the rest of it is in its file."""

    step: int
    inputs: dict[str, Tensor]  # of its rows
    logp: Tensor


@dataclass
class TokenSamples:
    """Take token samples of a run. Every rank calls the same; only the main process writes.

    Completing the fixed prompts costs as much time as a rollout, because the tokens come one after the other. So they
    are drawn in the batches of a validation: a sample that is due waits for one that comes before the next sample is
    due. Where none comes, they are drawn by themselves, at every second sample only if `every` is left open.

    Attributes:
        folder: of the run; files go to its folder tokens.
        every: optimiser steps between two samples; 0 takes none, None about 20 in a run.
        rows: of the rollout, per sample.
        validation: of the run; its first problems are the fixed prompts, unless others are given.
        fixed: prompts that every sample completes.
        steps: of the whole training, where it is known.
        last: step at which the last sample was taken, or behind which a run is resumed; None in a new run.
    """

    folder: Path | None = None
    every: int | None = 0
    rows: int = 16
    validation: Validation | None = None
    fixed: FixedPrompts | None = None
    steps: int | None = None
    last: int | None = None
    _completed: int | None = field(default=None, init=False)  # step at which the fixed prompts were completed
    _drawn: list[Sample] | None = field(default=None, init=False)  # with the validation of this rollout
    _taken: _Taken | None = field(default=None, init=False)
    _ends: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        if self.fixed is None and self.validation is not None:
            held = self.validation
            self.fixed = FixedPrompts(
                held.rows, held.reward, max_new_tokens=held.max_new_tokens, seed=held.seed
            )

    @property
    def interval(self) -> int:
        """Return the optimiser steps between two samples, settled where `every` leaves them open."""
        if self.every is not None:
            return self.every
        return EVERY if self.steps is None else max(1, round(self.steps / PER_RUN))

    def _due(self, step: int) -> bool:
        every = self.interval
        if not every or self.folder is None:
            return False
        return self.last is None or (step - 1) // every > (self.last - 1) // every

    @property
    def _joins(self) -> bool:
        """Tell whether the fixed prompts can be drawn with a validation: a greedy one gives the same text each time."""
        ours = self.fixed is not None and self.fixed.role == "held_out"
        return ours and self.validation is not None and self.validation.temperature > 0

    def with_validation(self, engine: EngineView) -> list[Row]:
        """Return the rows that the validation of the coming rollout should draw beside its own; none, if none is due."""
        if self.fixed is None or not self._joins or not self._due(engine.step + 1):
            return []
        return self.fixed.repeated

    def drawn(self, samples: list[Sample]) -> None:
        """Take what a validation has drawn for `with_validation`."""
        self._drawn = samples or None

    def on_rollout(self, engine: EngineView, rollout: Rollout) -> None:
        """Take a sample where one is due."""
        step = engine.step + 1
        if self._due(step) and (self._drawn is not None or not self._waits(engine)):
            self._take(engine, rollout, step)
            self.last = step
        self._drawn = None

    def _waits(self, engine: EngineView) -> bool:
        """Tell whether a validation comes before the next sample is due."""
        if not self._joins or not engine.rollout:
            return False
        assert self.validation is not None
        # One rollout may serve several updates; their number is known from those that were made.
        return self.validation.every * engine.step <= self.interval * engine.rollout

    def _take(self, engine: EngineView, rollout: Rollout, step: int) -> None:
        """Write a sample before the first update of a rollout; `finish` adds the drift."""
        self._ends = self._ends or {engine.tokenizer.eos_token_id}
        fixed = self._complete(engine, step)
        output = rollout.output
        local = len(output["completion_ids"])
        rewards = rollout.rewards[rollout.first_row : rollout.first_row + local].tolist()
        groups = [(rollout.first_row + row) // engine.num_generations for row in range(local)]
        chosen = choose_rows(rewards, groups, self.rows)
        width = output["completion_ids"].shape[1]
        places = [rollout.first_row + row for row in chosen]
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        self._taken = None
        if not any(
            name.startswith("pixel_values") for name in output
        ):  # images are cut by other rules than rows
            inputs = {name: output[name][chosen] for name in names}
            self._taken = _Taken(step, inputs, rollout.batch.logp[places][:, :width])
        if engine.is_main:
            columns = self._columns(engine, rollout, chosen)
            for name, values in fixed.items():
                columns[name] += values
            count = len(columns["tokens"])
            columns = {"step": [step] * count} | {
                name: values + [None] * (count - len(values)) for name, values in columns.items()
            }
            self._write(step, columns)

    def finish(self, engine: EngineView) -> None:
        """After the last update of a rollout: add how far the log-probs of its stored rows have moved since."""
        taken = self._taken
        if taken is None or engine.step < taken.step:  # an update may take several rollouts
            return
        self._taken = None
        inputs = {name: value.to(engine.device) for name, value in taken.inputs.items()}
        now, _ = engine.score(inputs)
        if engine.is_main:
            moved = now.float() - taken.logp.to(now.device).float()
            masks = inputs["completion_mask"].bool()
            drift = [row[mask].tolist() for row, mask in zip(moved, masks, strict=True)]
            self._write_drift(taken.step, [drift[row] for row in _within(map(len, drift))])

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what a checkpoint has to keep of this rank, so that a resumed run takes the same samples."""
        facts = {"last": self.last, "completed": self._completed, "taken": None}
        if self._taken is None:
            return facts, {}
        return facts | {"taken": self._taken.step}, {**self._taken.inputs, "logp": self._taken.logp}

    def take_up(self, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.last, self._completed = facts["last"], facts["completed"]
        if facts["taken"] is not None:
            inputs = dict(tensors)
            logp = inputs.pop("logp")
            self._taken = _Taken(facts["taken"], inputs, logp)

    def _columns(self, engine: EngineView, rollout: Rollout, chosen: Sequence[int]) -> dict[str, list[Any]]:
        """Return the columns of these rows of this rank's rollout."""
        output, batch, decode = rollout.output, rollout.batch, engine.tokenizer.decode
        covariance = token_covariance(batch.logp, batch.advantages, rollout.eligible)
        selected = torch.zeros_like(batch.mask) if rollout.selected is None else rollout.selected
        per_token: dict[str, Tensor | None] = {
            "logp": batch.logp,
            "entropy": batch.entropy,
            "advantage": batch.advantages,
            "covariance": covariance,
            "chosen": selected,
        }
        group_rewards = named_group_rewards(engine.rewards)
        columns: dict[str, list[Any]] = defaultdict(list)
        masks = [output["completion_mask"][row].bool() for row in chosen]
        for number in _within(int(mask.sum()) for mask in masks):
            row, mask = chosen[number], masks[number]
            place = rollout.first_row + row
            ids = output["completion_ids"][row][mask].tolist()
            prompt = decode(output["prompt_ids"][row][output["prompt_mask"][row].bool()])
            # TRL empties the mask of a completion that it leaves out because it is cut.
            cut = not ids or ids[-1] not in self._ends
            _add(columns, prompt, ids, cut, "training", rollout.rewards[place].item(), decode)
            for name, values in per_token.items():
                known = values is not None
                columns[name].append(
                    values[place, : len(mask)][mask].tolist() if known else [None] * len(ids)
                )
            for label, reward in group_rewards.items():
                end = "" if label is None else f"/{label}"
                columns[f"cluster{end}"].append(reward.labels[row])
                columns[f"answer{end}"].append(reward.answers[row])
        return columns

    def _complete(self, engine: EngineView, step: int) -> dict[str, list[Any]]:
        """Return the columns of the fixed prompts; training's random state is untouched."""
        if self.fixed is None or not self.fixed.rows:
            return {}
        drawn, tokenizer = self._drawn, engine.tokenizer
        if drawn is None:
            spared = self.every is None and self._completed is not None
            if spared and step - (self._completed or 0) < 1.5 * self.interval:
                return {}
            drawn = self.fixed.draw(engine)
        self._completed = step
        texts = [render_prompt(row["prompt"], tokenizer) for row in self.fixed.repeated]
        prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
        logp, entropy = engine.score(padded(engine, prompts, [completion.ids for completion in drawn]))
        rewards = self.fixed.rewards(drawn)
        if not engine.is_main:
            return {}
        columns: dict[str, list[Any]] = defaultdict(list)
        for row in _within(len(completion.ids) for completion in drawn):
            ids, count = drawn[row].ids, len(drawn[row].ids)
            prompt = tokenizer.decode(prompts[row])
            _add(columns, prompt, ids, drawn[row].cut, self.fixed.role, rewards[row], tokenizer.decode)
            columns["logp"].append(logp[row, :count].tolist())
            columns["entropy"].append(entropy[row, :count].tolist())
            for name in ("advantage", "covariance"):  # belong to training alone
                columns[name].append([None] * count)
            columns["chosen"].append([False] * count)
        return columns

    def _write(self, step: int, columns: dict[str, list[Any]]) -> None:
        import pyarrow as pa

        assert self.folder is not None
        single = pa.list_(pa.float32())  # half the size, and 7 digits are more than a page shows
        typed = {name: pa.array(columns[name], single) for name in PER_TOKEN if name in columns}
        write_tokens(self.folder, step, columns | typed)

    def _write_drift(self, step: int, drift: list[list[float]]) -> None:
        """Write the sample of a step again, with the drift of its training rows, which come first."""
        import pyarrow as pa

        assert self.folder is not None
        columns = read_tokens(self.folder, step)
        if columns is None:  # removed meanwhile
            return
        others = [[None] * len(tokens) for tokens in columns["tokens"].to_pylist()[len(drift) :]]
        columns["drift"] = pa.array([*drift, *others], pa.list_(pa.float32()))
        write_tokens(self.folder, step, columns)


def _within(lengths: Any) -> list[int]:
    """Return the numbers of the rows that a sample keeps: each as long as all before it leave room."""
    kept, total = [], 0
    for number, length in enumerate(lengths):
        if total + length <= MOST_TOKENS:
            kept.append(number)
            total += length
    return kept


def _add(
    columns: dict[str, list[Any]],
    prompt: str,
    ids: list[int],
    cut: bool,
    role: str,
    reward: float | None,
    decode: Any,
) -> None:
    """Append what every row has."""
    columns["prompt"].append(prompt)
    columns["prompt_id"].append(hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:12])
    columns["role"].append(role)
    columns["completion"].append(decode(ids))
    columns["truncated"].append(cut)
    columns["reward"].append(reward)
    columns["tokens"].append([decode([token]) for token in ids])
