"""Nothing holds the caller up: hangs, floods of memory and crashes end at their deadline, and no process stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("math_verify")

from entropilot.answers.math.judge import Math
from entropilot.answers.math.pool import Pool
from entropilot.errors import UserError

TOWER = "5^{5^{5^{5^5}}}"
HOSTILE = [
    TOWER,
    "9^{9^{9^{9}}}",
    "2^{2^{2^{2^{2^{2}}}}}",
    "(10^{10})^{10^{10}}",
    "10^{10^{10}}!",
    "((9!)!)!",
    "(9^{9^{9}})!",
    r"\binom{10^{20}}{10^{19}}",
    r"\sum_{k=1}^{10^{12}} \frac{1}{k^k}",
    r"\prod_{k=1}^{10^{9}} k",
    r"\int_0^1 x^{x^{x^{x^x}}} dx",
    r"\lim_{x\to 0} (\sin(x)^{\cos(x)^{x}})^{x!}",
    r"\sqrt[9^{9^9}]{2}",
    r"\begin{pmatrix} 2 & 3 \\ 5 & 7 \end{pmatrix}^{9^{9^9}}",
    "x^{" * 200 + "2" + "}" * 200,
    "(" * 450 + "1" + ")" * 450,
    r"\frac{1}{" * 80 + "2" + "}" * 80,
    "+".join(f"x_{{{n}}}^{{{n}}}" for n in range(80)),
    "{" * 100_000,
    "(" * 50_000 + ")" * 50_000,
    "\\" * 999,
    "\ud800\udfff",
    "1\x00+\x001",
    "9" * 990,
    "1e999999999",
    '__import__("os").system("sleep 100")',
    r"\text{__import__('os').abort()}^2",
    "0.\\overline{" + "3" * 900 + "}",
]


def test_a_tower_of_powers_ends_at_its_deadline_and_the_worker_is_replaced(alive) -> None:
    with Pool(workers=1, deadline=1.0) as pool:
        assert pool.run([{"describe": r"\sqrt{2}"}])[0]["kind"] == "number"
        first = pool.pids()
        start = time.monotonic()
        results = pool.run([{"describe": TOWER}, {"describe": r"\sqrt{3}"}])
        assert time.monotonic() - start < 15  # 1 s, and the fork of a child on a crowded machine
        assert results[0] is None
        assert results[1]["points"] == [["1.732050807568877293527446341505872366943", "0"]]
        assert pool.report.counts == {"deadline": 1}
        assert pool.report.last[0].request == {"describe": TOWER}
        second = pool.pids()
        assert second[0] != first[0]
        assert second[1] == first[1]  # the process that had loaded the libraries has forked another child
        assert not alive(first[0])
    assert not any(alive(pid) for pid in second)


@pytest.mark.slow(seconds=20)
def test_hostile_answers_each_within_the_deadline_in_bounded_memory(alive) -> None:
    with Pool(workers=2, deadline=1.0, memory_mb=1024) as pool, Math(pool=pool) as judge:
        judge.equivalent([(r"\sqrt{2}", r"\sqrt{3}")])
        seen: set[int] = set()
        peak = 0
        for text in HOSTILE:
            start = time.monotonic()
            verdict = judge.equivalent([(text, "5"), (text, text)])
            assert time.monotonic() - start < 1.0 + 10  # the deadline, and a fork on a crowded machine
            assert verdict == [False, True], text[:60]
            seen.update(pool.pids())
            peak = max([peak, *(_resident_mb(pid) for pid in pool.pids())])
        assert pool.report.counts["deadline"] > 0
        assert peak < 1024
        assert judge.equivalent([(r"\sqrt{8}", r"2\sqrt{2}")]) == [True]
        seen.update(pool.pids())
    assert not [pid for pid in seen if alive(pid)]


def _resident_mb(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM")), 0.0)
    except FileNotFoundError:
        return 0.0


def test_a_hang_costs_its_deadline_once_a_call_and_is_never_remembered() -> None:
    with (
        Pool(workers=1, deadline=1.5) as pool,
        Math(pool=pool) as judge,
    ):  # enough for the roots on any machine
        pairs = [(TOWER, r"\sqrt{2}"), (TOWER, r"\sqrt{3}"), (TOWER, TOWER)]
        assert judge.equivalent(pairs) == [False, False, True]
        assert judge.report.counts == {"deadline": 1}
        judge.equivalent(pairs[:1])
        assert judge.report.counts == {"deadline": 2}


def test_a_budget_that_ran_out_poisons_no_later_call() -> None:
    with Pool(workers=1, deadline=5.0, budget=0.01) as pool, Math(pool=pool) as judge:
        pair = (r"\sqrt{8}", r"2\sqrt{2}")
        assert judge.equivalent([pair]) == [False]
        assert judge.report.counts == {"budget": 2}
        assert judge.equivalent([pair]) == [False]
        assert judge.report.counts["budget"] == 4  # tried and counted again
        pool.budget = None
        assert judge.equivalent([pair]) == [True]


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited on Linux only")
def test_a_worker_has_a_limit_of_memory_and_writes_no_core() -> None:
    with Pool(workers=1, memory_mb=700) as pool:
        pool.run([{"describe": "x"}])
        with open(f"/proc/{pool.pids()[0]}/limits") as file:
            limits = {line[:26].strip(): line[26:].split()[0] for line in file}
    assert limits["Max address space"] == str(700 * 2**20)
    assert limits["Max core file size"] == "0"


def test_a_shortage_of_memory_ends_the_worker_and_fails_the_item() -> None:
    from entropilot.answers.math import worker as worker

    def hungry(body: str):
        raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "describe", hungry)
        assert worker._answer({"describe": "x"}) == ({"failed": "memory"}, True)


def test_a_worker_that_is_killed_counts_as_a_crash_and_is_replaced() -> None:
    with Pool(workers=1, deadline=30.0) as pool:
        pool.run([{"describe": "x"}])
        victim = pool.pids()[0]
        threading.Timer(0.5, os.kill, (victim, signal.SIGSEGV)).start()
        assert pool.run([{"describe": TOWER}, {"describe": "x+1"}])[1]["kind"] == "function"
        assert pool.report.counts == {"crash": 1}


def test_all_begin_anew_where_the_process_that_replaces_workers_is_killed(alive) -> None:
    with Pool(workers=2, deadline=1.0) as pool:
        before: list[int] = []
        for _ in range(
            600
        ):  # the first worker may have answered all before the second has said that it is ready
            assert pool.run([{"describe": "x"}, {"describe": "y"}]) != [None, None]
            before = pool.pids()
            if len(before) == 3:
                break
            time.sleep(0.1)
        assert len(before) == 3  # the libraries are loaded once, for both workers
        threading.Timer(0.3, os.kill, (before[-1], signal.SIGKILL)).start()
        results = pool.run([{"describe": TOWER}, {"describe": TOWER}, {"describe": "x+1"}])
        assert results[:2] == [None, None] and results[2]["kind"] == "function"
        assert set(pool.report.counts) <= {"deadline", "crash"} and pool.report.counts.total() == 2
        assert not set(pool.pids()) & set(before)
        assert not [pid for pid in before if alive(pid)]


def test_a_worker_that_is_killed_between_two_calls_shifts_no_reply() -> None:
    def values(*numbers: int) -> list[str | None]:
        replies = pool.run([{"describe": rf"\sqrt{{{number}}}"} for number in numbers])
        return [reply and reply["points"][0][0][:5] for reply in replies]

    with Pool(workers=1) as pool:
        assert values(2) == ["1.414"]
        os.kill(pool.pids()[0], signal.SIGKILL)
        time.sleep(0.5)
        assert values(3, 5, 7) == ["1.732", "2.236", "2.645"]
        # Not heard of before the first request is sent: that one fails, and no other takes its reply.
        os.kill(pool.pids()[0], signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (pool.pids()[0], signal.SIGKILL)).start()
        assert values(2, 3, 5, 7) == [None, "1.732", "2.236", "2.645"]
        assert values(7, 5, 3, 2) == ["2.645", "2.236", "1.732", "1.414"]
        assert pool.report.counts == {"crash": 1}


CROWDED = r"""
import os, resource, sys
from entropilot.answers.math.pool import Pool
os.close(0)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (2000 if hard < 0 else min(2000, hard), hard))
files = [os.open(os.devnull, os.O_RDONLY) for _ in range(int(sys.argv[1]))]
with Pool(workers=2) as pool:
    replies = pool.run([{"describe": r"\sqrt{2}"}, {"describe": r"\pi"}])
    print([reply and reply["points"][0][0][:5] for reply in replies], pool.report.counts)
