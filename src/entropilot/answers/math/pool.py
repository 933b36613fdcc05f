"""Worker processes that can be killed: no answer, however hostile, holds the caller up for longer than its deadline."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entropilot.errors import UserError

_START_LIMIT = 120.0  # seconds for a worker to import its libraries on a crowded machine
_LONGEST_REPLY = 1 << 16


@dataclass(frozen=True)
class Failure:
    """Hold an item without a reply: the request, and why (deadline, budget, crash, memory, recursion, exception)."""

    request: dict[str, Any]
    reason: str


@dataclass
class Report:
    """Hold what went wrong in a pool's life: failures by reason, and the last of them."""

    counts: Counter[str] = field(default_factory=Counter)
    last: deque[Failure] = field(default_factory=lambda: deque(maxlen=100))

    def add(self, failure: Failure) -> None:
        """Count a failure and remember it, its texts cut to 200 characters."""
        self.counts[failure.reason] += 1
        cut = {
            key: value[:200] if isinstance(value, str) else [part[:200] for part in value]
            for key, value in failure.request.items()
        }
        self.last.append(Failure(cut, failure.reason))


class _Worker:
    """The pipes to a child that serves, and what it is at."""

    def __init__(self, requests: int, replies: int) -> None:
        self.requests = os.fdopen(requests, "wb")
        self.replies = os.fdopen(replies, "rb", buffering=0)
        self.item: int | None = None
        self.number = 0  # of the request last sent
        self.child: int | None = None  # the process that serves; None until it says so
        self.until = time.monotonic() + _START_LIMIT
        self.received = b""

    def send(self, item: int, request: dict[str, Any], seconds: float) -> None:
        self.item = item
        self.number += 1
        self.until = time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):  # its end of file will say so
            self.requests.write(json.dumps([self.number, request]).encode("ascii") + b"\n")
            self.requests.flush()

    @property
    def ready(self) -> bool:
        return self.child is not None

    def receive(self) -> list[dict[str, Any]]:
        """Return the complete replies. Raises EOFError when the process is gone or sent too much."""
        data = os.read(self.replies.fileno(), 1 << 16)
        self.received += data
        if not data or len(self.received) > _LONGEST_REPLY:
            raise EOFError
        *lines, self.received = self.received.split(b"\n")
        replies = []
        for line in filter(None, lines):
            with contextlib.suppress(ValueError):  # half a reply of a child that was killed
                replies.append(json.loads(line))
        return replies

    def renew(self) -> None:
        """Have another child serve: end this one, unless it has just said that it ends."""
        if self.child is not None:
            # It may have ended already, and its number may be another process's.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.child, signal.SIGKILL)
        self.child, self.item = None, None
        self.until = time.monotonic() + _START_LIMIT


class _Workers:
    """One process that has the libraries loaded, and the children that it forks."""

    def __init__(self, size: int, deadline: float, memory_mb: int) -> None:
        self.each: list[_Worker] = []
        theirs: list[int] = []
        try:
            for _ in range(size):
                reads, to = _pipe()
                theirs.append(reads)
                out, writes = _pipe()
                theirs.append(writes)
                self.each.append(_Worker(to, out))
            # A new session: a Ctrl-C in the terminal is the caller's to handle. -P: no file of the working directory runs.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "entropilot.answers.math.worker", str(deadline), str(memory_mb)]
                + [str(end) for end in theirs],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
                pass_fds=theirs,
            )
        except BaseException:
            self.let_go()  # what has been started finds no requests, and ends
            raise
        finally:
            for end in theirs:
                os.close(end)

    def kill(self) -> None:
        """End all processes; return when the one that holds the libraries is gone."""
        for worker in self.each:
            with contextlib.suppress(OSError):
                worker.requests.close()
        if any(worker.ready for worker in self.each):
            for worker in self.each:
                # The other process collects this child; the child after it finds no requests, so that all end.
                worker.renew()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # a session of its own is a process group, too
            self.process.wait()
        self.let_go()

    def let_go(self) -> None:
        for worker in self.each:
            for pipe in (worker.requests, worker.replies):
                with contextlib.suppress(OSError):
                    pipe.close()


