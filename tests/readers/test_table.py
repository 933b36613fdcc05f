"""Tables, and our own runs: columns by name, by default, in doubt; the join of validations, worked by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from entropilot.errors import UserError
from entropilot.law.law import fit_run
from entropilot.readers import lines, read
from entropilot.records import RunWriter, read_run

H, ACC = "entropy/train_token_mean", "validation/accuracy"
LAW = [(step, 1.0 / step) for step in range(1, 9)]  # R = −0.1·exp(H) + 0.8


def rows() -> list[dict]:
    return [{"step": s, "entropy": h, "val_accuracy": -0.1 * math.exp(h) + 0.8, "x": 3} for s, h in LAW]


def as_csv(path: Path, delimiter: str = ",") -> Path:
    text = [delimiter.join(rows()[0]), *(delimiter.join(map(repr, row.values())) for row in rows())]
    path.write_text("\n".join(text) + "\n")
    return path


def as_jsonl(path: Path) -> Path:
    path.write_text("\n".join(map(json.dumps, rows())))
    return path


def as_parquet(path: Path) -> Path:
    columns = {name: [row[name] for row in rows()] for name in rows()[0]}
    pq.write_table(pa.table(columns | {"text": ["a"] * 8, "flag": [True] * 8}), path)
    return path


@pytest.mark.parametrize("write", [as_csv, as_jsonl, as_parquet])
def test_the_law_comes_back_from_a_table(tmp_path: Path, write) -> None:
    reading = read(write(tmp_path / "log"))
    assert reading.framework == "table"
    assert {c.source: c.name for c in reading.columns.values()} == {
        "entropy": H,
        "val_accuracy": ACC,
        "step": "step",
    }
    fit, columns = fit_run(reading.run, reading.entropy, reading.performance)
    assert (fit.a, fit.b, fit.n) == pytest.approx((0.1, 0.8, 8), rel=1e-9)
    assert columns == (H, ACC)
    row = {"step": 1, "entropy": 1.0, "val_accuracy": 0.8 - 0.1 * math.e, "x": 3.0}
    assert reading.run.rows[0] == row | {H: 1.0, ACC: 0.8 - 0.1 * math.e}
    assert "not known to the reader" in reading.run.header["metrics"][H]["definition"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters(tmp_path: Path, delimiter: str) -> None:
    assert len(read(as_csv(tmp_path / "log.csv", delimiter)).run.rows) == 8


def test_a_run_that_was_read_can_be_written_as_one_of_ours(tmp_path: Path) -> None:
    reading = read(as_csv(tmp_path / "log.csv"))
    writer = RunWriter(tmp_path / "run", reading.run.header)
    for row in reading.run.rows:
        writer.row(row["step"], {name: value for name, value in row.items() if name != "step"})
    writer.close()
    ours = read_run(tmp_path / "run")
    assert ours.rows == reading.run.rows
    assert ours.header["columns"]["performance"] == {"name": ACC, "source": "val_accuracy"}
    again = read(tmp_path / "run")
    assert again.framework == "entropilot"
    assert (again.entropy, again.performance) == (H, ACC)
    assert fit_run(again.run, again.entropy, again.performance)[0] == fit_run(reading.run, H, ACC)[0]


def test_a_run_of_ours_comes_as_it_is(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, {"name": "demo"})
    for step in range(1, 5):
        writer.row(step, {"entropy/policy_T1": 1 / step, "reward/mean": step / 4, "said": "text"})
    writer.close()
    (tmp_path / "checkpoints" / "checkpoint-4").mkdir(parents=True)
    with (tmp_path / "run.jsonl").open("a") as file:
        file.write('{"step": 5, "entropy/po')
    (tmp_path / "trainer_state.json").write_text('{"log_history": []}')
    reading = read(tmp_path)
    assert (reading.framework, reading.run.name) == ("entropilot", "demo")
    assert (reading.entropy, reading.performance) == ("entropy/policy_T1", "reward/mean")
    assert reading.skipped == {"torn lines": 1}
    assert len(reading.run.rows) == 4 and reading.run.rows[0]["said"] == "text"
    assert read(tmp_path / "run.jsonl").run.rows == reading.run.rows


def test_a_run_of_ours_with_a_line_without_end_is_refused(tmp_path: Path, monkeypatch) -> None:
    RunWriter(tmp_path, {"name": "demo"}).close()
    with (tmp_path / "run.jsonl").open("a") as file:
        file.write("9" * 3000)
    monkeypatch.setattr(lines, "LONGEST", 2000)
    monkeypatch.setattr(lines, "BLOCK", 1000)
    with pytest.raises(UserError, match="has a line beyond"):
        read(tmp_path)


def test_columns_by_name(log) -> None:
    text = "it,H,acc,note\n0,0.5,0.1,a\n1,0.25,0.2,b\n2,0.125,0.3,c\n"
    path = log(text, "log.csv")
    with pytest.raises(
        UserError,
        match=r"no column of steps; name the steps with --step \(step=… in Python\), one of it, H, acc\.",
    ):
        read(path)
    with pytest.raises(
        UserError,
        match=r"has no entropy, and no other column can stand in for it.*name the column with --entropy",
    ):
        read(path, step="it")
    reading = read(path, step="it", entropy="H", performance="acc")
    # What a bare `acc` was measured on is not known, so it keeps its name.
    assert (reading.entropy, reading.performance) == (H, "acc")
    assert reading.run.column(H, "acc") == [(0, 0.5, 0.1), (1, 0.25, 0.2), (2, 0.125, 0.3)]
    assert str(reading.columns["entropy"]) == f"entropy: H (as asked), in the rows {H}"
    with pytest.raises(UserError, match=r"has no column ac that holds a number; did you mean acc\?"):
        read(path, step="it", entropy="H", performance="ac")
    with pytest.raises(UserError, match="has no column note that holds a number"):
        read(path, step="it", entropy="note", performance="acc")


def test_two_equally_good_columns_are_an_ambiguity(log) -> None:
    path = log("step,entropy,actor/entropy,reward\n1,2,3,4\n2,3,4,5\n3,4,5,6\n", "log.csv")
    with pytest.raises(
        UserError, match=r"2 columns that could be the policy's entropy: actor/entropy, entropy; choose"
    ):
        read(path)
    assert read(path, entropy="actor/entropy").run.rows[0][H] == 3


def test_validation_every_n_steps_is_joined(log) -> None:
    """H at 10, 20, 30, 40; validation at 5 (none before it), 20 and 40 (the same step), 25 (20's), 50 (40's, one interval
    back) and 55 (too far)."""
    entropy = {10: 1.0, 20: 0.75, 30: 0.5, 40: 0.25}
    accuracy = {5: 0.1, 20: 0.2, 25: 0.3, 40: 0.4, 50: 0.5, 55: 0.6}
    text = [f"{s},{entropy.get(s, '')},{accuracy.get(s, '')}" for s in sorted(entropy.keys() | accuracy)]
    reading = read(log("\n".join(["step,entropy,val_accuracy", *text, ""]), "log.csv"))
    joined = [(20, 0.75, 0.2), (25, 0.75, 0.3), (40, 0.25, 0.4), (50, 0.25, 0.5)]
    assert reading.run.column(H, ACC) == joined
    assert reading.run.column("joined/entropy_step") == [(25, 20), (50, 40)]
    assert reading.notes == (
        "Of 6 values of val_accuracy, 2 have the entropy of their step, 2 the nearest before it (at most 10 steps), "
        "2 none and take no part in a law.",
    )


def test_rows_that_cant_be_read_are_counted(log) -> None:
    text = 'step,entropy,reward,text\n1,0.5,0.1,"a\nb"\n2,0.4\n3,nan,0.2,\n4,-inf,0.3,c\n5,0.3,0.4,d\n,0.3,0.4,e\n'
    text += "1.5,0.2,1,f\n"
    reading = read(log(text, "log.csv"))
    assert reading.run.column(H, "reward/mean") == [(1, 0.5, 0.1), (5, 0.3, 0.4)]
    assert reading.skipped == {"torn lines": 1, "values NaN or ±inf": 2, "rows without a step": 2}


def test_doubtful_values_are_said(log) -> None:
    reading = read(log("step,entropy,val_acc\n1,-0.5,40\n2,-0.4,50\n3,-0.3,60\n", "log.csv"))
    assert reading.notes == (
        "val_acc reaches 60, so it is taken as percent; validation/accuracy is a hundredth of it.",
        "entropy is below 0 at 3 steps, which the entropy of a token never is; check its sign.",
    )
    assert reading.run.column(ACC, "val_acc") == [(1, 0.4, 40), (2, 0.5, 50), (3, 0.6, 60)]
    reading = read(log("step,entropy,val_acc\n1,0.5,40\n2,0.4,50\n3,0.3,600\n", "log.csv"))
    assert reading.notes == ("val_acc reaches 600, so it is neither a share between 0 and 1 nor percent.",)


def test_a_name_of_ours_in_a_foreign_log_does_not_stand_in_the_way(log) -> None:
    path = log("step,entropy/train_token_mean,entropy,reward\n1,9,1,4\n2,9,2,5\n3,9,3,6\n", "log.csv")
    reading = read(path, entropy="entropy")
    assert [row[H] for row in reading.run.rows] == [1, 2, 3]
    assert reading.notes == (
        "The log's own entropy/train_token_mean is left out, because another column is read under that name.",
    )


def test_two_columns_of_one_name(log, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more than one column named reward"):
        read(log("step,entropy,reward,reward\n1,2,3,4\n2,3,4,5\n", "log.csv"))
    table = pa.Table.from_arrays([pa.array([1.0])] * 3, names=["step", "entropy", "entropy"])
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(UserError, match="more than one column named entropy"):
        read(tmp_path / "log.parquet")


def test_what_people_see(log) -> None:
    reading = read(
        log("step,entropy,reward,score\n1,0.5,1,2\n2,nan,1,2\n3,0.25,1,2\n5,0.2,1,2\n", "log.csv"),
        performance="reward",
    )
    assert reading.lines()[0].endswith("log.csv: table, 4 steps")
    assert reading.lines()[1:] == [
        f"entropy: entropy (by default), in the rows {H}",
        "performance: reward (as asked), in the rows reward/mean; also there: score",
        "step: step (by default)",
        "skipped: 1 values NaN or ±inf",
        "Of 4 values of reward, 3 have the entropy of their step, 1 none and take no part in a law.",
        "entropy: 1 of its values are NaN or ±inf and were skipped.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        # As a spreadsheet in German writes it, and as tables for people do: 12.5 % is 0.125.
        "Step;Entropy [nats];Val acc (%)\n1;1,25;12,5\n2;0,5;50,0\n3;0,25;75,5\n",
        "step, Entropy (nats), Val acc (%)\n1, 1.25, 12.5%\n2, 5e-1, 50 %\n3, .25, 75.5%\n",
        "step\tentropy\teval_acc\n1\t1,250\t,125\n2\t0,500\t0,5\n3\t0,250\t0,755\n",
    ],
)  # fmt: skip
def test_units_percent_and_decimal_commas(log, text: str) -> None:
    reading = read(log(text, "x.csv"))
    assert reading.run.column(H, ACC) == [(1, 1.25, 0.125), (2, 0.5, 0.5), (3, 0.25, pytest.approx(0.755))]
    assert any("decimal comma" in note for note in reading.notes) is ("," in text and ", " not in text)


def test_a_comma_that_may_part_thousands_is_no_decimal_comma(log) -> None:
    text = "step;entropy;reward\n" + "".join(f"{s};0.{s};1,{s}00\n" for s in range(1, 4))
    with pytest.raises(UserError, match="reward"):
        read(log(text, "x.csv"), performance="reward")
    text = "step;entropy;reward\n" + "".join(f"{s};1,{s}00;{s}\n" for s in range(1, 4))  # 1100 or 1.1?
    with pytest.raises(UserError, match="entropy"):
        read(log(text, "x.csv"))
