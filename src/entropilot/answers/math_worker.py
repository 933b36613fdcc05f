"""Read mathematics in a process of its own: one JSON request per line in, one JSON reply per line out.

Started by `pool.py` as `python -m entropilot.answers.math_worker SECONDS MEGABYTES`, never imported by the rest. What it is
given is untrusted: it may hang, swallow memory or crash, and the pool kills and replaces it. Should the pool be gone by
then, an alarm that the kernel delivers ends the process, however deep in arithmetic it is. math-verify's own timeouts
stay off.

Requests: {"describe": body}, {"solve": body}, {"decide": [a, b]} and {"compare": [a, b]}, as in `math_algebra.py` and
`math_sets.py`; replies: {"done": …} or {"failed": reason}.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import sys
from typing import Any

from entropilot.answers.math_algebra import WARM_UP, compare, decide, describe, forbid_eval
from entropilot.answers.math_sets import solve


def main() -> None:
    seconds, megabytes = float(sys.argv[1]), int(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # whatever a library prints must not enter the replies
    os.dup2(null, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)
    _limit_memory(megabytes)
    forbid_eval()
    for body in WARM_UP:
        describe(body)
    _reply(replies, {"done": "ready"})
    parent = os.getppid()
    for line in _lines(parent):
        signal.setitimer(signal.ITIMER_REAL, seconds + 1.0)
        answer, last = _answer(line)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _reply(replies, answer)
        if last:
            return


def _lines(parent: int):
    """Requests until the pool closes the pipe or is gone. A sibling of the pool may hold the pipe open, so look."""
    rest = b""
    while True:
        if not select.select([0], [], [], 2.0)[0]:
            if os.getppid() != parent:
                return
            continue
        data = os.read(0, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _reply(replies, answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


def _answer(line: bytes) -> tuple[dict[str, Any], bool]:
    """The reply, and whether this process had better end: after a shortage of memory nothing is to be trusted."""
    try:
        request = json.loads(line)
        ((verb, given),) = request.items()
        if verb in ("describe", "solve"):
            return {"done": describe(given) if verb == "describe" else solve(given)}, False
        return {"done": {"decide": decide, "compare": compare}[verb](*given)}, False
    except MemoryError:
        return {"failed": "memory"}, True
    except RecursionError:
        return {"failed": "recursion"}, False
    except Exception as error:
        return {"failed": type(error).__name__}, False


def _limit_memory(megabytes: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the address space is not what is counted
        size = megabytes * 2**20
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size if hard < 0 else min(size, hard), hard))


if __name__ == "__main__":
    main()
