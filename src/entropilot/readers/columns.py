"""The columns that frameworks write, what each means in their terms, and which of them a run is read by."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers.lines import listed, shown

POLICY, TRAIN = "entropy/policy_T1", "entropy/train_token_mean"
ACCURACY, HELD_OUT, REWARD = "validation/accuracy", "validation/reward", "reward/mean"
MEANT = {"entropy": "the policy's entropy", "performance": "performance"}
_NEEDED = 3  # points that a law needs

_OURS = "as entropilot's probe defines it, see the run's header"
_TRL_ENTROPY = (
    "TRL's `entropy`: full vocabulary, at the training temperature, during the update, mean over completion tokens, "
    "then over the passes since the last log; not the paper's policy entropy"
)
_VERL_ENTROPY = (
    "verl's `actor/entropy`: full vocabulary, at the rollout's temperature, over the response tokens of a rollout, "
    "before its first update (during it in bypass mode), by actor.loss_agg_mode (token mean by default); "
    "not the paper's policy entropy, which is at T = 1 and a mean over sequences"
)
_VERL_LOSS = (
    "verl's `actor/entropy_loss`: entropy of the response tokens during the update, by actor.loss_agg_mode"
)
_OPENRLHF_ENTROPY = (
    "OpenRLHF's `entropy_loss`: full vocabulary, at the sampling temperature, during the update, mean over response "
    "tokens; logged where --actor.entropy_coef is set"
)
_UNKNOWN_ENTROPY = "how it was measured is not known to the reader; taken as a mean per token, in nats"
_VERL_SCORE = "verl's `critic/score/mean`: mean over the rollout of the scores, before any KL penalty"
_VERL_REWARDS = (
    "verl's `critic/rewards/mean`: mean over the rollout of the rewards, after the KL penalty if any"
)
_VAL_ACC = (
    "verl's validation: mean accuracy over N samples per problem of one data source, after the step's update"
)
_VAL_REWARD = (
    "verl's validation: mean reward over N samples per problem of one data source, after the step's update"
)
_TRL_REWARD = "TRL's `reward`: mean over the rollout of the weighted sum of the reward functions"
_TRAIN_REWARD = "by its name the reward of TRL or OpenRLHF: mean over the rollout"
_TRL_EVAL = "TRL's `eval_reward`: mean of the weighted sum of the reward functions on eval_dataset, as sampled in training"
_PASS1 = "OpenRLHF's evaluation: mean reward over the samples of a problem of one data set, an accuracy if rewards are 0/1"
_UNKNOWN = "what it measures is not known to the reader beyond its name"


@dataclass(frozen=True)
class Known:
    """A column that some framework writes."""

    role: str
    tier: int  # columns of the first tier that a log has are its defaults; two of one tier are an ambiguity
    pattern: re.Pattern[str]
    name: str  # in the rows; empty: the column's own
    unit: str
    definition: str


def _known(role: str, name: str, unit: str, *rows: tuple[int, str, str]) -> list[Known]:
    return [Known(role, tier, re.compile(pattern), name, unit, text) for tier, pattern, text in rows]


# An earlier row wins where two patterns fit a column. No pattern has more than one `.+`, so that none can backtrack far.
CATALOGUE = [
    *_known("entropy", POLICY, "nats", (0, r"(?:train/)?entropy/policy_T1", _OURS)),
    *_known(
        "entropy",
        TRAIN,
        "nats",
        (1, r"(?:train/)?entropy/train_token_mean", _OURS),
        (2, r"train/entropy", f"by its name {_TRL_ENTROPY}"),
        (2, r"actor/entropy", _VERL_ENTROPY),
        (2, r"(?:train/)?entropy_loss", _OPENRLHF_ENTROPY),
        (2, r"entropy|policy_entropy|mean_entropy|token_entropy", _UNKNOWN_ENTROPY),
        (3, r"actor/entropy_loss", _VERL_LOSS),
    ),
    *_known("performance", ACCURACY, "share", (0, r"(?:train/|eval/)?validation/accuracy", _OURS)),
    *_known(
        "performance",
        ACCURACY,
        "share",
        (1, r"val-core/.+/acc/mean@\d{1,6}", _VAL_ACC),
        (1, r"eval/eval_.+_pass1", _PASS1),
        (1, r"(?:val|validation|eval|test)[_/](?:acc|accuracy)", _UNKNOWN),
    ),
    *_known(
        "performance",
        HELD_OUT,
        "reward",
        (1, r"val-core/.+/reward/mean@\d{1,6}", _VAL_REWARD),
        (1, r"val/test_score/.+", _VAL_REWARD),
        (1, r"eval[_/](?:.{1,200}_)?reward", _TRL_EVAL),
        (1, r"(?:val|validation|test)[_/]reward", _UNKNOWN),
    ),
    *_known(
        "performance",
        REWARD,
        "reward",
        (2, r"(?:train/)?reward/mean", _OURS),
        (3, r"critic/score/mean", _VERL_SCORE),
        (3, r"train/reward", _TRAIN_REWARD),
        (3, r"reward|rewards|mean_reward|reward_mean|train_reward", _UNKNOWN),
        (4, r"critic/rewards/mean", _VERL_REWARDS),
    ),
    # Of these not even that is known, so that they keep their names.
    *_known("performance", "", "as logged", (3, r"acc|accuracy|score|performance", _UNKNOWN)),
]
_TRL = {"entropy": _TRL_ENTROPY, "reward": _TRL_REWARD}

# By framework: columns of one inner tuple are one axis, and the first that a row has counts.
_HF_STEP = ("train/global_step", "eval/global_step")
STEPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "entropilot": (("step",),),
    "trl": (("step",),),
    "verl": (("step",),),
    "tensorboard": (("step",),),
    "wandb": (_HF_STEP, ("_step",), ("Step",), ("training/global_step",), ("trainer/global_step",)),
    "trackio": (_HF_STEP, ("step",)),
    "table": (
        ("step",),
        ("global_step",),
        _HF_STEP,
        ("training/global_step",),
        ("_step",),
        ("Step",),
        ("iteration",),
    ),
}


@dataclass(frozen=True)
class Column:
    """A column of a log and what it became.

    Attributes:
        role: `entropy`, `performance` or `step`.
        source: its name in the log.
        name: its name in the rows.
        asked: whether it was asked for; else it is the framework's default.
        alternatives: other columns of the log that could take its place.
        unit: of its values.
        definition: what it measures, in the log's own terms.
    """

    role: str
    source: str
    name: str
    asked: bool
    alternatives: tuple[str, ...]
    unit: str
    definition: str

    def __str__(self) -> str:
        how = "as asked" if self.asked else "by default"
        became = "" if self.name == self.source else f", in the rows {shown(self.name)}"
        others = f"; also there: {listed(self.alternatives)}" if self.alternatives else ""
        return f"{self.role}: {shown(self.source)} ({how}){became}{others}"


def known(column: str, role: str) -> Known | None:
    """Return what is known of a column in a role."""
    for entry in CATALOGUE:
        if entry.role == role and entry.pattern.fullmatch(column):
            return entry
    return None


def wanted(*asked: str | None) -> Callable[[str], bool]:
    """Return the test for columns to keep whatever the size of a log: the known, the steps, and what was asked for."""
    kept = {name for tiers in STEPS.values() for tier in tiers for name in tier} | set(filter(None, asked))
    return lambda column: column in kept or bool(known(column, "entropy") or known(column, "performance"))


def choose(
    role: str, asked: str | None, counts: Mapping[str, int], framework: str, path: Path
) -> tuple[Column, str | None]:
    """Return the column for a role, and a sentence where a better one was passed over.

    Args:
        role: `entropy` or `performance`.
        asked: the column that was asked for.
        counts: by column of the log, how many numbers it holds.
        framework: whose log it is.
        path: the log, for messages.

    Raises:
        UserError: there is no such column, none is known, or several are equally good.
    """
    entries = {name: entry for name in counts if (entry := known(name, role))}
    if asked is not None:
        if asked not in counts:
            raise UserError(_missing(path, asked, list(counts)))
        return _column(role, asked, True, entries, framework, counts), None
    enough = {name: entry for name, entry in entries.items() if counts[name] >= _NEEDED} or entries
    if not enough:
        raise UserError(
            f"{path} has no column known to hold {MEANT[role]}; name it with {role}=…, one of "
            f"{listed(_nearest(role, list(counts)), 40)}."
        )
    tier = min(entry.tier for entry in enough.values())
    best = [name for name, entry in enough.items() if entry.tier == tier]
    if len(best) > 1:
        raise UserError(
            f"{path} has {len(best)} columns that could be {MEANT[role]}: {listed(sorted(best), 40)}; "
            f"choose with {role}=…."
        )
    short = [name for name, entry in entries.items() if entry.tier < tier]
    note = (
        f"{listed(sorted(short))} has fewer than {_NEEDED} values, so {shown(best[0])} is used."
        if short
        else None
    )
    return _column(role, best[0], False, entries, framework, counts), note


def _column(
    role: str, source: str, asked: bool, entries: dict[str, Known], framework: str, counts: Mapping[str, int]
) -> Column:
    like = [name for name in _nearest(role, list(counts)) if _like(name, role)]
    others = [name for name in dict.fromkeys([*entries, *like]) if name != source]
    entry = entries.get(source)
    if entry is not None:
        text = _TRL.get(source, entry.definition) if framework == "trl" else entry.definition
        return Column(role, source, entry.name or source, asked, tuple(others), entry.unit, text)
    if role == "entropy":
        return Column(role, source, TRAIN, asked, tuple(others), "nats", _UNKNOWN_ENTROPY)
    return Column(role, source, source, asked, tuple(others), "as logged", _UNKNOWN)


_WORDS = {
    "entropy": ("entropy",),
    "performance": ("acc", "reward", "score", "pass@", "pass1", "maj@", "best@"),
}


_NEVER = ("std", "zero", "/max", "/min", "worst", "profiling/")


def _like(name: str, role: str) -> bool:
    name = name.lower()
    return any(word in name for word in _WORDS[role]) and not any(word in name for word in _NEVER)


def _nearest(role: str, columns: Sequence[str]) -> list[str]:
    return sorted(columns, key=lambda name: (not _like(name, role), name))


def _missing(path: Path, asked: str, columns: list[str]) -> str:
    close = difflib.get_close_matches(asked[:200], columns[:2000], n=3)
    hint = f"did you mean {listed(close)}?" if close else f"it has {listed(sorted(columns), 40)}."
    return f"{path} has no column {shown(asked)} that holds a number; {hint}"
