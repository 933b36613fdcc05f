"""Files that nobody vouches for: what is no log, names that lie, lines without end, and folders that loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from entropilot.errors import UserError
from entropilot.readers import gather, lines, read

BEFORE = "step:1 - actor/entropy:0.75 - critic/score/mean:0.25\n"
PAIR = "actor/entropy:0.5 - critic/score/mean:0.375"


def test_importing_the_readers_imports_no_framework() -> None:
    code = (
        "import sys, entropilot.readers\n"
        "heavy = {'torch', 'pandas', 'transformers', 'trl', 'tensorboard', 'wandb', 'trackio', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, so there is nothing to read"),
        (b"\n\n", "is empty, so there is nothing to read"),
        (b"Dear diary,\ntoday I trained.\n", "holds no log that can be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), "is a binary file that no reader knows"),
        (b"step,entropy,reward\n", "has one line, perhaps the header of a table, and no rows"),
        (b"PAR1" + bytes(100), "is no whole Parquet file"),
        (b"SQLite format 3\0" + bytes(100), "holds no log that can be read"),
        (b"\x1f\x8b" + bytes(100), "is packed with gzip; unpack it"),
        ("step:1 - a:1\n".encode("utf-16"), "is UTF-16, as PowerShell writes it"),
        (b'{"a": 1}\n{"b": 2}\n', "has no column of steps"),
        (b'{"a": "x"}\n', "holds no row of numbers"),
        (b'{"log_history": []}', "holds no row of numbers"),
        (b'{"log_history": {"step": 1}}', "holds no whole trainer_state.json"),
        (b'{"step": 0.5, "entropy": 1, "reward": 1}\n' * 3, "has no row whose step is a whole number"),
        (b'{"step": -1, "entropy": 1, "reward": 1}\n' * 3, "has no row whose step is a whole number"),
        (b'{"step": 1e300, "entropy": 1, "reward": 1}\n' * 3, "has no row whose step is a whole number"),
        (b"step,a;b\n1,2;3\n", "holds no log that can be read"),  # two ways to cut it
        (b"[" * 10**6, "holds no log that can be read"),
        (b'{"a":' * 20_000, "holds no log that can be read"),
    ],
)
def test_what_is_no_log_is_refused_in_a_sentence(log, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(log(content))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "loop", "pipe"):
        with pytest.raises(UserError, match="is no file|does not exist"):
            read(tmp_path / name)
    with pytest.raises(UserError, match="holds no log"):
        read(tmp_path)  # and it does not wait for the pipe
    with pytest.raises(
        UserError, match="There is no reader for clearml; choose one of entropilot, trl, verl"
    ):
        read(tmp_path, framework="clearml")


def test_a_folder_that_loops_is_walked_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    with pytest.raises(UserError, match="holds no log"):
        read(tmp_path)


def test_one_log_in_a_folder_is_found_among_other_things(log, tmp_path: Path) -> None:
    path = log(f"step:1 - {PAIR}\nstep:2 - {PAIR}\n", "run/train.log")
    log('{"the": 1, "of": 2}', "run/vocab.json")
    log('{\n  "hidden_size": 8\n}', "run/config.json")
    log("name,size\na,1\nb,2\n", "run/files.csv")
    log(b"\x1f\x8b\x08", "run/old.gz")
    assert read(path.parent).files == (path,)
    table = log("step,entropy,reward\n1,2,3\n", "other/log.csv")
    assert read(table.parent).files == (table,)
    log(json.dumps({"_step": 1, "entropy": 1, "reward": 1}), "run/history.jsonl")
    with pytest.raises(
        UserError,
        match=r"holds 2 logs: history.jsonl \(wandb\), train.log \(verl\); choose one with --framework",
    ):
        read(path.parent)
    assert read(path.parent, framework="verl").files == (path,)
    with pytest.raises(
        UserError, match=r"holds no log of trl, but history.jsonl \(wandb\), train.log \(verl\)\."
    ):
        read(path.parent, framework="trl")


@pytest.mark.parametrize(
    "name",
    ["nan", "é漢", "{0}", "%s", "\x1b[31mred\x07", "a" * 500, "\u202eevil", "__class__", "'; DROP", "<script>"],
)  # fmt: skip
def test_hostile_names_are_only_names(log, name: str) -> None:
    rows = [{"step": i, "entropy": 1 / (i + 1), "reward": i, name: 7} for i in range(4)]
    reading = read(log("\n".join(map(json.dumps, rows)), "log.jsonl"))
    assert reading.run.rows[0][name] == 7
    assert (
        read(log("\n".join(map(json.dumps, rows)), "log.jsonl"), entropy=name).run.rows[0][reading.entropy]
        == 7
    )
    with pytest.raises(UserError) as caught:
        read(log("\n".join(json.dumps({"step": i, name: 1}) for i in range(4)), "log.jsonl"))
    assert str(caught.value).isprintable()
    assert "".join(reading.lines()).isprintable()


def test_more_columns_than_any_log_has(log, monkeypatch) -> None:
    monkeypatch.setattr(gather, "MOST_COLUMNS", 10)
    text = "".join(f"step:{i} - {PAIR} - {' - '.join(f'k{i}_{j}:1' for j in range(8))}\n" for i in range(4))
    reading = read(log(text))
    assert len(reading.run.column(reading.entropy, reading.performance)) == 4
    assert reading.skipped[gather.COLUMNS] == 4 * 8 - 7
    long = {"step": 1, "entropy": 1, "reward": 1, "x" * 513: 1}
    assert read(log(json.dumps(long), "log.jsonl")).skipped == {gather.COLUMNS: 1}


def test_thinning_drops_values_from_here_back(monkeypatch) -> None:
    monkeypatch.setattr(gather, "MANY_VALUES", 20)
    gathered = gather.Gathered(lambda column: column == "a")
    for _ in range(4):
        gathered.take({"a": 1.0, "b": 2.0})
    assert gathered.rows == [{"a": 1.0}] * 4 and gathered.thinned


@pytest.mark.parametrize("form", ["console", "jsonl"])
def test_a_log_too_large_keeps_the_columns_that_matter(log, monkeypatch, form: str) -> None:
    monkeypatch.setattr(gather, "MANY_VALUES", 100)
    steps = range(1, 40)
    if form == "console":
        cells = " - ".join(f"k{j}:np.float64({j}.5)" for j in range(8))
        text = "".join(f"step:{i} - {PAIR} - {cells} - mine:{i}\n" for i in steps)
    else:
        data = {"actor/entropy": 0.5, "critic/score/mean": 0.375} | {f"k{j}": j for j in range(8)}
        text = "".join(json.dumps({"step": i, "data": data | {"mine": i}}) + "\n" for i in steps)
    reading = read(log(text), performance="mine")
    assert [row["step"] for row in reading.run.rows] == list(steps)
    kept = {"step", "actor/entropy", "mine", "entropy/train_token_mean"}
    assert {frozenset(row) for row in reading.run.rows} == {frozenset(kept)}
    assert reading.notes == ("The log holds so many values that only actor/entropy, mine are kept.",)
    assert "critic/score/mean" in reading.columns["performance"].alternatives
    monkeypatch.setattr(gather, "MOST_VALUES", 200)
    with pytest.raises(UserError, match="too many for one run; cut it, or thin it out"):
        read(log(text), performance="mine")


@pytest.mark.parametrize("suffix", ["log", "jsonl", "csv"])
def test_a_line_without_end_is_torn_not_held(log, monkeypatch, suffix: str) -> None:
    monkeypatch.setattr(lines, "LONGEST", 1 << 20)
    monkeypatch.setattr(lines, "BLOCK", 1 << 16)
    first, last = {
        "log": (f"step:1 - {PAIR}\nstep:2 - ", f"\nstep:3 - {PAIR}\n"),
        "jsonl": (
            '{"step": 1, "entropy": 1, "reward": 2}\n{"a": ',
            '\n{"step": 3, "entropy": 1, "reward": 2}\n',
        ),
        "csv": ("step,entropy,reward\n1,2,3\n2,2,", "\n3,4,5\n"),
    }[suffix]
    path = log(first + "9" * (20 << 20) + last, f"x.{suffix}")
    tracemalloc.start()
    reading = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row["step"] for row in reading.run.rows] == [1, 3]
    assert reading.skipped == {"torn lines": 1}
    assert peak < 12 << 20


@pytest.mark.parametrize(
    "text", ["step:1 - ", "step:1 - a:", "step:", "\x1b[0m", " - ", "a:1 - ", "np.float64(", "\r"]
)
def test_no_repetition_takes_long(log, text: str) -> None:
    """500 kB of one thing on a line; what grows with the square of a line takes many seconds."""
    path = log(BEFORE + text * ((1 << 19) // len(text)) + "\n" + BEFORE.replace(":1 ", ":2 "))
    start = time.process_time()
    assert {1, 2} <= {row["step"] for row in read(path, framework="verl").run.rows}
    assert time.process_time() - start < 3


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.01], ids=["all metrics", "mostly noise"])
def test_memory_does_not_grow_with_the_log(tmp_path: Path, share: float) -> None:
    """40 and 120 MB of a console, each in a process of its own; resident memory, the interpreter's included.

    From 57 MB on, the rows of all metrics are thinned, so only the larger log is read of these.
    """
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    try:
        import readers as bench
    finally:
        sys.path.pop()
    peaks = []
    for megabytes in (40, 120) if share < 1 else (120,):
        path = tmp_path / "train.log"
        bench.write(path, megabytes * 1_000_000, bench.console, share)
        peaks.append(bench.measure(str(path), 1)["peak_mb"])
    assert max(peaks) < 200
    if share < 1:
        assert peaks[1] < peaks[0] + 10
