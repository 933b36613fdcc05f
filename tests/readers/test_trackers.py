"""W&B and Trackio: what they wrote of one TRL run, charts exported from the web, and files of several runs."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from pathlib import Path

import pytest

from entropilot.errors import UserError
from entropilot.readers import read
from entropilot.readers.gather import TORN
from entropilot.records import read_run

H, HELD_OUT, ACC = "entropy/train_token_mean", "validation/reward", "validation/accuracy"


def recorded(data: Path) -> dict[int, tuple[float, float]]:
    """Return entropy and evaluation of the recorded run, by the plainest means."""
    entropy, evaluated = {}, {}
    for line in (data / "wandb_history.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "train/entropy" in row:
            entropy[row["train/global_step"]] = row["train/entropy"]
        if "eval/reward" in row:
            evaluated[row["train/global_step"]] = row["eval/reward"]
    return {step: (entropy[step], value) for step, value in evaluated.items()}


def test_wandb_history_as_json_lines(data: Path) -> None:
    """W&B counts its own `_step` at every call, so that evaluation and training of a step lie in different rows."""
    reading = read(data / "wandb_history.jsonl")
    assert reading.framework == "wandb"
    assert [c.source for c in reading.columns.values()] == [
        "train/entropy",
        "eval/reward",
        "train/global_step",
    ]
    assert reading.columns["step"].alternatives == ("_step",)
    expected = recorded(data)
    assert list(expected) == [2, 4, 6]
    assert {step: (h, r) for step, h, r in reading.run.column(H, HELD_OUT)} == expected


def test_wandb_history_as_csv(data: Path, tmp_path: Path) -> None:
    """What `pandas.DataFrame(...).to_csv()` makes of the same rows, with its unnamed index."""
    pandas = pytest.importorskip("pandas")
    rows = [json.loads(line) for line in (data / "wandb_history.jsonl").read_text().splitlines()]
    pandas.DataFrame(rows).to_csv(tmp_path / "history.csv")
    reading = read(tmp_path / "history.csv")
    assert reading.framework == "wandb" and reading.skipped == {}
    assert {step: (h, r) for step, h, r in reading.run.column(H, HELD_OUT)} == recorded(data)


def test_wandb_history_as_parquet(data: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = [json.loads(line) for line in (data / "wandb_history.jsonl").read_text().splitlines()]
    pandas.DataFrame(rows).to_parquet(tmp_path / "history.parquet")
    reading = read(tmp_path / "history.parquet")
    assert reading.framework == "wandb"
    assert {step: (h, r) for step, h, r in reading.run.column(H, HELD_OUT)} == recorded(data)


def test_wandb_writes_what_is_not_finite_as_words(log) -> None:
    values = [0.5, "NaN", 0.25, "Infinity", 0.125]
    rows = [{"_step": i, "actor/entropy": value, "critic/score/mean": i} for i, value in enumerate(values)]
    reading = read(log("\n".join(map(json.dumps, rows)), "history.jsonl"))
    assert reading.run.column(H) == [(0, 0.5), (2, 0.25), (4, 0.125)]
    assert reading.skipped == {"values NaN or ±inf": 2}


def test_verl_in_wandb_keeps_the_validation_before_training(log) -> None:
    """Its row has no `training/global_step`, but `_step` 0."""
    acc = "val-core/openai/gsm8k/acc/mean@8"
    rows: list[dict] = [{"_step": 0, "_timestamp": 1.0, acc: 0.125}]
    rows += [{"_step": i, "training/global_step": i, "actor/entropy": 1 / i, acc: i / 8} for i in (1, 2, 3)]
    reading = read(log("\n".join(map(json.dumps, rows)), "history.jsonl"))
    assert reading.columns["step"].source == "_step"
    assert [step for step, _ in reading.run.column(ACC)] == [0, 1, 2, 3]


def test_openrlhf_in_wandb(log) -> None:
    """Its training and its evaluation count the same steps under two names; keys as in openrlhf 0.11.2."""
    rows: list[dict] = []
    for step in (1, 2, 3):
        train = {"entropy_loss": 1 / step, "reward": step / 4, "policy_loss": 0.0, "global_step": step}
        evaluation = {"eval_math_pass1": step / 8, "eval_math_pass4": step / 4, "global_step": step}
        rows.append({"_step": len(rows)} | {f"train/{key}": value for key, value in train.items()})
        rows.append({"_step": len(rows)} | {f"eval/{key}": value for key, value in evaluation.items()})
    reading = read(log("\n".join(map(json.dumps, rows)), "history.jsonl"))
    assert [c.source for c in reading.columns.values()] == [
        "train/entropy_loss",
        "eval/eval_math_pass1",
        "train/global_step",
    ]
    assert reading.run.column(H, ACC) == [(1, 1.0, 0.125), (2, 0.5, 0.25), (3, 1 / 3, 0.375)]
    assert reading.notes == ()  # a step in two rows that complete each other does not occur twice
    assert "OpenRLHF's `entropy_loss`" in reading.run.header["metrics"][H]["definition"]
    assert read(reading.files[0], framework="table").run.rows == reading.run.rows


def chart(path: Path, runs: dict[str, float], axis: str = "Step") -> Path:
    """Write a chart's export as the web page does: every field quoted, each line with its band."""
    metrics = ("actor/entropy", "val-core/math/acc/mean@8")
    header = [axis] + [
        f"{run} - {metric}{band}" for run in runs for metric in metrics for band in ("", "__MIN", "__MAX")
    ]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        for step in (10, 20, 30):
            cells: list[object] = [step]
            for scale in runs.values():
                cells += [scale / step] * 3 + ([step / 100] * 3 if step != 20 else [""] * 3)
            writer.writerow(cells)
    return path