"""


@pytest.mark.parametrize("files", [0, 1100], ids=["no standard input", "more than 1,024 files"])
def test_whatever_files_the_caller_has_open_or_closed(files: int) -> None:
    command = [sys.executable, "-c", CROWDED, str(files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['1.414', '3.141'] Counter()\n"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of open files here")
def test_processes_that_cannot_be_started_leave_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(subprocess, "Popen", fails)
    with Pool(workers=3) as pool, pytest.raises(OSError, match="no more processes"):
        pool.run([{"describe": "x"}])
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.slow
def test_deep_nesting_is_a_failure_of_the_item_alone() -> None:
    with Pool(workers=1, deadline=3.0) as pool:
        deep = "(" * 2000 + "x" + ")" * 2000
        results = pool.run([{"describe": deep}, {"describe": "x"}])
        assert results[0] is None or results[0]["kind"] == "unreadable"
        assert results[1]["kind"] == "function"


def test_a_budget_ends_a_call_of_many_hangs() -> None:
    with Pool(workers=1, deadline=1.0) as pool:
        pool.run([{"describe": "x"}])
        pool.budget = 1.5  # not before the worker has started: on a crowded machine that alone takes longer
        towers = [{"describe": f"{n}^{{{n}^{{{n}^{{{n}^{n}}}}}}}"} for n in range(5, 25)]
        start = time.monotonic()
        assert pool.run(towers) == [None] * 20
        assert time.monotonic() - start < 15
        assert pool.report.counts["budget"] > 10
        assert sum(pool.report.counts.values()) == 20


def test_threads_share_one_pool() -> None:
    pairs = [(rf"\sqrt{{{4 * n}}}", rf"2\sqrt{{{n}}}") for n in (2, 3, 5, 6, 7, 10)]
    results: dict[int, list[bool]] = {}
    with Pool(workers=2) as pool, Math(pool=pool) as judge:

        def ask(number: int) -> None:
            results[number] = judge.equivalent(pairs[number:] + pairs[:number])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert results == {number: [True] * 6 for number in range(4)}
        # The threads that started the workers are gone; the workers must not be.
        before = pool.pids()
        assert pool.run([{"describe": "x"}])[0]["kind"] == "function"
        assert set(before) <= set(pool.pids())  # the second worker may have become ready only now


SCRIPT = """
import sys, time, threading
from entropilot.answers.judges import build_judge
from entropilot.answers.math.pool import shared_pool
judge = build_judge("math")
print(judge.equivalent([(r"\\sqrt{8}", r"2\\sqrt{2}")]), flush=True)
print(*shared_pool().pids(), flush=True)
if len(sys.argv) > 1:
    judge.equivalent([("5^{5^{5^{5^5}}}", r"\\sqrt{2}")])
