"""All rewards as TRL reward callables; TRL's own command line takes them by their dotted path.

A reward is `f(prompts, completions, completion_ids, **columns) -> list[float | None]`; the column `answer` holds
the gold answer. Those that need no answer are `empo_math`, `empo_exact`, `majority_math`, `majority_exact`, `scrl_math`,
`scrl_exact`, `teacher_math` and `teacher_exact` (whole groups; for these two `EntropyGRPOTrainer` keeps a slow copy of the
policy that votes), and the controls `format_reward` and `random_reward`. `trapo_math` and `trapo_exact` need one for some
rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, cast

from entropilot.answers.extraction.extract import extract
from entropilot.answers.grading import gold_answer
from entropilot.answers.judge import Judge
from entropilot.answers.judges import NAMES as JUDGES
from entropilot.answers.judges import build_judge, refuse_options
from entropilot.dotted import load_named
from entropilot.errors import UserError
from entropilot.inputs.messages import last_user_turn, text_of
from entropilot.methods.empo import EMPO
from entropilot.methods.majority import Majority
from entropilot.methods.scrl import SCRL
from entropilot.methods.trapo import TraPO
from entropilot.recipes.schema import FEW_LABELS, LABEL_FREE
from entropilot.recipes.values import fit_fields
from entropilot.rewards.controls import FormatReward, RandomReward
from entropilot.rewards.groups import GroupReward
from entropilot.rewards.taught import TeacherSettings
from entropilot.rewards.trajectories import TrajectoryReward
from entropilot.rewards.unanswered import WarnOnce
from entropilot.sandbox.tasks import get_tier

RewardFunction = Callable[..., list[float | None]]

empo_math = GroupReward(EMPO(), judge="math", name="empo_math")
"""EMPO: the share of the group whose answer means the same, by the judge `math`."""
empo_exact = GroupReward(EMPO(), judge="exact", name="empo_exact")
"""EMPO with the judge `exact`: answers are equal where their normalised texts are."""
majority_math = GroupReward(Majority(), judge="math", name="majority_math")
"""TTRL: 1 where the answer is that of the group's majority, by the judge `math`, else 0."""
majority_exact = GroupReward(Majority(), judge="exact", name="majority_exact")
"""TTRL with the judge `exact`."""
teacher_math = GroupReward(Majority(), judge="math", teacher=TeacherSettings(), name="teacher_math")
"""TTRL with the votes of a slow copy of the policy, which `EntropyGRPOTrainer` keeps; the judge is `math`."""
teacher_exact = GroupReward(Majority(), judge="exact", teacher=TeacherSettings(), name="teacher_exact")
"""The same with the judge `exact`."""
scrl_math = GroupReward(SCRL(), judge="math", name="scrl_math")
"""SCRL: labels only where the group is sure, positive and negative ones, by the judge `math`."""
scrl_exact = GroupReward(SCRL(), judge="exact", name="scrl_exact")
"""SCRL with the judge `exact`."""
trapo_math = TrajectoryReward(judge="math", name="trapo_math")
"""TraPO: rows with an answer are graded, rows without one join once they learn as those do; the judge is `math`."""
trapo_exact = TrajectoryReward(judge="exact", name="trapo_exact")
"""TraPO with the judge `exact`."""
format_reward = FormatReward()
"""Control: 1 where the completion gives any answer, right or wrong, else 0."""
random_reward = RandomReward()
"""Control: drawn uniformly from [0, 1), whatever was written."""


def sandbox_reward(tier: str) -> RewardFunction:
    """Return the reward of a sandbox tier: 1 for a right answer, else 0."""
    score = get_tier(tier).score

    def sandbox(completions: list[Any], answer: list[str], **_: Any) -> list[float | None]:
        return [
            None if gold is None else score(text_of(completion), gold)
            for completion, gold in zip(completions, answer, strict=True)
        ]

    return sandbox


def exact(completions: list[Any], answer: list[Any], **_: Any) -> list[float | None]:
    """1 where the completion, or its last line, is the answer, blanks at the ends aside; else 0; None without gold."""
    scores: list[float | None] = []
    for completion, gold in zip(completions, answer, strict=True):
        text, wanted = text_of(completion).strip(), str(gold).strip()
        right = wanted in (text, text.rsplit("\n", 1)[-1].strip())
        scores.append(None if gold is None else float(right))
    return scores


def math(
    completions: list[Any], answer: list[Any], prompts: list[Any] | None = None, **_: Any
) -> list[float | None]:
    """1 where the completion's answer equals the gold one by the judge `math`, else 0; None where the gold holds nothing.

    The answer is that of `extract`'s rule "auto". Text is parsed in worker processes, never evaluated; what takes one
    longer than its deadline counts as wrong.
    """
    golds = [None if gold is None else gold_answer(str(gold)) for gold in answer]
    texts = [text_of(completion) for completion in completions]
    found = [extract(text) for text in texts]
    _warn(texts, found)
    questions = [""] * len(found) if prompts is None else [last_user_turn(prompt) or "" for prompt in prompts]
    asked = [i for i, (text, gold) in enumerate(zip(found, golds, strict=True)) if text and gold]
    pairs = [(cast(str, found[i]), cast(str, golds[i])) for i in asked]
    verdicts = dict(zip(asked, _judge().equivalent(pairs, [questions[i] for i in asked]), strict=True))
    return [None if gold is None else float(verdicts.get(i, False)) for i, gold in enumerate(golds)]


_warn = WarnOnce("math", "auto")


@cache
def _judge() -> Judge:
    return build_judge("math")