def _pipe() -> tuple[int, int]:
    """A pipe for reading and for writing, with numbers above the three of the standard files.

    Where the caller has closed one of those, a pipe would get its number, and be replaced by /dev/null in the child.
    """
    import fcntl  # not on Windows, where `Pool` says in a sentence that it can't run

    ends = os.pipe()
    try:
        reads, writes = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends)
    finally:
        for end in ends:
            os.close(end)
    return reads, writes


class Pool:
    """Workers that answer requests of `worker.py`, each within `deadline` seconds or killed and replaced.

    One process has the libraries loaded; the workers are children of it. Replacing one takes milliseconds.

    Safe to use from any thread; calls from several threads take turns. Workers start at the first call, stay warm, and
    end with `close()`, with the interpreter, or by themselves when this process is gone. A process forked from this one
    starts workers of its own.

    Args:
        workers: processes that read answers; default the CPUs that this process may use, at most 4.
        deadline: seconds that one item may take.
        budget: seconds that one call of `run` may take; what is left then fails unseen. None: no limit.
        memory_mb: address space of a worker (Linux).

    Raises:
        UserError: math-verify is not installed, or the system is not POSIX.
    """

    def __init__(
        self,
        workers: int | None = None,
        deadline: float = 5.0,
        budget: float | None = 120.0,
        memory_mb: int = 2048,
    ) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise UserError(
                "The judge 'math' needs math-verify: pip install 'entropilot[math]', or use the judge 'exact'."
            )
        if os.name != "posix":
            raise UserError("The judge 'math' runs on Linux and macOS only; use the judge 'exact' here.")
        if (
            (workers is not None and workers < 1)
            or not deadline > 0
            or (budget is not None and not budget > 0)
        ):
            raise UserError(
                "The judge 'math' needs at least one worker and a deadline and budget above 0 seconds."
            )
        self.size = workers or min(
            len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1, 4
        )
        self.deadline = deadline
        self.budget = budget
        self.memory_mb = memory_mb
        self.report = Report()
        self._workers: _Workers | None = None
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def run(self, requests: Sequence[dict[str, Any]]) -> list[Any]:
        """Return the reply to each request, in order; None where an item failed (`report` says why)."""
        return [None if isinstance(reply, Failure) else reply for reply in self.ask(requests)]

    def ask(self, requests: Sequence[dict[str, Any]]) -> list[Any]:
        """Return the reply to each request, in order; the `Failure` where an item failed."""
        if os.getpid() != self._owner:  # forked: those workers belong to the parent
            if self._workers is not None:
                self._workers.let_go()
            self._workers, self._lock, self._owner = None, threading.Lock(), os.getpid()
        if not requests:
            return []
        with self._lock:
            try:
                return self._run(requests)
            except BaseException:
                # After an interrupt, replies still under way would be taken for those of the next call.
                self._end_all()
                raise

    def _run(self, requests: Sequence[dict[str, Any]]) -> list[Any]:
        results: list[Any] = [None] * len(requests)
        waiting = deque(range(len(requests)))
        over = time.monotonic() + self.budget if self.budget else float("inf")
        starts = 0  # in a row, that ended before a worker was ready
        while True:
            if self._workers is None:
                self._workers = _Workers(self.size, self.deadline, self.memory_mb)
            ended = self._until_done(self._workers.each, requests, results, waiting, over)
            if ended is None:
                return results
            starts = 0 if any(worker.ready for worker in self._workers.each) else starts + 1
            busy = [worker.item for worker in self._workers.each if worker.item is not None]
            self._end_all()
            for item in busy:
                results[item] = self._failed(requests[item], ended)
            if starts > 3:
                raise RuntimeError(
                    "The workers of the judge 'math' end, or are not ready in time; "
                    f"try: {sys.executable} -P -m entropilot.answers.math.worker 5 {self.memory_mb}"
                )

    def _until_done(
        self,
        workers: list[_Worker],
        requests: Sequence[dict[str, Any]],
        results: list[Any],
        waiting: deque[int],
        over: float,
    ) -> str | None:
        """Give out requests until all have a reply (None), or until the processes have to be started anew (why)."""

        def heard(seconds: float) -> bool:
            """Whether all processes are still there, after taking what they said."""
            for key, _ in selector.select(seconds):
                try:
                    replies = key.data.receive()
                except (EOFError, OSError):
                    return False
                for reply in replies:
                    self._take(key.data, reply, requests, results)
            return True

        with selectors.DefaultSelector() as selector:
            for worker in workers:
                selector.register(worker.replies, selectors.EVENT_READ, worker)
            if not heard(0.0):  # of children that were replaced since the last call, say
                return "crash"
            while waiting or any(worker.item is not None for worker in workers):
                if time.monotonic() > over:
                    while waiting:
                        item = waiting.popleft()
                        results[item] = self._failed(requests[item], "budget")
                for worker in workers:
                    if worker.ready and worker.item is None and waiting:
                        item = waiting.popleft()
                        worker.send(item, requests[item], self.deadline)
                # Those that serve can do without the others, for which there may be no process to be had.
                none = not any(worker.ready for worker in workers)
                times = [worker.until for worker in workers if worker.item is not None]
                if none:
                    times.append(max(worker.until for worker in workers))
                nearest = min(times, default=over)
                if not heard(max(0.0, min(nearest, over) - time.monotonic()) + 1e-3):
                    return "crash"
                now = time.monotonic()
                for worker in workers:
                    if worker.item is not None and now > worker.until:
                        results[worker.item] = self._failed(requests[worker.item], "deadline")
                        worker.renew()
                if none and now > max(worker.until for worker in workers):
                    return "deadline"
        return None

    def _take(
        self,
        worker: _Worker,
        reply: dict[str, Any],
        requests: Sequence[dict[str, Any]],
        results: list[Any],
    ) -> None:
        """Note what a worker said: that a child is ready, or the reply to its item."""
        item = worker.item
        if "ready" in reply:
            if item is not None:  # the child that had it is gone
                results[item] = self._failed(requests[item], "crash")
            worker.child, worker.item = reply["ready"], None
        elif (
            item is not None and reply["to"] == worker.number
        ):  # another one was given up: its child was killed
            failed = reply.get("failed")
            results[item] = reply["done"] if failed is None else self._failed(requests[item], failed)
            worker.item = None
            if reply.get("last"):
                worker.child = None  # it ends by itself, and the next one will say so
                worker.renew()

    def _failed(self, request: dict[str, Any], reason: str) -> Failure:
        failure = Failure(request, reason)
        self.report.add(failure)
        return failure

    def _end_all(self) -> None:
        workers, self._workers = self._workers, None  # gone at once, should a Ctrl-C interrupt what follows
        if workers is not None and os.getpid() == self._owner:
            workers.kill()

    def pids(self) -> list[int]:
        """Return the ids of all processes: those that read answers, then the one that replaces them."""
        if self._workers is None:
            return []
        children = [worker.child for worker in self._workers.each if worker.child is not None]
        return [*children, self._workers.process.pid]

    def close(self) -> None:
        """End the workers; a later `run` starts new ones."""
        with self._lock:
            self._end_all()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _environment() -> dict[str, str]:
    """The caller's, with one thread per library and this very package first on the path."""
    home = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH", "")) if part)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


_shared: Pool | None = None
_shared_lock = threading.Lock()


def shared_pool() -> Pool:
    """Return the pool that all judges with default settings use; started at the first call, closed with the interpreter."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Pool()
            atexit.register(_shared.close)
        return _shared


def _after_fork() -> None:
    global _shared, _shared_lock
    _shared_lock = threading.Lock()
    if _shared is not None:
        _shared._lock = threading.Lock()  # the thread that held it does not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
