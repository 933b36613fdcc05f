"""Write sampled completions token by token, with what the probe knows of each token.

A sample holds two kinds of rows. Training rows are some completions of the rollout: a group whose rewards differ, and
others spread over rewards. The other rows complete the same few prompts at every sample, so that one prompt can be
followed through a run.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from entropilot.engine_view import EngineView
from entropilot.evaluation.in_memory import Reward, Row, rewards_of
from entropilot.evaluation.sampling.sampler import sample
from entropilot.inputs.messages import end_ids, render_prompt
from entropilot.maths.covariance import token_covariance
from entropilot.recording.observer import Rollout
from entropilot.recording.padding import padded
from entropilot.records import write_tokens
from entropilot.rewards.groups import named_group_rewards

PROMPTS, COMPLETIONS = 4, 4  # fixed prompts, and completions of each at every sample
MOST_TOKENS = (
    65_536  # of the training rows of a sample, and as many of the others; a row that is too much is left out
)
STREAM = 0x746F6B656E  # added to the seed: validation draws from the streams of the seed itself
PER_TOKEN = ("logp", "entropy", "advantage", "covariance", "drift")


@dataclass
class FixedPrompts:
    """Name the prompts that every token sample completes anew.

    Attributes:
        rows: problems, the first four of which are used.
        reward: scores their completions; None leaves the reward unknown.
        role: "held_out", or "training" where they are among the problems that are trained on.
        max_new_tokens: length limit.
        seed: of the sampling, the same at every sample; T is that of training.
    """

    rows: list[Row]
    reward: Reward | None = None
    role: Literal["held_out", "training"] = "held_out"
    max_new_tokens: int = 256
    seed: int = 0


@dataclass
class _Taken:
    """A sample whose drift is not known yet, as this rank needs it."""

    step: int
    inputs: dict[str, Tensor] | None  # None where the rows can't be scored again
    logp: Tensor
    columns: dict[str, list[Any]]


@dataclass
class TokenSamples:
    """Take token samples of a run. Every rank calls the same; only the main process writes.

    Attributes:
        folder: of the run; files go to its folder tokens.
        rows: of the rollout, per sample.
        fixed: prompts that every sample completes; None has training rows only.
    """

    folder: Path
    rows: int = 16
    fixed: FixedPrompts | None = None
    _taken: _Taken | None = field(default=None, init=False)
    _ends: set[int] = field(default_factory=set, init=False)

    def take(self, engine: EngineView, rollout: Rollout, step: int) -> None:
        """Write a sample before the first update of a rollout; `finish` adds the drift."""
        self._ends = self._ends or {engine.tokenizer.eos_token_id}
        fixed = self._complete(engine)
        output = rollout.output
        local = len(output["completion_ids"])
        rewards = rollout.rewards[rollout.first_row : rollout.first_row + local].tolist()
        groups = [(rollout.first_row + row) // engine.num_generations for row in range(local)]
        chosen = choose_rows(rewards, groups, self.rows)
        width = output["completion_ids"].shape[1]
        places = [rollout.first_row + row for row in chosen]
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        inputs = None
        if not any(
            name.startswith("pixel_values") for name in output
        ):  # images are cut by other rules than rows
            inputs = {name: output[name][chosen] for name in names}
        logp = rollout.batch.logp[places][:, :width]
        columns: dict[str, list[Any]] = {}
        if engine.is_main:
            columns = self._columns(engine, rollout, chosen)
            for name, values in fixed.items():
                columns[name] += values
            count = len(columns["tokens"])
            columns = {"step": [step] * count} | {
                name: values + [None] * (count - len(values)) for name, values in columns.items()
            }
            self._write(step, columns)
        self._taken = _Taken(step, inputs, logp, columns)

    def finish(self, engine: EngineView) -> None:
        """After the last update of a rollout: add how far the log-probs of its stored rows have moved since."""
        taken = self._taken
        if taken is None or engine.step < taken.step:  # an update may take several rollouts
            return
        self._taken = None
        if taken.inputs is None:
            return
        now, _ = engine.score(taken.inputs)
        if not engine.is_main:
            return
        moved = now.float() - taken.logp.float()
        drift = [
            row[mask.bool()].tolist()
            for row, mask in zip(moved, taken.inputs["completion_mask"], strict=True)
        ]
        drift = [drift[row] for row in _within(map(len, drift))]
        others = taken.columns["tokens"][len(drift) :]
        taken.columns["drift"] = drift + [[None] * len(tokens) for tokens in others]
        self._write(taken.step, taken.columns)

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

    def _complete(self, engine: EngineView) -> dict[str, list[Any]]:
        """Complete the fixed prompts on every rank and return their columns; training's random state is untouched."""
        if self.fixed is None or not self.fixed.rows:
            return {}
        rows, tokenizer = self.fixed.rows[:PROMPTS], engine.tokenizer
        with engine.generating_model() as model:
            self._ends = end_ids(model, tokenizer) or self._ends
            groups = sample(
                model,
                tokenizer,
                [row["prompt"] for row in rows],
                temperature=engine.temperature,
                max_new_tokens=self.fixed.max_new_tokens,
                samples=COMPLETIONS,
                seed=self.fixed.seed + STREAM,
            )
        drawn = [completion for group in groups for completion in group]
        texts = [render_prompt(row["prompt"], tokenizer) for row in rows for _ in range(COMPLETIONS)]
        prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
        logp, entropy = engine.score(padded(engine, prompts, [completion.ids for completion in drawn]))
        rewards: list[float | None] = [None] * len(drawn)
        if self.fixed.reward is not None:
            with _random_state_kept():
                rewards = rewards_of(rows, groups, self.fixed.reward)
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

        single = pa.list_(pa.float32())  # half the size, and 7 digits are more than a page shows
        typed = {name: pa.array(columns[name], single) for name in PER_TOKEN if name in columns}
        write_tokens(self.folder, step, columns | typed)


