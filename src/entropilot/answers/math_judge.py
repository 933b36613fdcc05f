"""Mathematical equivalence of two answers: exact arithmetic at once, algebra in workers that can be killed."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

from entropilot.answers.judge import Pairs, Questions
from entropilot.answers.math_compare import Known, Request, Waiting, equal
from entropilot.answers.math_pool import Failure, Pool, Report, shared_pool
from entropilot.answers.normalise import LONGEST

_VERDICTS = 50_000
_REPLIES = 20_000
_PERCENT = re.compile(r"%|\bper\s?cent|\bpercentage\b", re.IGNORECASE)
_PASSING = (
    "deadline",
    "budget",
    "crash",
)  # failures that another try may not meet: they are never remembered


class Math:
    """Equal as mathematics. Symmetric by construction; an answer that cannot be read equals only itself.

    First the text decides, in this process: one spelling (`normalise.py`), exact rational arithmetic, and lists,
    tuples, sets, intervals, unions and matrices member by member (`math_values.py`). What is left goes to worker processes
    (`math_pool.py`). There, numbers and expressions in + − · / and whole powers are compared exactly, by their remainders
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
        keys = [
            (min(a, b), max(a, b), bool(question and _PERCENT.search(question)))
            for (a, b), question in zip(pairs, asked, strict=True)
        ]
        verdicts: dict[tuple[str, str, bool], bool] = {}
        open_ = []
        for key in dict.fromkeys(keys):
            verdict = self._remembered(key)
            if verdict is None:
                open_.append(key)
            else:
                verdicts[key] = verdict
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
        for cache, size in ((self._verdicts, _VERDICTS), (self._replies, _REPLIES)):
            while len(cache) > size:
                cache.popitem(last=False)
        return [verdicts[key] for key in keys]

    def _compare(self, key: tuple[str, str, bool], known: Known) -> bool | Waiting:
        try:
            return equal(*key, known)
        except (ArithmeticError, ValueError, TypeError, LookupError, RecursionError) as error:
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
