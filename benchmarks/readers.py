"""Speed and memory of the readers on generated logs: python benchmarks/readers.py [--mb 100] [--only verl]

Each log is written in its framework's form to a temporary folder and read in a process of its own, whose peak resident
memory is printed beside that of a process that imports the readers and reads nothing. The page cache is warm. On a
machine that others use, wall time says more of them than of the readers; CPU time is what an idle one would take.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NAMES = [
    "actor/entropy", "actor/pg_loss", "actor/pg_clipfrac", "actor/ppo_kl", "actor/grad_norm", "actor/lr",
    *(f"critic/{what}/{how}" for what in ("score", "rewards", "advantages", "returns") for how in ("mean", "max", "min")),
    *(f"{what}/{how}" for what in ("response_length", "prompt_length", "global_seqlen")
      for how in ("mean", "max", "min", "clip_ratio", "minmax_diff")),
    *(f"timing_s/{what}" for what in ("gen", "reward", "old_log_prob", "adv", "update_actor", "step", "testing")),
    *(f"timing_per_token_ms/{what}" for what in ("gen", "adv", "update_actor")),
    *(f"perf/{what}" for what in ("mfu/actor", "max_memory_allocated_gb", "cpu_memory_used_gb", "total_num_tokens",
                                  "time_per_step", "throughput")),
    *(f"rollout_corr/metric_{i}" for i in range(21)), "training/epoch",
]  # fmt: skip
NOISE = (
    b"\x1b[36m(WorkerDict pid=4711)\x1b[0m INFO 10-15 12:00:00 engine.py:310] Added request 17f0c; running 128, waiting 0, "
    b"kv cache 71.3 %, timing_s/step:38.2\n"
) * 200


MANY = 10**9  # a step that no other number holds


def metrics(step: int) -> dict[str, float]:
    """Return the metrics of one step; validation at every tenth."""
    found = {name: (step * 7919 + i * 104729) % 1000003 / 1000003 * 3 for i, name in enumerate(NAMES)}
    if step % 10 == 0:
        found["val-core/openai/gsm8k/acc/mean@8"] = step % 1000 / 1000
    return found


def console(step: int) -> bytes:
    """Return a line of verl's console; a third of the values are numpy's."""
    cells = [
        f"{key}:np.float64({value!r})" if i % 3 == 0 else f"{key}:{value!r}"
        for i, (key, value) in enumerate(metrics(step).items())
    ]
    return f"\x1b[36m(TaskRunner pid=42)\x1b[0m step:{step} - {' - '.join(cells)}\n".encode()


def printed(step: int) -> bytes:
    """Return a progress bar and the dict that TRL prints, with numbers as transformers 4 writes them."""
    cells = ", ".join(f"'{key}': {value!r}" for key, value in metrics(step).items())
    return f"  0%|          | {step}/99999999 [00:01<01:00,  1.0s/it]\r{{{cells}, 'epoch': 0.5}}\n".encode()


def printed_text(step: int) -> bytes:
    """Return the same as transformers 5 writes it: every number as text."""
    cells = ", ".join(f"'{key}': '{value:.4g}'" for key, value in metrics(step).items())
    return f"{{{cells}, 'epoch': '0.5'}}\n".encode()


def printed_json(step: int) -> bytes:
    """Return a line of ROLL's console."""
    return b"INFO - metrics: " + json.dumps(metrics(step) | {"system/step": step}).encode() + b"\n"


def array_item(step: int) -> bytes:
    """Return an item of a JSON array, whose end is missing."""
    return (b"[" if step == 1 else b",") + json.dumps({"step": step, **metrics(step)}).encode() + b"\n"


