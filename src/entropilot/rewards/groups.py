"""Reward whole groups of completions by what their answers mean, as TRL reward callables.

No label is used for a reward. Where the data has answers they are compared with for reporting alone, under names
that say so.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from math import gcd
from typing import Any, Protocol, cast

from entropilot.answers.clusters import Clusters, cluster
from entropilot.answers.extraction.extract import extract as extract_answer
from entropilot.answers.extraction.extract import without_copy
from entropilot.answers.grading import gold_answer, grade
from entropilot.answers.judge import Judge
from entropilot.answers.judges import build_judge
from entropilot.errors import UserError
from entropilot.inputs.messages import last_user_turn, prompt_key, text_of
from entropilot.methods.empo import EMPO
from entropilot.methods.majority import Majority
from entropilot.metrics import semantic_name
from entropilot.ranks import gather_objects, rank
from entropilot.rewards.taught import TeacherSettings, taught
from entropilot.rewards.unanswered import WarnOnce
from entropilot.rewards.visits import Visits, margin, vote

logger = logging.getLogger("entropilot")

Extract = Callable[[str], str | None]


class GroupRule(Protocol):
    """Turn the clusters of a group into its rewards: `EMPO`, `Majority`, `SCRL`.

    A rule whose attribute `reads_entropy` is true is also given the mean token entropies of the group, or None.
    """

    def rewards(self, labels: Sequence[int], missing: Sequence[bool]) -> list[float | None]: ...


class GroupReward:
    """Cluster the answers of every group and reward its completions by a rule; TRL calls it.

    Groups are always whole: where a rank holds a part of one, the completions of all ranks are gathered first, and
    every rank judges the groups that it has a part of.

    Args:
        rule: `EMPO(...)`, `Majority(...)` or `SCRL(...)`.
        judge: a `Judge`, or the name of one (math, exact, entailment, embedding, verifier, a dotted path).
        extract: a function, or the name of a rule of `entropilot.answers.extraction.extract`.
        judge_args: options of a judge that is named.
        name: under which TRL logs the reward.
        num_generations: G, completions per prompt, for calls by hand; a trainer of TRL says its own.
        teacher: a slow copy of the policy votes in its place (`EntropyGRPOTrainer` keeps it); None lets the group vote.

    Attributes:
        stats: of the latest call, sums and counts over the groups whose first completion is on this rank.
        labels: of the latest call, the cluster of every completion of this rank.
        answers: likewise the extracted answers.
        passes_over_copies: whether an answer in a verbatim copy of the question counts as none.
    """

    filters_groups = True  # None for a group means: no gradient from it, whatever other rewards say

    def __init__(
        self,
        rule: GroupRule,
        *,
        judge: str | Judge = "math",
        extract: str | Extract = "auto",
        judge_args: dict[str, Any] | None = None,
        name: str = "group_reward",
        num_generations: int | None = None,
        teacher: TeacherSettings | None = None,
    ) -> None:
        if teacher is not None and not isinstance(rule, EMPO | Majority):
            raise UserError(f"{name} takes no teacher; choose empo or majority, or leave teacher out.")
        self.rule, self.__name__, self.teacher = rule, name, teacher
        self.num_generations = num_generations
        self._judge, self._judge_args = judge, judge_args or {}
        self.passes_over_copies = isinstance(extract, str) and extract != "whole"
        if isinstance(extract, str):
            extract_answer("", extract)  # an unknown rule is refused now, not at the first completion
            self.extract: Extract = lambda text, rule=extract: extract_answer(text, rule)
        else:
            self.extract = extract
        self.stats: dict[str, Any] = {}
        self.labels: list[int] = []
        self.answers: list[str | None] = []
        self.measured: dict[str, float] = {}  # what a subclass reports of a call, the same on all ranks
        self.visits = Visits()
        self._said = False  # that there are no entropies
        self._warn = WarnOnce(name, extract if isinstance(extract, str) else "your own")

    def state(self) -> dict[str, Any]:
        """Return what must be saved with a checkpoint, as plain data: the majorities of past visits."""
        return {"visits": self.visits.state()}

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.visits.take_up(state["visits"])

    @property
    def judge(self) -> Judge:
        """Return the judge, built when it is first asked: a model is loaded or workers are started then."""
        if isinstance(self._judge, str):
            self._judge = build_judge(self._judge, **self._judge_args)
        return self._judge

    def __call__(
        self,
        prompts: list[Any],
        completions: list[Any],
        answer: list[Any] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        num_generations: int | None = None,
        mean_entropy: list[float] | None = None,
        teacher_completions: list[list[str]] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """Return one reward per completion of this rank; None where its group is left out.

        `num_generations` is G of this call, where no trainer of TRL says it.

        `mean_entropy`, over the tokens of each completion in nats, is what `EntropyGRPOTrainer` hands to rewards whose
        attribute `reads_entropy` is true, and `teacher_completions`, those of the prompt's teacher, to those with a
        teacher; TRL's own trainer does neither.
        """
        if self.teacher is not None and teacher_completions is None:
            raise UserError(
                f"{self.__name__} waits for a teacher's votes, which this trainer does not keep; train with "
                "EntropyGRPOTrainer, or leave teacher out."
            )
        votes: list[Any] = [None] * len(prompts)
        if teacher_completions is not None:
            votes = [[self.extract(text) for text in texts] for texts in teacher_completions]
        questions = [last_user_turn(prompt) or "" for prompt in prompts]
        texts = [text_of(completion) for completion in completions]
        if (
            self.passes_over_copies
        ):  # or copying a prompt that holds an example would make all completions agree
            texts = list(map(without_copy, texts, questions))
        extracted = [self.extract(text) for text in texts]
        if in_training(log_metric):
            self._warn(texts, extracted)
        gold: list[str | None] = [None] * len(extracted)
        if answer is not None:
            gold = [None if value is None else gold_answer(str(value)) for value in answer]
        entropy: list[Any] = [None] * len(extracted) if mean_entropy is None else mean_entropy
        self._say_without_entropy(mean_entropy is None)
        rows = list(zip(questions, extracted, gold, map(prompt_key, prompts), entropy, votes, strict=True))
        size = group_size(log_metric, prompts, num_generations or self.num_generations)
        own = slice(0, len(rows))
        if len(rows) % size:  # a group is torn: TRL calls rewards per process
            parts = gather_objects(rows)
            first = sum(len(part) for part in parts[: rank()])
            whole = [row for part in parts for row in part]
            if len(whole) % size:
                raise UserError(
                    f"A rollout of {len(whole)} completions is no multiple of num_generations = {size}, so its groups "
                    "can't be told apart; make per_device_train_batch_size x steps_per_generation x processes a multiple "
                    "of it."
                )
            begin, end = first // size * size, -(-(first + len(rows)) // size) * size
            own = slice(first - begin, first - begin + len(rows))
            rows = whole[begin:end]
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        clusters = cluster(
            [[row[1] for row in group] for group in groups], self.judge, [group[0][0] for group in groups]
        )
        # A torn group is counted by the rank that holds its first completion.
        owned = [index for index in range(len(groups)) if index * size >= own.start]
        rewards = self._rate(groups, clusters, owned, in_training(log_metric))
        groups_here, clusters_here, rewards_here = (
            [part[i] for i in owned] for part in (groups, clusters, rewards)
        )
        self.stats = self._count(groups_here, clusters_here, rewards_here)
        if in_training(log_metric):
            self.stats |= self._visit(groups_here, clusters_here)
        self.labels = [label for group in clusters for label in group.labels][own]
        self.answers = [row[1] for row in rows][own]
        if log_metric is not None:
            label = self._label(log_metric)
            for name, value in summarise([self.stats]).items():
                if isinstance(value, int | float):
                    log_metric(semantic_name(name, label), value)
        return [value for group in rewards for value in group][own]

    @property
    def reads_entropy(self) -> bool:
        """Return whether the rule wants the mean token entropy of every completion."""
        return bool(getattr(self.rule, "reads_entropy", False))

    def _say_without_entropy(self, without: bool) -> None:
        if self.reads_entropy and without and not self._said:
            self._said = True
            logger.warning(
                "%s gets no token entropies from this trainer, so it labels positives only; train with EntropyGRPOTrainer "
                "for its negatives.",
                self.__name__,
            )

    def _rate(
        self, groups: list[Any], clusters: list[Clusters], owned: list[int], training: bool
    ) -> list[list[float | None]]:
        """Return the rewards of whole groups; `owned` are those that this rank counts, of torn ones the first part's."""
        if self.teacher is not None:
            answers = [[row[1] for row in group] for group in groups]
            rule = cast(EMPO | Majority, self.rule)
            return taught(
                rule, answers, [group[0][5] for group in groups], self.judge, [g[0][0] for g in groups]
            )
        if not self.reads_entropy:
            return [self.rule.rewards(group.labels, group.missing) for group in clusters]
        entropies = [[row[4] for row in group] for group in groups]
        return [
            self.rule.rewards(found.labels, found.missing, None if None in known else known)  # type: ignore[call-arg]
            for found, known in zip(clusters, entropies, strict=True)
        ]

    def _label(self, log_metric: Any) -> str | None:
        """Return the name of this reward's metrics: its own only where the trainer has several that look at groups."""
        trainer = getattr(log_metric, "__self__", None)
        named = named_group_rewards(getattr(trainer, "reward_funcs", ()))
        return next((label for label, reward in named.items() if reward is self), None)

    def _visit(self, groups: list[Any], clusters: list[Clusters]) -> dict[str, Any]:
        """Remember what the groups of all ranks voted for; return what is reported of those of this rank.

        Every rank remembers all prompts, because another rank may meet a prompt next time. The first one asks the judge.
        """
        votes = [vote(group[0][3], group[0][0], found) for group, found in zip(groups, clusters, strict=True)]
        parts = gather_objects(votes)
        visits = self.visits.add([item for part in parts for item in part], self.judge) if rank() == 0 else []
        visits = gather_objects(visits)[0]
        if rank() != 0:
            self.visits.keep(visits)
        return {"flip_rates": [self.visits.rate(item.prompt) for item in votes]}

    def _count(
        self, groups: list[Any], clusters: list[Clusters], rewards: list[list[float | None]]
    ) -> dict[str, Any]:
        """Return what is reported of some groups, as sums and counts."""
        stats: dict[str, Any] = {
            "entropies": [group.semantic_entropy for group in clusters],
            "clusters": sum(len(group.sizes) for group in clusters),
            "majority": sum(max(group.shares) for group in clusters),
            "margin": sum(margin(group) for group in clusters),
            "filtered": sum(all(value is None for value in group) for group in rewards),
            "groups": len(clusters),
            "unanswered": sum(sum(group.missing) for group in clusters),
            "completions": sum(len(group.labels) for group in clusters),
            "measured": dict(self.measured),
        }
        questions, golds = ([group[0][i] for group in groups] for i in (0, 2))
        graded = grade([group.answers for group in clusters], golds, self.judge, questions)
        labelled = [
            (right, group) for right, group in zip(graded, clusters, strict=True) if right is not None
        ]
        stats["labelled_groups"] = len(labelled)
        stats["labelled_completions"] = sum(len(right) for right, _ in labelled)
        stats["right_completions"] = sum(sum(right) for right, _ in labelled)
        stats["right_majorities"] = sum(
            right[group.leaders[label]]
            for right, group in labelled
            for label in Majority().winners(group.labels, group.missing)
        )
        return stats