def reasoning_gym(completions: list[Any], entry: list[str], **_: Any) -> list[float | None]:
    """Return the score that reasoning_gym's own task gives; `entry` is its JSON row (see `entropilot.inputs.problems`)."""
    import json

    import reasoning_gym as gym

    scores: list[float | None] = []
    for completion, row in zip(completions, entry, strict=True):
        item = json.loads(row)
        scorer = gym.get_score_answer_fn(item["metadata"]["source_dataset"])
        scores.append(float(scorer(text_of(completion).strip(), item)))
    return scores


def build_reward(
    name: str, tier: str | None, args: dict[str, Any] | None = None, seed: int = 0
) -> RewardFunction:
    """Return a reward by the name a recipe uses.

    The names are sandbox, exact, math, reasoning_gym, empo, majority, scrl, trapo, format and random; or it is a dotted
    path. Where the sandbox's problems come from a file, sandbox:TIER is the reward of a tier. Only the last six names take
    arguments: `empo` those of `EMPO`, `majority` those of `Majority`, `scrl` those of `SCRL`, `trapo` those of `TraPO`,
    these four also `judge` and `judge_args`, all but `random` also `extract`. On the sandbox's problems answers are
    extracted by the rule of its own reward and compared as strings unless the recipe says otherwise.

    Raises:
        UserError: the name means nothing here, or an argument does not fit.
    """
    args, with_arguments = dict(args or {}), (*LABEL_FREE, *FEW_LABELS)
    if name in with_arguments:
        return _label_free(name, tier, args, seed)
    if args:
        raise UserError(
            f"reward_args: {name} takes none; only {', '.join(with_arguments)} do, so remove reward_args or change reward."
        )
    kind, _, named_tier = name.partition(":")
    if kind == "sandbox":
        if not (named_tier or tier):
            raise UserError(
                "reward: sandbox needs data: sandbox; for its problems in a file name the tier, such as sandbox:chains, "
                "and choose exact, math or a dotted path for other data."
            )
        if named_tier and tier and named_tier != tier:
            raise UserError(
                f"reward: {name} grades another tier than data: sandbox:{tier}; give sandbox:{tier}, or sandbox alone."
            )
        return sandbox_reward(named_tier or str(tier))
    builtin = {"exact": exact, "math": math, "reasoning_gym": reasoning_gym}
    if name in builtin:
        return builtin[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UserError(
            f"reward: {name!r} is none of sandbox, {', '.join((*builtin, *with_arguments))}, and no dotted path such as "
            "my.rewards.f."
        )
    try:
        found = load_named(module, attribute)
    except ImportError as error:
        raise UserError(
            f"reward: {name!r} can't be imported ({error}); check the path, and that its module is installed or in the "
            "current folder."
        ) from error
    if not callable(found):
        raise UserError(f"reward: {name!r} is no function; give the dotted path of one.")
    return found


TEACHER = dict.fromkeys(("empo", "majority"), ("teacher", "teacher_alpha", "teacher_samples"))


def _teacher(args: dict[str, Any]) -> TeacherSettings | None:
    """Take the teacher's settings out of a reward's arguments; None where there is no teacher."""
    kind = args.pop("teacher", None)
    given = {key: args.pop(f"teacher_{key}") for key in ("alpha", "samples") if f"teacher_{key}" in args}
    if kind is None:
        if given:
            raise UserError(
                f"reward_args.teacher_{next(iter(given))} has no effect without a teacher; add teacher: ema."
            )
        return None
    if kind != "ema":
        raise UserError(f"reward_args.teacher = {kind!r} does not exist; it is ema, or left out.")
    return TeacherSettings(**fit_fields(TeacherSettings, given, "reward_args", "teacher"))


def _label_free(name: str, tier: str | None, args: dict[str, Any], seed: int) -> RewardFunction:
    """Return a reward that needs no label, or labels for some rows only, with the arguments of a recipe."""
    rules: dict[str, Any] = {"empo": EMPO, "majority": Majority, "scrl": SCRL, "trapo": TraPO}
    own = [field.name for field in fields(rules[name])] if name in rules else []
    known = {"format": ["extract"], "random": []}.get(
        name, [*own, "judge", "judge_args", "extract", *TEACHER.get(name, ())]
    )
    for key in args:
        if key not in known:
            has = f"it has: {', '.join(known)}" if known else "it takes none"
            raise UserError(f"reward_args.{key} does not exist for {name}; {has}.")
    if name == "random":
        return RandomReward(seed)
    if not isinstance(args.get("extract", ""), str):
        raise UserError("reward_args.extract is the name of a rule of extraction, such as boxed.")
    how: Any = args.pop("extract", "auto" if tier is None else get_tier(tier).answer_of)
    if name == "format":
        return FormatReward(how, name=name)
    judge = args.pop("judge", "math" if tier is None else "exact")
    judge_args = args.pop("judge_args", {})
    if not isinstance(judge, str) or not isinstance(judge_args, dict):
        raise UserError("reward_args: judge is the name of a judge, judge_args a section of its options.")
    if "." not in judge and judge not in JUDGES:
        raise UserError(f"reward_args.judge = {judge!r} does not exist; choose one of {', '.join(JUDGES)}.")
    refuse_options(judge, judge_args)
    teacher = _teacher(args)
    settings = {"judge": judge, "judge_args": judge_args, "extract": how, "name": name}
    rule = rules[name](**fit_fields(rules[name], args, "reward_args", name))
    return (
        TrajectoryReward(rule, **settings)
        if name == "trapo"
        else GroupReward(rule, teacher=teacher, **settings)
    )