@pytest.mark.parametrize("name", ["kind-sun-12", "Group: kl - cov", "sweep - lr 1e-6"])
def test_a_chart_of_one_run(tmp_path: Path, name: str) -> None:
    reading = read(chart(tmp_path / "chart.csv", {name: 5.0}))
    assert reading.framework == "wandb" and reading.run.name == name
    assert reading.columns["entropy"].source == "actor/entropy"
    assert reading.run.column(H) == [(10, 0.5), (20, 0.25), (30, 5 / 30)]
    assert reading.run.column(ACC) == [(10, 0.1), (30, 0.3)]


def test_a_chart_of_several_runs(tmp_path: Path, data: Path) -> None:
    path = chart(tmp_path / "chart.csv", {"a": 5.0, "b": 10.0})
    with pytest.raises(UserError, match=r"holds 2 runs: a, b; name one of them with --run"):
        read(path)
    with pytest.raises(UserError, match="holds no run named c; it holds a, b"):
        read(path, run="c")
    assert read(path, run="b").run.column(H)[0] == (10, 1.0)
    with pytest.raises(UserError, match=r"holds one run \(wandb\), so leave out --run \(run=b"):
        read(data / "wandb_history.jsonl", run="b")


def test_a_chart_that_also_shows_its_axis(log) -> None:
    text = '"_step","a - _step","a - entropy","a - reward"\n' + "".join(
        f'"{i}","{i}","0.{i}","1"\n' for i in (1, 2, 3)
    )
    reading = read(log(text, "chart.csv"))
    assert (reading.framework, reading.run.name) == ("wandb", "a")
    assert reading.run.column(H) == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_a_chart_over_time_has_no_steps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column of steps"):
        read(chart(tmp_path / "chart.csv", {"a": 5.0}, axis="Relative Time (Process)"))


def test_trackio(trackio_db: Path, data: Path) -> None:
    """The same run as W&B's recording; Trackio's own step counts its calls."""
    for path in (trackio_db, trackio_db.parent):
        reading = read(path)
        assert (reading.framework, reading.run.name) == ("trackio", "demo")
        assert reading.columns["step"].source == "train/global_step"
        assert {step: (h, r) for step, h, r in reading.run.column(H, HELD_OUT)} == recorded(data)
        assert reading.notes[0] == (
            "94 rows without train/global_step, eval/global_step hold neither entropy nor performance, "
            "and are left out."
        )


