"""Procedural problems with a verifiable answer, and the text that a base model of each tier is pretrained on.

A tier is fixed by properties of its base model, never by what a method does on it. This file is plain
Python: problems and rewards can be used without torch.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from entropilot.errors import UserError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Problem:
    """Hold one problem: the user's turn, and the answer that a completion has to end with."""

    prompt: str
    answer: str


def split_of(prompt: str) -> Split:
    """Assign a problem to a split by a hash of its text: 1/8 test, 1/8 validation, 3/4 train.

    The splits are disjoint by construction, whatever seed drew the problem, and pretraining uses the
    train split only.
    """
    bucket = hashlib.sha256(prompt.encode()).digest()[0] % 8
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


@dataclass(frozen=True)
class Tier:
    """Hold a family of problems.

    Attributes:
        name: what a recipe writes behind `sandbox:`.
        describe: one sentence for people.
        draw: a problem from a random generator (any split).
        solve: a pretraining text (the assistant's turn) for a problem, imperfect on purpose.
        score: 1.0 for a right completion, else 0.0.
        answer_of: the answer that a completion gives, None where it gives none.
        max_completion_length: tokens that the longest honest solution needs, with some room.
        right: the solution without a mistake; what the same architecture can learn from it is the tier's capacity.
    """

    name: str
    describe: str
    draw: Callable[[random.Random], Problem]
    solve: Callable[[Problem, random.Random], str]
    score: Callable[[str, str], float]
    answer_of: Callable[[str], str | None]
    max_completion_length: int
    right: Callable[[Problem], str]

    def problems(self, split: Split, count: int, seed: int = 0) -> list[Problem]:
        """Return `count` different problems of one split, always the same for the same seed."""
        found: dict[str, Problem] = {}
        stream = self.stream(split, seed)
        for attempt, problem in enumerate(stream):
            found.setdefault(problem.prompt, problem)
            if len(found) == count:
                return list(found.values())
            if attempt > 200 * count + 10_000:
                break
        raise UserError(
            f"The tier {self.name!r} has fewer than {count} different {split} problems "
            f"({len(found)} found); ask for fewer."
        )

    def stream(self, split: Split, seed: int = 0) -> Iterator[Problem]:
        """Draw problems of one split for ever; repeats are possible."""
        rng = random.Random(f"{self.name}/{split}/{seed}")
        while True:
            problem = self.draw(rng)
            if split_of(problem.prompt) == split:
                yield problem


# --- chains: the easy tier --------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda x, y: (x + y) % 10,
    "-": lambda x, y: (x - y) % 10,
    "*": lambda x, y: (x * y) % 10,
}
# The answer is what follows the last `#`, up to the end of the completion. Anchored, no backtracking.
_ANSWER = re.compile(r"#(-?[0-9]{1,12})\Z")


def _chain(rng: random.Random, count: int) -> Problem:
    """Draw a chain of `count` digits."""
    operands = [rng.randrange(10) for _ in range(count)]
    text, value = str(operands[0]), operands[0]
    for operand in operands[1:]:
        operation = rng.choice("+-*")
        text += f"{operation}{operand}"
        value = OPERATIONS[operation](value, operand)
    return Problem(prompt=f"{text}=?", answer=str(value))


def _draw_chain(rng: random.Random) -> Problem:
    return _chain(rng, rng.randint(3, 6))


def _solve_chain(problem: Problem, rng: random.Random) -> str:
    """Write a trace in one of three styles, each with its own rate of mistakes.

    full (45 %): every step, `3+4=7;7*2=4;#4`, each step wrong with 4 %;
    running (30 %): the values only, `7;4;#4`, each wrong with 12 %;
    direct (25 %): the answer at once, `#4`, right in 35 % of the cases.
    A mistake is carried on, so a trace is consistent with itself. The noise and the mixture make it a *base*
    model: it knows, and does not always say so.
    """
    style = rng.random()
    if style < 0.25:
        return f"#{problem.answer if rng.random() < 0.35 else rng.randrange(10)}"
    full = style < 0.70
    return _trace(problem, full, 0.04 if full else 0.12, rng)


def _trace(problem: Problem, full: bool, rate: float, rng: random.Random) -> str:
    """Write every step (`full`) or the running values; each is replaced by a random digit with probability `rate`."""
    text = problem.prompt.removesuffix("=?")
    value, trace = int(text[0]), ""
    for operation, operand in zip(text[1::2], text[2::2], strict=True):
        before, value = value, OPERATIONS[operation](value, int(operand))
        if rng.random() < rate:
            value = rng.randrange(10)
        trace += f"{before}{operation}{operand}={value};" if full else f"{value};"
    return f"{trace}#{value}"


def marked_answer(completion: str) -> str | None:
    """Return what follows the `#` at the end of a completion, None where there is no such end."""
    found = _ANSWER.search(completion.rstrip()[-16:])
    return None if found is None else found.group(1)