def write(path: Path, size: int, line: Callable[[int], bytes], share: float) -> int:
    """Write a log of `size` bytes, of which about `share` are metrics; return its number of steps."""
    written = told = step = 0
    made: list[
        list[bytes]
    ] = []  # the text before and after the step, of 1,000 steps that come again and again
    for number in range(MANY, MANY + 1000):
        made.append(line(number).split(str(number).encode(), 1))
    with path.open("wb") as file:
        while written < size:
            if told <= share * written:
                step += 1
                text = line(1) if step == 1 else str(step).encode().join(made[step % 1000])
                told += len(text)
            else:
                text = NOISE
            written += file.write(text)
    return step


def table(step: int) -> bytes:
    """Return a row of CSV, after the header as row 1."""
    found = {"step": step} | metrics(step)
    found.pop("val-core/openai/gsm8k/acc/mean@8", None)
    cells = found.keys() if step == 1 else (repr(value) for value in found.values())
    return (",".join(cells) + "\n").encode()


FORMS: dict[str, tuple[str, Callable[[int], bytes], float]] = {
    "verl console, all steps": ("log", console, 1.0),
    "verl console, 2 % steps": ("log", console, 0.02),
    "dicts, numbers": ("log", printed, 1.0),
    "dicts, text": ("log", printed_text, 1.0),
    "dicts, JSON": ("log", printed_json, 1.0),
    "dicts, 2 % steps": ("log", printed, 0.02),
    "verl file logger": ("jsonl", lambda step: json.dumps({"step": step, "data": metrics(step)}).encode() + b"\n", 1.0),
    "W&B history, JSON Lines": ("jsonl", lambda step: json.dumps({"_step": step, **metrics(step)}).encode() + b"\n", 1.0),
    "JSON array": ("json", array_item, 1.0),
    "CSV": ("csv", table, 1.0),
}  # fmt: skip


def peak_mb() -> float:
    """Return this process's peak resident memory; `ru_maxrss` would count the parent that it was forked from."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def child(path: str) -> None:
    """Read one log, or nothing, and print what it took."""
    from entropilot.readers import read

    start, busy, steps = time.perf_counter(), time.process_time(), 0
    if path:
        steps = len(read(path, performance="critic/score/mean").run.rows)
    took = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - busy, "steps": steps}
    print(json.dumps(took | {"peak_mb": peak_mb()}))


def measure(path: str, repeats: int) -> dict[str, float]:
    """Return the best of some readings, each in a fresh process, and the peak memory of them all."""
    runs = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, __file__, "--child", path], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout))
    best = {name: min(run[name] for run in runs) for name in ("seconds", "cpu", "steps")}
    return best | {"peak_mb": max(run["peak_mb"] for run in runs)}


def float_ns() -> float:
    """Return what `float` takes for a number of 17 digits, in nanoseconds: how fast this machine is just now."""
    texts, best = [b"0.31415926535897931"] * 100_000, float("inf")
    for _ in range(5):
        start = time.process_time()
        list(map(float, texts))
        best = min(best, time.process_time() - start)
    return best / len(texts) * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="forms whose name contains this")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.child is not None:
        child(settings.child)
        return
    print(
        f"Python {sys.version.split()[0]}, logs of {settings.mb} MB, best of {settings.repeats}; `float` of 17 "
        f"digits takes {float_ns():.0f} ns here"
    )
    print(f"{'log':<26}{'steps':>8}{'wall s':>8}{'CPU s':>8}{'MB per CPU s':>14}{'peak MB':>9}")
    print(f"{'nothing':<56}{'':>8}{measure('', 1)['peak_mb']:>9.0f}")
    for name, (suffix, line, share) in FORMS.items():
        if settings.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"log.{suffix}"
            write(path, settings.mb * 1_000_000, line, share)
            took = measure(str(path), settings.repeats)
        speed = settings.mb / took["cpu"]
        print(
            f"{name:<26}{took['steps']:>8.0f}{took['seconds']:>8.2f}{took['cpu']:>8.2f}{speed:>14.0f}"
            f"{took['peak_mb']:>9.0f}"
        )


if __name__ == "__main__":
    main()
