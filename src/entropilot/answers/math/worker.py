"""Read mathematics in processes of their own: one JSON request per line in, one JSON reply per line out.

Started by `pool.py` as `python -m entropilot.answers.math.worker SECONDS MEGABYTES REQUESTS REPLIES …`, never imported
by the rest; REQUESTS and REPLIES are the numbers of two open pipes, and each pair has a process of its own. The
libraries are loaded once, and a child is forked for each pair. What a request holds is untrusted: it may hang, swallow
memory or crash. The pool kills that child then, and the next one is forked, in milliseconds and not in the seconds that
loading takes. Should the pool be gone by then, an alarm that the kernel delivers ends the child, however deep in
arithmetic it is. math-verify's own timeouts stay off. Without numbers, one child reads the standard input.

A line is [number, request]. Requests: {"describe": body}, {"solve": body}, {"decide": [a, b]} and {"compare": [a, b]},
as in `algebra.py` and `sets.py`; replies: {"to": number, "done": …} or {"to": number, "failed": reason}. Each child
begins with {"ready": its process id}.
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
    """Answer requests, one JSON line each, until the inputs end."""
    pool = os.getppid()
    seconds, megabytes = float(sys.argv[1]), int(sys.argv[2])
    # Low numbers: `select` takes none above 1023, and these were given by a process that may have many files open.
    numbers = [_low(int(number)) for number in sys.argv[3:]] or [os.dup(0), os.dup(1)]
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # whatever a library prints must not enter the replies
        os.dup2(null, standard)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)
    _limit_memory(megabytes)
    forbid_eval()
    for body in WARM_UP:
        describe(body)
    gc.freeze()  # what is loaded stays shared with the children
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))  # of the workers that are still wanted
    children: dict[int, tuple[int, tuple[int, int]]] = {}
    while pairs:
        for pair in set(pairs) - {served for _, served in children.values()}:
            with contextlib.suppress(OSError):  # no process to be had now; perhaps in the next round
                held, child = _forked(pair, pairs, seconds)
                children[held] = child, pair
        for held in select.select(list(children), [], [], 2.0)[0]:
            child, pair = children.pop(held)
            os.close(held)
            if os.waitpid(child, 0)[1] == 0:  # it found no more requests
                pairs.remove(pair)
                _close(pair)
        if os.getppid() != pool:  # a sibling of the pool may hold our pipes open, so look
            for child, _ in children.values():
                os.kill(child, signal.SIGKILL)
            return


def _low(number: int) -> int:
    low = os.dup(number)
    os.close(number)
    return low


def _close(pair: tuple[int, int]) -> None:
    for end in pair:
        os.close(end)


def _forked(pair: tuple[int, int], pairs: list[tuple[int, int]], seconds: float) -> tuple[int, int]:
    """Fork a child that serves a pair of pipes; return a pipe that ends when the child does, and the child's id."""
    held, given = os.pipe()  # the child alone holds `given`
    try:
        child = os.fork()
    except OSError:
        _close((held, given))
        raise
    if child == 0:
        status = 1
        try:
            os.close(held)
            for other in pairs:
                if other != pair:
                    _close(other)
            status = _serve(*pair, seconds, parent=os.getppid())
        finally:
            os._exit(status)
    os.close(given)
    return held, child


def _serve(requests: int, to: int, seconds: float, parent: int) -> int:
    """Answer requests until the pipe is closed (0), or until this process is not to be trusted any more (1)."""
    replies = os.fdopen(to, "w", encoding="ascii")
    # A reply that a killed child left half written ends here.
    replies.write("\n")
    _reply(replies, {"ready": os.getpid()})
    for line in _lines(requests, parent):
        try:
            number, request = json.loads(line)
        except (ValueError, TypeError):
            continue  # the rest of a request, whose beginning a child had read that was killed
        signal.setitimer(signal.ITIMER_REAL, seconds + 1.0)
        answer, last = _answer(request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _reply(replies, {"to": number, **answer} | ({"last": True} if last else {}))
        if last:
            return 1
    return 0


def _lines(requests: int, parent: int):
    """Requests until the pool closes the pipe, or the process that forked this one is gone."""
    rest = b""
    while True:
        if not select.select([requests], [], [], 2.0)[0]:
            if os.getppid() != parent:
                return
            continue
        data = os.read(requests, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _reply(replies, answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The reply, and whether this process had better end: after a shortage of memory nothing is to be trusted."""
    try:
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