def test_trackio_is_only_read(trackio_db: Path) -> None:
    before = trackio_db.read_bytes()
    read(trackio_db)
    assert trackio_db.read_bytes() == before
    trackio_db.chmod(0o444)
    os.chmod(trackio_db.parent, 0o555)
    try:
        assert len(read(trackio_db).run.rows) == 6
    finally:
        os.chmod(trackio_db.parent, 0o755)


def test_trackio_where_sqlite_may_not_write_beside_it(trackio_db: Path, monkeypatch) -> None:
    """A WAL file's reader needs a file beside it; root may always make one, so the refusal is played here."""
    connect = sqlite3.connect

    def refuse(place: str, **settings):
        if not place.endswith("immutable=1"):
            place = place.replace(trackio_db.name, "missing.db")
        return connect(place, **settings)

    monkeypatch.setattr(sqlite3, "connect", refuse)
    Path(f"{trackio_db}-wal").write_bytes(b"x")
    reading = read(trackio_db)
    assert len(reading.run.rows) == 6
    assert reading.notes[0] == "What sandbox.db-wal holds, the latest rows perhaps, could not be read."


def project(path: Path, runs: list[tuple[str, str]], *, old: bool = False, bad: bytes | None = None) -> Path:
    """Write a project's file as Trackio does, or as it did before runs had an id."""
    database = sqlite3.connect(path)
    key = "" if old else "run_id TEXT NOT NULL, "
    database.execute(
        f"CREATE TABLE metrics (id INTEGER PRIMARY KEY, {key}run_name TEXT, step INTEGER, metrics TEXT)"
    )
    for index, (run_id, name) in enumerate(runs):
        for step in range(3):
            text = json.dumps({"actor/entropy": 1 / (step + 1 + index), "critic/score/mean": step})
            values = ((name,) if old else (run_id, name)) + (step, text)
            columns = "run_name, step, metrics" if old else "run_id, run_name, step, metrics"
            database.execute(
                f"INSERT INTO metrics ({columns}) VALUES ({', '.join('?' * len(values))})", values
            )
    if bad is not None:
        database.execute(
            "INSERT INTO metrics (run_id, run_name, step, metrics) VALUES ('1', 'a', 3, ?)", (bad,)
        )
    database.commit()
    database.close()
    return path


@pytest.mark.parametrize("old", [False, True], ids=["with ids", "without"])
def test_trackio_of_several_runs(tmp_path: Path, old: bool) -> None:
    path = project(tmp_path / "p.db", [("1", "a"), ("2", "b")], old=old)
    with pytest.raises(UserError, match="holds 2 runs: a, b; name one of them with --run"):
        read(path)
    assert read(path, run="b").run.column(H)[0] == (0, 0.5)


def test_the_command_line_names_a_run_of_several(run, tmp_path: Path) -> None:
    path = project(tmp_path / "p.db", [("1", "a"), ("2", "b")])
    refused = run("read", str(path), "--to", "out")
    assert refused.code == 2 and "--run" in refused.err and not (tmp_path / "out").exists()
    assert run("read", str(path), "--to", "out", "--run", "b").code == 0
    assert read_run(tmp_path / "out").column(H)[0] == (0, 0.5)


def test_trackio_of_runs_with_one_name(tmp_path: Path) -> None:
    path = project(tmp_path / "p.db", [("1f", "a"), ("2f", "a")])
    with pytest.raises(UserError, match="holds 2 runs: 1f, 2f"):
        read(path)
    assert read(path, run="2f").run.column(H)[0] == (0, 0.5)


@pytest.mark.parametrize("bad", [b"{torn", b"[1]", b"\xff\xfe", b"[" * 10**5])
def test_trackio_with_torn_metrics(tmp_path: Path, bad: bytes) -> None:
    assert read(project(tmp_path / "p.db", [("1", "a")], bad=bad)).skipped == {TORN: 1}


def test_sqlite_that_is_not_trackios(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    database = sqlite3.connect(path)
    database.execute("CREATE VIEW metrics AS SELECT 'a' AS run_name, 1 AS step, '{}' AS metrics")
    database.commit()
    database.close()
    with pytest.raises(UserError, match="holds no log that can be read"):
        read(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="holds no log that can be read"):
        read(path)