def summarise(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a row's `semantic/*` values from the statistics of all ranks."""
    total: Counter[str] = Counter()
    entropies: list[float] = []
    rates: list[float | None] = []
    for part in parts:
        entropies += part["entropies"]
        rates += part.get("flip_rates", [])
        total.update({name: value for name, value in part.items() if not isinstance(value, list | dict)})
    if not total["groups"]:
        return {}
    row: dict[str, Any] = {
        "semantic/entropy": sum(entropies) / len(entropies),
        "semantic/entropy_groups": entropies,
        "semantic/clusters": total["clusters"] / total["groups"],
        "semantic/majority_share": total["majority"] / total["groups"],
        "semantic/margin": total["margin"] / total["groups"],
        "semantic/filtered": total["filtered"] / total["groups"],
        "semantic/unanswered": total["unanswered"] / total["completions"],
    }
    seen_before = [rate for rate in rates if rate is not None]
    if seen_before:
        row["semantic/flip_rate"] = sum(seen_before) / len(seen_before)
        row["semantic/flip_rate_groups"] = rates
    for part in parts:
        row |= part.get("measured", {})
    if total["labelled_groups"]:
        row["semantic/label_accuracy"] = total["right_completions"] / total["labelled_completions"]
        row["semantic/majority_accuracy"] = total["right_majorities"] / total["labelled_groups"]
    return row


def named_group_rewards(rewards: Sequence[Any]) -> dict[str | None, GroupReward]:
    """Return the rewards that look at groups by the name that their metrics carry.

    One alone is under None, and its metrics are `semantic/*`; several are under their names, made different where two are
    equal, and their metrics are `semantic/NAME/*`.
    """
    groups = [reward for reward in rewards if isinstance(reward, GroupReward)]
    if len(groups) == 1:
        return {None: groups[0]}
    named: dict[str | None, GroupReward] = {}
    for reward in groups:
        name, number = reward.__name__, 1
        while name in named:
            number += 1
            name = f"{reward.__name__}_{number}"
        named[name] = reward
    return named


def group_size(log_metric: Any, prompts: Sequence[Any], given: int | None = None) -> int:
    """Return G, the completions per prompt: TRL does not pass it, but hands over a method of the trainer that knows.

    Without a trainer (a call by hand) it is `given`. Without that, too, it is read from the prompts, which stand group
    by group: the largest size that all runs of equal prompts are multiples of. One prompt drawn twice in a row may then
    look like one group of twice the size, so a warning says which size was taken.
    """
    trainer = getattr(log_metric, "__self__", None)
    if trainer is not None and hasattr(trainer, "num_generations"):
        return (
            trainer.num_generations
            if in_training(log_metric)
            else getattr(trainer, "num_generations_eval", trainer.num_generations)
        )
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise UserError(
                f"num_generations is {given!r}; give the number of completions per prompt, 1 or more."
            )
        return given
    size = gcd(*(len(list(run)) for _, run in groupby(prompts, key=str))) or 1
    if not _is_prime(size):  # several groups of two completions or more never make a prime number of rows
        warnings.warn(
            f"The group reward was not told how many completions a prompt has; it takes {size}, because equal prompts "
            f"stand in a row. If a prompt was drawn twice in a row, that joins two groups: pass num_generations.",
            stacklevel=3,
        )
    return size


def in_training(log_metric: Any) -> bool:
    """Return whether the trainer that hands over `log_metric` is training; a call by hand counts as training."""
    trainer = getattr(log_metric, "__self__", None)
    return bool(getattr(getattr(trainer, "model", None), "training", True))


def _is_prime(size: int) -> bool:
    """Whether a size can't be that of several groups of two completions or more (1 counts as such, too)."""
    return all(size % part for part in range(2, int(size**0.5) + 1))