def choose_rows(rewards: Sequence[float], groups: Sequence[int], count: int) -> list[int]:
    """Return up to `count` rows of a rollout, in its order: a group whose rewards differ, and rows spread over rewards.

    The group is the one with the largest standard deviation of rewards, the first of equals; it is taken whole, or
    spread over its rewards where it is larger than `count`. Further rows come from the distinct rewards in turn, lowest
    first (from evenly spaced ones where there are too many), each from the group with the fewest rows so far.

    Args:
        rewards: of every row, NaN where nothing scored it.
        groups: number of the prompt of every row.
        count: of rows.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    # Not by the deviation: that of equal rewards is not always 0, by rounding.
    values = {group: [rewards[row] for row in rows] for group, rows in members.items()}
    spread = {group: float(np.std(own)) for group, own in values.items() if np.ptp(own) > 0}
    mixed = max(spread, key=spread.__getitem__, default=None)
    taken: list[int] = []
    if mixed is not None:
        taken += _over_rewards(rewards, groups, members[mixed], count, [])
    rest = [row for row in range(len(rewards)) if row not in set(taken)]
    return sorted(taken + _over_rewards(rewards, groups, rest, count - len(taken), taken))


def _over_rewards(
    rewards: Sequence[float], groups: Sequence[int], rows: Sequence[int], count: int, before: Sequence[int]
) -> list[int]:
    """Return up to `count` of these rows, from their distinct rewards in turn."""
    if len(rows) <= count:
        return list(rows)
    levels: dict[float | None, list[int]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (np.isnan(rewards[row]), rewards[row], row)):
        levels[None if np.isnan(rewards[row]) else rewards[row]].append(row)
    queues = list(levels.values())
    scored = queues[:-1] if None in levels else queues  # rows that nothing scored come last
    queues = scored if len(scored) >= count else queues
    if len(queues) > count > 0:
        queues = [queues[place] for place in np.linspace(0, len(queues) - 1, count).round().astype(int)]
    taken: list[int] = []
    load = defaultdict(int)
    for row in before:
        load[groups[row]] += 1
    while len(taken) < count:
        for queue in [queue for queue in queues if queue][: count - len(taken)]:
            row = min(queue, key=lambda row: (load[groups[row]], row))
            queue.remove(row)
            load[groups[row]] += 1
            taken.append(row)
    return taken


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


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Keep the global random states as they are, whatever a reward of the user's draws within the block."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the old global state is what is kept
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
