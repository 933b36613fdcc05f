"""Read mathematics in a process of its own: one JSON request per line in, one JSON reply per line out.

Started by `pool.py` as `python -m entropilot.answers.math.worker SECONDS MEGABYTES`, never imported by the rest. It
loads the libraries once and forks a child that reads the requests. What a request holds is untrusted: it may hang,
swallow memory or crash. The pool kills the child then, and the next one is forked, in milliseconds and not in the
seconds that loading takes. Should the pool be gone by then, an alarm that the kernel delivers ends the child, however
deep in arithmetic it is. math-verify's own timeouts stay off.

Requests: {"describe": body}, {"solve": body}, {"decide": [a, b]} and {"compare": [a, b]}, as in `algebra.py` and
`sets.py`; replies: {"done": …} or {"failed": reason}. Each child begins with {"ready": its process id}.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import select
import signal
import sys
from typing import Any

from entropilot.answers.math.algebra import WARM_UP, compare, decide, describe, forbid_eval
from entropilot.answers.math.sets import solve


def main() -> None:
    """Answer requests, one JSON line each, until the input ends."""
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
    pool = os.getppid()
    gc.freeze()  # what is loaded stays shared with the children
    while os.getppid() == pool and _child_ended_early(replies, seconds, pool):
        pass


def _child_ended_early(replies, seconds: float, pool: int) -> bool:
    """Fork a child that serves, wait for its end, and return whether another is needed."""
    held, given = os.pipe()  # the child alone holds `given`, so that its end is an end of file here
    child = os.fork()
    if child == 0:
        os.close(held)
        status = 1
        try:
            status = _serve(replies, seconds, parent=os.getppid())
        finally:
            os._exit(status)
    os.close(given)
    while not select.select([held], [], [], 2.0)[0]:
        if os.getppid() != pool:  # a sibling of the pool may hold our pipes open, so look
            os.kill(child, signal.SIGKILL)
    os.close(held)
    return os.waitpid(child, 0)[1] != 0


def _serve(replies, seconds: float, parent: int) -> int:
    """Answer requests until the pipe is closed (0), or until this process is not to be trusted any more (1)."""
    # A reply that a killed child left half written ends here.
    replies.write("\n")
    _reply(replies, {"ready": os.getpid()})
    for line in _lines(parent):
        signal.setitimer(signal.ITIMER_REAL, seconds + 1.0)
        answer, last = _answer(line)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _reply(replies, {**answer, "last": True} if last else answer)
        if last:
            return 1
    return 0


def _lines(parent: int):
    """Requests until the pool closes the pipe, or the process that forked this one is gone."""
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