"""


@pytest.mark.parametrize(
    "way", ["script", *(pytest.param(way, marks=pytest.mark.slow) for way in ("command", "stdin"))]
)
def test_a_program_without_a_main_guard_is_not_run_again(way: str, tmp_path, alive) -> None:
    (tmp_path / "program.py").write_text(SCRIPT)
    (tmp_path / "random.py").write_text("raise SystemExit('a file of the working directory was run')")
    command = {"script": [sys.executable, "program.py"], "command": [sys.executable, "-c", SCRIPT]}.get(
        way, [sys.executable, "-"]
    )
    # -P for the program itself: its own random.py is what its workers must not see.
    command.insert(1, "-P")
    done = subprocess.run(
        command,
        input=SCRIPT if way == "stdin" else "",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    verdict, pids = done.stdout.splitlines()
    assert verdict == "[True]"
    assert not [pid for pid in pids.split() if alive(int(pid))]


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in the midst of a tower"])
def test_workers_end_when_their_parent_is_killed(busy: bool, tmp_path, alive) -> None:
    (tmp_path / "program.py").write_text(SCRIPT + "time.sleep(60)\n")
    command = [sys.executable, str(tmp_path / "program.py"), *(["busy"] if busy else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "[True]\n"
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.5)
        assert any(alive(pid) for pid in pids)
        parent.kill()
    end = time.monotonic() + 15  # a busy one has 5 s and 1 s more until the kernel's alarm
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [pid for pid in pids if alive(pid)]


def test_a_ctrl_c_reaches_the_caller_and_not_the_workers() -> None:
    with Pool(workers=1) as pool:
        pool.run([{"describe": "x"}])
        before = pool.pids()
        os.kill(before[0], signal.SIGINT)
        assert pool.run([{"describe": "x+2"}])[0]["kind"] == "function"
        assert pool.pids() == before
        assert not pool.report.counts
        # A shell starts what runs in its background with SIGINT ignored, and Python then raises nothing.
        usual = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,)).start()
                pool.run([{"describe": TOWER}])
        finally:
            signal.signal(signal.SIGINT, usual)
        assert pool.run([{"describe": "x+3"}])[0]["kind"] == "function"  # and not the tower's reply


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_workers_of_its_own() -> None:
    with Pool(workers=1) as pool:
        pool.run([{"describe": "x"}])
        mine = pool.pids()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            with os.fdopen(write, "w") as out:
                kind = pool.run([{"describe": r"\sqrt{2}"}])[0]["kind"]
                out.write(f"{kind} {pool.pids() == mine}")
            pool.close()
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as said:
            assert said.read() == "number False"
        os.waitpid(child, 0)
        assert pool.run([{"describe": "x"}])[0]["kind"] == "function"
        assert pool.pids() == mine


def test_the_worker_reads_mathematics_and_loads_no_engine() -> None:
    code = (
        "import sys; from entropilot.answers.math import worker as worker; worker.describe(r'\\sqrt{2}')\n"
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_nothing_is_evaluated_as_code(tmp_path) -> None:
    mark = tmp_path / "mark"
    texts = [
        f"__import__('os').system('touch {mark}')",
        f"\\text{{__import__('os').system('touch {mark}')}}+1",
        f"open('{mark}','w')",
        f"x_{{open('{mark}','w')}}",
        f"1;open('{mark}','w')",
        f"\\exec{{open('{mark}','w')}}",
    ]
    with Pool(workers=1) as pool, Math(pool=pool) as judge:
        judge.equivalent([(text, r"\sqrt{2}") for text in texts])
        pool.run([{"describe": text} for text in texts] + [{"compare": [text, "x<2"]} for text in texts])
    assert not mark.exists()


def test_the_report_is_bounded() -> None:
    from entropilot.answers.math.pool import Failure, Report

    report = Report()
    for _ in range(1000):
        report.add(Failure({"compare": ["a" * 10_000, "b"]}, "deadline"))
    assert report.counts["deadline"] == 1000
    assert len(report.last) == 100
    assert report.last[0].request == {"compare": ["a" * 200, "b"]}


@pytest.mark.parametrize("options", [{"workers": 0}, {"deadline": 0.0}, {"budget": -1.0}])
def test_settings_that_cannot_work_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match="at least one worker and a deadline and budget above 0"):
        Pool(**options)