def score_marked_answer(completion: str, answer: str) -> float:
    """Return 1.0 if the completion ends in `#answer`, else 0.0. Text is compared, never evaluated."""
    return float(marked_answer(completion) == answer)


CHAINS = Tier(
    name="chains",
    describe="3 to 6 digits joined by + - *, evaluated left to right modulo 10; the answer follows `#`.",
    draw=_draw_chain,
    solve=_solve_chain,
    score=score_marked_answer,
    answer_of=marked_answer,
    max_completion_length=40,
    right=lambda problem: _trace(problem, full=True, rate=0.0, rng=random.Random(0)),
)

# --- pool: the tier where the right answer has to be found by sampling -------------------------------------

_SAID = re.compile(r"#([0-9])\Z")


def _draw_long_chain(rng: random.Random) -> Problem:
    while True:
        problem = _draw_chain(rng)
        if len(problem.prompt) >= 11:  # five or six operands: more than one forward pass works out
            return problem


def _say_answer(problem: Problem, rng: random.Random) -> str:
    """Say the answer at once: `#4` or `=4.`, a random digit instead of the right one in 30 %."""
    digit = rng.randrange(10) if rng.random() < 0.3 else problem.answer
    return f"#{digit}" if rng.random() < 0.5 else f"={digit}."


def said_answer(completion: str) -> str | None:
    """Return the digit of a completion that is `#digit` and nothing else, None for any other: no working is allowed."""
    found = _SAID.match(completion)
    return None if found is None else found.group(1)


def score_said_answer(completion: str, answer: str) -> float:
    """Return 1.0 if the completion is `#answer` and nothing else, else 0.0."""
    return float(said_answer(completion) == answer)


POOL = Tier(
    name="pool",
    describe="5 or 6 digits joined by + - *, left to right modulo 10, answered at once: `#digit` and nothing else.",
    draw=_draw_long_chain,
    solve=_say_answer,
    score=score_said_answer,
    answer_of=said_answer,
    max_completion_length=6,
    right=lambda problem: f"#{problem.answer}",
)
"""The tier where exploration decides, meant for a fixed set of some 128 problems that is trained on many times over.

What fixes it, of the base model alone (`entropilot sandbox properties`, eight sets of 128 problems, 2026-11-21):

* search: pass@1 0.077 to 0.099 (wanted: at most 0.10), pass@256 1.000 (at least 0.40), greedy 0.11 to 0.19;
* capacity: the same architecture after 100 steps of supervised training on right answers, greedy: 1.000 (at least 0.90).

Five or six operands are more than one forward pass of it works out, and working is not allowed, so the right digit has to
be found by sampling. What is learned is learned by heart: rewards on the set say nothing of other problems.
"""

# --- long: the tier where the majority is often wrong ------------------------------------------------------


def _draw_longer_chain(rng: random.Random) -> Problem:
    return _chain(rng, rng.randint(6, 8))


LONG = replace(
    CHAINS,
    name="long",
    describe="6 to 8 digits joined by + - *, evaluated left to right modulo 10; the answer follows `#`.",
    draw=_draw_longer_chain,
    max_completion_length=60,
)
"""The tier for rewards without labels, where agreement is not truth.

What fixes it, of the base model alone (`entropilot sandbox properties --tier long --samples 64`, 128 problems each of the
seeds 0 and 1, 2026-11-28): the majority of 64 attempts is right on 0.61 and 0.60 of the problems (wanted: 0.50 to 0.75),
that of 8 on 0.52 of both; pass@1 0.34 and 0.33, greedy 0.55 and 0.61. Of `chains` every majority is right.

The base has read too little of such chains: 340 steps from `chains` (with 400 the majority of 64 was right on 0.80, with
600 on 0.93). Only these numbers were looked at.
"""

TIERS: dict[str, Tier] = {tier.name: tier for tier in (CHAINS, POOL, LONG)}


DEFAULT_TIER = "chains"  # the plain word `sandbox`


def tier_of(source: str, default: str = DEFAULT_TIER) -> str | None:
    """Return the tier that `sandbox` or `sandbox:TIER` names; None for anything else (a file, a folder, a Hub id).

    >>> tier_of("sandbox"), tier_of("sandbox:pool"), tier_of("data.jsonl")
    ('chains', 'pool', None)
    """
    kind, _, tier = source.partition(":")
    return (tier or default) if kind == "sandbox" else None


def get_tier(name: str) -> Tier:
    """Return a tier by name.

    Raises:
        UserError: there is none; the sentence lists the names.
    """
    try:
        return TIERS[name]
    except KeyError:
        raise UserError(f"There is no sandbox tier {name!r}; choose one of: {', '.join(TIERS)}.") from None
