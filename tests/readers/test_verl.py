"""verl's logs: text that verl 0.9.1 wrote, and every way in which such text goes wrong."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from entropilot.law.law import fit_run
from entropilot.readers import lines, read
from entropilot.readers.gather import NO_NUMBER, NOT_FINITE, TORN

ACC = "val-core/openai/gsm8k/acc/mean@2"
H, R = "entropy/train_token_mean", "validation/accuracy"


@pytest.mark.parametrize("name", ["verl_console.log", "verl_file.jsonl"])
def test_what_verl_wrote(data: Path, name: str) -> None:
    """The recording: H = 1.25 − 0.125·step; validation at 0, 2, 4, 6 with step/8 of the problems right."""
    reading = read(data / name)
    assert reading.framework == "verl"
    assert {role: column.source for role, column in reading.columns.items()} == {
        "entropy": "actor/entropy",
        "performance": ACC,
        "step": "step",
    }
    assert (reading.entropy, reading.performance) == (H, R)
    rows = {row["step"]: row for row in reading.run.rows}
    assert list(rows) == list(range(7))
    assert [rows[step][H] for step in range(1, 7)] == [1.25 - 0.125 * step for step in range(1, 7)]
    assert {step: row[R] for step, row in rows.items() if R in row} == {0: 0.0, 2: 0.25, 4: 0.5, 6: 0.75}
    # Every other column of numbers is there under its own name; numpy's numbers are numbers.
    assert rows[1]["actor/lr"] == 1e-06 and rows[1]["critic/advantages/max"] == 1.5
    assert rows[6]["val-core/openai/gsm8k/acc/best@2/mean"] == 0.75
    assert "critic/advantages/max" not in rows[3]  # NaN in the console, null in the file
    assert reading.skipped == {NOT_FINITE: 1}
    assert reading.notes == (
        f"Of 4 values of {ACC}, 3 have the entropy of their step, 1 none and take no part in a law.",
    )
    told = reading.run.header["metrics"][H]
    assert told["unit"] == "nats" and told["source"] == "actor/entropy"
    assert "verl's `actor/entropy`" in told["definition"] and "rollout's temperature" in told["definition"]
    fit, columns = fit_run(reading.run, reading.entropy, reading.performance)
    assert (fit.n, columns.performance) == (3, R)


def test_console_and_file_hold_the_same(data: Path) -> None:
    console, file = (read(data / name).run.rows for name in ("verl_console.log", "verl_file.jsonl"))
    assert console == file


@pytest.mark.verl
def test_recording_anew_gives_the_same(data: Path, tmp_path: Path) -> None:
    python = os.environ.get("VERL_PYTHON")
    if not python:
        pytest.skip("VERL_PYTHON is not set; point it at the Python of verl's environment")
    script = Path(__file__).with_name("record_verl.py")
    subprocess.run([python, str(script), str(tmp_path)], check=True, cwd=tmp_path, timeout=300)
    for name in ("verl_console.log", "verl_file.jsonl"):
        assert read(tmp_path / name).run.rows == read(data / name).run.rows


BEFORE = "step:1 - actor/entropy:0.75 - critic/score/mean:0.25\n"
AFTER = "step:9 - actor/entropy:0.25 - critic/score/mean:0.5\n"
BOTH = {1: (0.75, 0.25), 9: (0.25, 0.5)}
PAIR = "actor/entropy:0.5 - critic/score/mean:0.375"


@pytest.mark.parametrize(
    ("between", "third", "skipped"),
    [
        pytest.param("", None, {}, id="nothing"),
        pytest.param(f"\x1b[36m(TaskRunner pid=7)\x1b[0m step:5 - {PAIR}\n", (0.5, 0.375), {}, id="Ray's prefix"),
        pytest.param(f"\x1b[1m\x1b[0mstep:5 - {PAIR}\x1b[0m\n", (0.5, 0.375), {}, id="colour right before"),
        pytest.param(f"(main_task pid=7, ip=10.0.0.1) step:5 - {PAIR}\n", (0.5, 0.375), {}, id="prefix with an address"),
        pytest.param(f"\rTraining:  5%|▏| 5/99 [49<1:53, 4s/it]step:5 - {PAIR}\n", (0.5, 0.375), {}, id="after a bar"),
        pytest.param(f"step:5 - {PAIR}\rTraining:   6%|▏ | 6/99\n", (0.5, 0.375), {}, id="before a bar"),
        pytest.param(f"step:5 - {PAIR}\r\n", (0.5, 0.375), {}, id="CRLF"),
        pytest.param(
            "step:5 - actor/entropy:np.float64(0.5) - critic/score/mean:np.float32(0.375) - n:np.int64(3)\n",
            (0.5, 0.375),
            {},
            id="numpy",
        ),
        pytest.param(f"step:5 - {PAIR}\x1b[32m [repeated 2x across cluster]\x1b[0m\n", (0.5, 0.375), {}, id="repeated"),
        pytest.param(f"step:5 - flag:True - {PAIR}\n", (0.5, 0.375), {}, id="a bool is no number, nor an error"),
        pytest.param("step:5 - actor/entropy:nan - critic/score/mean:0.375\n", (None, 0.375), {NOT_FINITE: 1}, id="nan"),
        pytest.param("step:5 - actor/entropy:np.float64(nan) - x:-inf\n", None, {NOT_FINITE: 2}, id="numpy nan, -inf"),
        pytest.param("step:5 - actor/entropy:1e999 - critic/score/mean:0.375\n", (None, 0.375), {NOT_FINITE: 1}, id="huge"),
        pytest.param("step:5 - actor/entropy:0.5 - crit\n", (0.5, None), {NO_NUMBER: 1}, id="cut in a key"),
        pytest.param("step:5 - actor/entropy:0.5 - critic/score/mean:\n", (0.5, None), {NO_NUMBER: 1}, id="no value"),
        pytest.param("step:5 - actor/entropy:__import__('os') - x:0\n", (None, None), {NO_NUMBER: 1}, id="code"),
        pytest.param("step:5 - actor/entropy:np.float64(np.float64(1)) - x:0\n", (None, None), {NO_NUMBER: 1}, id="nested"),
        pytest.param(f"timing/step:5 - {PAIR}\n", None, {}, id="another key that ends in step"),
        pytest.param(f"global_step:5 - {PAIR}\n", None, {}, id="another word that ends in step"),
        pytest.param("step:5 - saved to /tmp\n", None, {NO_NUMBER: 1}, id="a sentence"),
        pytest.param("Initial validation metrics: {'val-core/x/acc/mean@8': np.float64(0.1)}\n", None, {}, id="a dict"),
        pytest.param("\x01\xff\n", None, {}, id="bytes"),
    ],
)  # fmt: skip
def test_lines_of_a_console(log, between: str, third: tuple | None, skipped: dict) -> None:
    reading = read(log(BEFORE + between + AFTER), framework="verl")
    expected = BOTH if third is None else {**BOTH, 5: third}
    found = {
        row["step"]: (row.get("actor/entropy"), row.get("critic/score/mean")) for row in reading.run.rows
    }
    assert found == expected
    assert reading.skipped == skipped


def test_the_fast_way_and_the_plain_way_agree(log) -> None:
    """Lines whose keys repeat are read in one go; a regular expression reads them here, each for itself."""
    draw = random.Random(0)
    keys = [f"k{i}/x:y" if i == 7 else f"k{i}/mean" for i in range(12)]
    written = []
    for step in range(1, 200):
        cells = []
        for i, key in enumerate(["actor/entropy", "critic/score/mean", *keys[: draw.choice((5, 6, 12))]]):
            value = repr(draw.choice((draw.random(), draw.randrange(-9, 9), 1e-30, 1e300, draw.gauss(0, 1))))
            value = draw.choice((value, "nan", "inf", "None")) if draw.random() < 0.02 else value
            wrapped = draw.choice(("{}", "np.float64({})", "np.int32({})")) if i % 3 else "np.float64({})"
            cells.append(f"{key}:{wrapped.format(value)}")
        written.append(f"(TaskRunner pid=1) step:{step} - {' - '.join(cells)}\n")
    reading = read(log("".join(written)))
    for row, line in zip(reading.run.rows, written, strict=True):
        found = re.findall(r"(\S+):(?:np\.\w+\()?([-+.\w]+)\)?(?= - |$)", line)
        finite = {key: float(value) for key, value in found if value not in ("nan", "inf", "None")}
        assert {key: value for key, value in row.items() if key in {"step", *finite}} == finite
        assert row.keys() - finite.keys() <= {H, "reward/mean"}


def test_a_line_torn_by_the_next_loses_its_last_value(log) -> None:
    torn = "step:5 - actor/entropy:0.5 - critic/score/mean:0.37(TaskRunner pid=7) "
    reading = read(log(BEFORE + torn + AFTER))
    assert [row["step"] for row in reading.run.rows] == [1, 5, 9]
    assert "critic/score/mean" not in reading.run.rows[1] and reading.run.rows[1][H] == 0.5
    assert reading.skipped == {TORN: 1}


def test_a_progress_bar_is_no_line_without_end(log, monkeypatch) -> None:
    monkeypatch.setattr(lines, "LONGEST", 1 << 12)
    monkeypatch.setattr(lines, "BLOCK", 1 << 10)
    reading = read(log(BEFORE + "\rTraining:  50%" * 1000 + f"\rstep:5 - {PAIR}\n" + AFTER))
    assert [row["step"] for row in reading.run.rows] == [1, 5, 9] and reading.skipped == {}


def test_the_last_number_of_an_unended_file_may_lack_digits(log) -> None:
    reading = read(log(BEFORE + AFTER + f"step:17 - {PAIR}"))
    assert reading.run.rows[-1]["actor/entropy"] == 0.5
    assert "critic/score/mean" not in reading.run.rows[-1]
    assert reading.skipped == {TORN: 1}


def test_a_resumed_run_is_said_once(log) -> None:
    first = "".join(f"step:{i} - actor/entropy:{2 - i / 10} - critic/score/mean:0.0\n" for i in range(1, 8))
    second = "".join(f"step:{i} - actor/entropy:{1 - i / 10} - critic/score/mean:0.5\n" for i in range(5, 7))
    reading = read(log(first + second))
    found = {row["step"]: row[H] for row in reading.run.rows}
    assert found == {1: 1.9, 2: 1.8, 3: 1.7, 4: 1.6, 5: 0.5, 6: 0.4, 7: 1.3}
    assert reading.notes == (
        "2 steps from 5 to 6 occur more than once, as after a resume; the later row of each is used.",
        "The log ends at step 6, but an earlier session got to 7; what is past 6 is that session's.",
    )


def test_one_step_twice_is_named(log) -> None:
    reading = read(log(BEFORE + f"step:9 - {PAIR}\n" + AFTER))
    assert reading.notes == ("Step 9 occurs twice; the later row is used.",)
    assert reading.run.rows[-1][H] == 0.25


def test_missing_steps_are_counted(log) -> None:
    text = "".join(f"step:{i} - {PAIR}\n" for i in (1, 2, 3, 6, 7, 9))  # 4, 5 and 8 are missing
    assert read(log(text)).skipped == {"missing steps": 3}


def test_lines_of_the_file_logger(log) -> None:
    rows = [{"step": i, "data": {"actor/entropy": 1 / i, "critic/score/mean": i / 9}} for i in range(1, 5)]
    text = "\n".join(map(json.dumps, rows))
    odd = [
        '{"step": 5, "data": {"actor/entropy": 0.1',  # torn
        '{"step": 5, "loss": 1}',  # of another form
        '{"step": 6, "data": {"actor/entropy": 1e999, "critic/score/mean": NaN, "n": ' + "9" * 5000 + "}}",
        '{"step": "six", "data": {"actor/entropy": 0.1}}',
        '{"step": 7, "data": {"actor/entropy": 0.125, "critic/score/mean": ' + "[" * 10**5 + "}}",  # too deep
        '{"step": 8, "data": {"actor/entropy": 0.25, "kind": 1, "list": [1], "text": "x", "critic/score/mean": 0.5}}',
    ]
    path = log(text + "\n\n" + "\n".join(odd), "run.jsonl")
    reading = read(path)
    assert reading.framework == "verl"  # a line of another form among them is counted, and no doubt
    assert [row["step"] for row in reading.run.rows] == [1, 2, 3, 4, 6, 8]
    assert reading.run.rows[-1].keys() == {"step", "actor/entropy", "critic/score/mean", H, "reward/mean"}
    assert reading.skipped == {
        TORN: 2,
        "lines of another form": 1,
        NOT_FINITE: 3,
        "rows without a step": 1,
        "missing steps": 3,
    }
    assert reading.notes[0] == "actor/entropy: 1 of its values are NaN or ±inf and were skipped."


def test_two_data_sources_are_averaged_unless_one_is_named(log) -> None:
    cells = (
        "val-core/math/acc/mean@8:0.5 - val-core/aime/acc/mean@8:0.125 - val-core/math/acc/best@8/mean:0.75"
    )
    path = log("".join(f"step:{i} - {PAIR} - {cells}\n" for i in range(4)))
    reading = read(path)
    assert (reading.performance, reading.run.rows[0][R]) == (R, 0.3125)  # (0.5 + 0.125)/2
    assert "mean of 2 validation sets" in reading.notes[0] and "val-core/aime/acc/mean@8" in reading.notes[0]
    reading = read(path, performance="val-core/aime/acc/mean@8")
    assert (reading.performance, reading.run.rows[0][R]) == (R, 0.125)
    column = reading.columns["performance"]
    assert column.asked and "val-core/math/acc/mean@8" in column.alternatives
    # A column of which nothing is known keeps its name, and a verdict then says that it is none of the law's.
    reading = read(path, performance="val-core/math/acc/best@8/mean")
    assert reading.performance == "val-core/math/acc/best@8/mean"
