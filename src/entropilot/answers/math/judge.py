"""Mathematical equivalence of two answers: exact arithmetic at once, algebra in workers that can be killed."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

from entropilot.answers.judge import Pairs, Questions
from entropilot.answers.math.compare import Known, Request, Waiting, equal
from entropilot.answers.math.labels import Form, Unknown, form, looseness
from entropilot.answers.math.pool import Failure, Pool, Report, shared_pool
from entropilot.answers.normalise import LONGEST

_VERDICTS = 50_000
_REPLIES = 20_000
_OFTEN = 4  # comparisons of an answer after which workers describe all of it, so that the next ones are quick
_PERCENT = re.compile(r"%|\bper\s?cent|\bpercentage\b", re.IGNORECASE)
# Failures that another try may not meet: they are never remembered.
_PASSING = ("deadline", "budget", "crash")
# What hostile text may raise in this process; the pair or answer that does counts as not equal, and is counted.
_ERRORS = (ArithmeticError, ValueError, TypeError, LookupError, RecursionError)


class Math:
    """Equal as mathematics. Symmetric by construction; an answer that cannot be read equals only itself.

    First the text decides, in this process: one spelling (`normalise.py`), exact rational arithmetic, and lists,
    tuples, sets, intervals, unions and matrices member by member (`values.py`). What is left goes to worker processes
    (`pool.py`). There, numbers and expressions in + − · / and whole powers are compared exactly, by their remainders
    modulo a prime of 256 bits; other expressions as 40-digit values at fixed points of their variables, and where these
    agree, by a closer look at their difference. Equations are equal up to a constant factor. Only what has no value at
    all is asked of math-verify, in both directions.

    Known false positives of math-verify that are not repeated here: 1/2^99 and 1/2^98 (compared relative to their
    size), 52_8 and 52_9 (the base is a unit). 50 and 50 %: a percentage is a hundredth, so that 50 % is 1/2 and is not
    50, unless the question speaks of percent: then the sign is a unit that may be left out.

    No answer can raise. What runs out of time counts as not equal in that call, is counted in `report`, and is tried
    again in the next one.

    Args:
        pool: workers of one's own; default one pool for the whole process (2 GiB and 5 s per item).
    """

    name = "math"

    def __init__(self, *, pool: Pool | None = None) -> None:
        self._own = pool
        self._verdicts: OrderedDict[tuple[str, str, bool], bool] = OrderedDict()
        self._replies: OrderedDict[Request, Any] = OrderedDict()
        self._forms: OrderedDict[tuple[str, bool], Form | None] = OrderedDict()  # None: it has none
        self._compared: OrderedDict[tuple[str, bool], int] = (
            OrderedDict()
        )  # of answers whose form is not yet known
        self._pool.report  # noqa: B018 - says now, not in the midst of training, that math-verify is missing

    @property
    def _pool(self) -> Pool:
        return self._own or shared_pool()

    @property
    def report(self) -> Report:
        """Return the items that failed (deadline, crash, memory …) in this judge's pool, each counted as not equivalent."""
        return self._pool.report

    def equivalent(self, pairs: Pairs, questions: Questions | None = None) -> list[bool]:
        """Judge every pair; repeated pairs cost nothing, also across calls."""
        asked = questions if questions is not None else [None] * len(pairs)
        in_percent = {question: bool(question and _PERCENT.search(question)) for question in set(asked)}
        keys = [
            (a, b, in_percent[question]) if a < b else (b, a, in_percent[question])
            for (a, b), question in zip(pairs, asked, strict=True)
        ]
        verdicts: dict[tuple[str, str, bool], bool] = {}
        open_ = []
        for key in dict.fromkeys(keys):
            verdict = False if self._apart(key) else self._remembered(key)
            if verdict is None:
                open_.append(key)
            else:
                verdicts[key] = verdict
        compared = open_
        known = Known(self._replies)
        while open_:  # each round answers what the last one waited for; members of a list may need a second
            requests: dict[Request, None] = {}
            still = []
            for key in open_:
                known.consulted = False
                verdict = self._compare(key, known)
                if isinstance(verdict, Waiting):
                    still.append(key)
                    requests.update(dict.fromkeys(verdict.requests))
                    continue
                verdicts[key] = verdict
                # A cache of long hostile texts would fill the memory; a verdict for lack of time is none.
                if not known.consulted and max(len(key[0]), len(key[1])) <= LONGEST:
                    self._verdicts[key] = verdict
            self._ask(list(requests), known)
            open_ = still
        self._look_at(compared, known)
        for cache, size in (
            (self._verdicts, _VERDICTS),
            (self._replies, _REPLIES),
            (self._forms, _REPLIES),
            (self._compared, _REPLIES),
        ):
            while len(cache) > size:
                cache.popitem(last=False)
        return [verdicts[key] for key in keys]

    def precedence(self, answers: Sequence[str]) -> list[tuple[int, ...]]:
        """Say which answers lead a cluster first: those that commit themselves most (`labels.looseness`).

        "5 m" and "5 cm" differ and "5" equals both; 0.333333 stands for 1/3 and is not 0.3333333. With the strict one
        first, the clusters no longer depend on which came first in the group.
        """
        return [self._looseness(answer) for answer in answers]

    @staticmethod
    def _looseness(answer: str) -> tuple[int, ...]:
        try:
            return looseness(answer)
        except _ERRORS:
            return (0, 0, 0)  # no comparison with it succeeds either

    def _apart(self, key: tuple[str, str, bool]) -> bool:
        one, other = self._forms.get((key[0], key[2])), self._forms.get((key[1], key[2]))
        return one is not None and other is not None and key[0] != key[1] and one.apart(other)

    def _look_at(self, compared: list[tuple[str, str, bool]], known: Known) -> None:
        """Keep the forms of answers that have just been compared, so that their next comparisons are quick.

        A tuple is told apart by its first member that differs, so that the others may never be described; in a group of
        many tuples that would be a full comparison of every pair.
        """
        often: dict[Request, None] = {}
        waiting = []
        counts = Counter((answer, key[2]) for key in compared if key[0] != key[1] for answer in key[:2])
        for place, count in counts.items():
            missing = self._keep_form(*place)
            if missing is None:
                continue
            before = self._compared.get(place, 0)
            self._compared[place] = before + count
            requests: dict[Request, None] = {("describe", body): None for body in missing.bodies}
            # What has just cost its deadline would cost it again.
            if before < _OFTEN <= before + count and known.failed.isdisjoint(requests):
                often.update(requests)
                waiting.append(place)
        if often:
            self._ask(list(often), known)
            for place in waiting:
                self._keep_form(*place)

    def _keep_form(self, answer: str, in_percent: bool) -> Unknown | None:
        """Note the form of an answer; return what it takes to know it, None where nothing is missing."""
        if (answer, in_percent) in self._forms or len(answer) > LONGEST:
            return None
        try:
            shape = form(answer, in_percent, lambda *request: self._replies.get(request))
        except _ERRORS:
            return None  # the full comparison catches and counts it
        if isinstance(shape, Unknown):
            return shape
        self._forms[answer, in_percent] = shape
        self._compared.pop((answer, in_percent), None)
        return None

    def _compare(self, key: tuple[str, str, bool], known: Known) -> bool | Waiting:
        try:
            return equal(*key, known)
        except _ERRORS as error:
            # One answer must not end a training run; the report names it.
            self.report.add(Failure({"compare": [key[0], key[1]]}, type(error).__name__))
            return False

    def _ask(self, requests: list[Request], known: Known) -> None:
        sent = [{verb: list(given) if len(given) > 1 else given[0]} for verb, *given in requests]
        for request, reply in zip(requests, self._pool.ask(sent), strict=True):
            if not isinstance(reply, Failure):
                self._replies[request] = reply
            elif reply.reason in _PASSING:
                known.failed.add(request)
            else:
                self._replies[request] = (
                    {"kind": "unreadable"} if request[0] in ("describe", "solve") else False
                )

    def _remembered(self, key: tuple[str, str, bool]) -> bool | None:
        try:
            verdict = self._verdicts[key]
            self._verdicts.move_to_end(key)
            return verdict
        except KeyError:  # also where another thread has just taken it out
            return None

    def close(self) -> None:
        """End the workers of a pool of one's own; the shared pool ends with the interpreter."""
        if self._own:
            self._own.close()

    def __enter__(self) -> Math:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
