"""Runs on disk: what is written is there at once, and what is torn or foreign is skipped aloud."""

from __future__ import annotations

import json
import math
import os
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest

from entropilot.errors import UserError
from entropilot.records import SCHEMA, RecordWarning, Run, RunWriter, package_versions, read_run, write_tokens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "demo"


def write(folder: Path, *rows: dict, header: dict | None = None) -> Path:
    writer = RunWriter(folder, header or {"name": "demo"})
    for row in rows:
        writer.row(row["step"], {key: value for key, value in row.items() if key != "step"})
    writer.close()
    return folder / "run.jsonl"


def test_header_and_rows_come_back(folder: Path) -> None:
    recipe, metrics = {"method": "kl_cov", "path": Path("a/b")}, {"reward/mean": {"unit": "1"}}
    header = {"name": "demo", "recipe": recipe, "metrics": metrics}
    writer = RunWriter(folder, header)
    writer.row(2, {"reward/mean": np.float32(0.5), "chosen/tokens": np.int64(3)})
    writer.row(1, {"reward/mean": 0.25})
    writer.end("finished", seconds=1.5)
    writer.close()
    run = read_run(folder)
    assert (run.name, run.path) == ("demo", folder)
    assert (run.header["schema"], run.header["recipe"]) == (SCHEMA, {"method": "kl_cov", "path": "a/b"})
    assert run.header["metrics"] == metrics
    assert run.header["versions"] == package_versions()
    assert "numpy" in run.header["versions"] and "commit" in run.header and "time" in run.header
    assert (run.header["end"]["reason"], run.header["end"]["seconds"]) == ("finished", 1.5)
    assert run.rows == [{"step": 1, "reward/mean": 0.25}, {"step": 2, "reward/mean": 0.5, "chosen/tokens": 3}]
    assert run.column("reward/mean", "chosen/tokens") == [(2, 0.5, 3)]
    assert read_run(folder / "run.jsonl").rows == run.rows


def test_a_row_is_on_disk_when_the_call_returns(folder: Path) -> None:
    writer = RunWriter(folder, {"name": "demo"})
    with (folder / "run.jsonl").open(encoding="utf-8") as other:
        assert json.loads(other.readline())["kind"] == "header"
        writer.row(1, {"reward/mean": 0.5})
        assert json.loads(other.readline()) == {"step": 1, "reward/mean": 0.5}
    assert read_run(folder).header["end"] is None  # it goes on, or was killed
    writer.close()


def test_values_that_are_not_finite_become_null(folder: Path) -> None:
    values = {
        "a": math.nan,
        "b": -math.inf,
        "c": np.float64("inf"),
        "d": [1.0, math.nan],
        "e": {"f": math.inf},
    }
    path = write(folder, {"step": 1, **values})
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    (row,) = read_run(folder).rows
    assert row == {"step": 1, "a": None, "b": None, "c": None, "d": [1.0, None], "e": {"f": None}}
    assert read_run(folder).column("a") == []


def test_a_name_that_is_no_text_is_written_all_the_same(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9")  # what sys.argv makes of such bytes
    write(folder, header={"name": name})
    assert read_run(folder).name == name


def test_a_torn_last_line_is_skipped_aloud(folder: Path) -> None:
    path = write(folder, {"step": 1, "reward/mean": 0.5}, {"step": 2, "reward/mean": 0.7})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.warns(RecordWarning, match=r"last line \(3\) is torn"):
        run = read_run(folder)
    assert [row["step"] for row in run.rows] == [1]


def test_lines_that_are_foreign_are_skipped_aloud(folder: Path) -> None:
    path = write(folder, {"step": 1, "reward/mean": 0.5})
    with path.open("ab") as file:
        file.write(
            b"\xff\xfe garbage\n[1, 2]\n"
            + b"[" * 100_000
            + b'\n{"loss": 3}\n\n{"step": 2, "reward/mean": 0.7}\n'
        )
    with pytest.warns(RecordWarning) as caught:
        run = read_run(folder)
    assert [row["step"] for row in run.rows] == [1, 2]
    text = "\n".join(str(warning.message) for warning in caught)
    assert len(caught) == 4
    assert all(f"line {number}" in text for number in (3, 4, 5, 6))
    assert "torn" not in text


def test_a_clean_run_is_read_in_silence(folder: Path) -> None:
    write(folder, {"step": 1, "reward/mean": 0.5})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(read_run(folder), Run)


def test_resuming_appends_and_the_later_row_wins(folder: Path) -> None:
    path = write(folder, {"step": 1, "reward/mean": 0.1}, {"step": 2, "reward/mean": 0.2})
    with path.open("a") as file:
        file.write('{"kind": "end", "reason": "interrupted"}\n{"step": 3, "rewa')  # killed while writing
    writer = RunWriter(folder, {"name": "not the first header"}, resume_step=1)
    writer.row(2, {"reward/mean": 0.9})
    writer.close()
    with pytest.warns(RecordWarning, match="line 5 is not a JSON object"):
        run = read_run(folder)
    assert [(row["step"], row["reward/mean"]) for row in run.rows] == [(1, 0.1), (2, 0.9)]
    assert run.name == "demo"
    assert run.header["end"] is None  # the end of the first session is not the end of the second


def test_resuming_where_nothing_is_begins_a_run(folder: Path) -> None:
    RunWriter(folder, {"name": "demo"}, resume_step=0).close()
    assert read_run(folder).name == "demo"


def test_a_run_is_not_overwritten(folder: Path) -> None:
    path = write(folder, {"step": 1})
    before = path.read_bytes()
    with pytest.raises(UserError, match="already holds a run.*--out.*--resume"):
        RunWriter(folder, {"name": "other"})
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="can't be written.*--out"):
        RunWriter(tmp_path / "file" / "demo", {})
    with pytest.raises(UserError, match="can't be written.*--out"):
        RunWriter(tmp_path / "file", {})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("mode", [stat.S_IRUSR | stat.S_IXUSR, 0])
def test_a_folder_without_permission_is_refused(tmp_path: Path, mode: int) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(mode)
    try:
        with pytest.raises(UserError, match="can't be written"):
            RunWriter(closed / "demo", {})
    finally:
        closed.chmod(stat.S_IRWXU)


def test_a_newer_schema_is_refused_by_name(folder: Path) -> None:
    path = write(folder)
    for versions, said in (({"entropilot": "9.9"}, "9.9"), (None, r"\?")):
        path.write_text(json.dumps({"kind": "header", "schema": SCHEMA + 1, "versions": versions}))
        with pytest.raises(
            UserError, match=rf"schema {SCHEMA + 1}, written by entropilot {said}; .* upgrade"
        ):
            read_run(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds no run: run.jsonl is missing"),
        ("", "is empty"),
        ('{"step": 1, "reward/mean": 0.5}\n', "does not begin with an entropilot header"),
        ('{"kind": "header"}\n', "does not begin with an entropilot header"),
    ],
)
def test_what_is_no_run_is_refused(folder: Path, content: str | None, words: str) -> None:
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "run.jsonl").write_text(content)
    with pytest.raises(UserError, match=words):
        read_run(folder)


def test_tokens_come_back_from_parquet(folder: Path) -> None:
    import pyarrow.parquet as pq

    columns = {
        "step": [10, 10],
        "prompt": ["1+1=", "2+2="],
        "completion": [" 2", " 4 ✓"],
        "reward": [1.0, 0.0],
        "tokens": [[" 2"], [" 4", " ✓"]],
        "logp": [[-0.1], [-0.2, -3.0]],
        "chosen": [[False], [True, False]],
    }
    path = write_tokens(folder, 10, columns)
    assert path == folder / "tokens" / "step_000010.parquet"
    assert pq.read_table(path).to_pydict() == columns
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # nothing partial is left


@pytest.mark.parametrize(("rank", "world", "writes"), [("0", "2", True), ("1", "2", False), ("1", "1", True)])
def test_of_several_processes_the_first_writes(tmp_path, monkeypatch, rank, world, writes):
    """A script makes its writer on every rank; RANK and WORLD_SIZE are what torchrun and accelerate set."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    writer = RunWriter(tmp_path / "run", {"name": "x"})
    writer.row(1, {"a": 1.0})
    writer.end("finished")
    writer.close()
    assert (tmp_path / "run").exists() == writes
    if not writes:
        monkeypatch.setenv("RANK", "0")
        RunWriter(tmp_path / "run", {"name": "x"}).close()
        monkeypatch.setenv("RANK", rank)
        RunWriter(tmp_path / "run", {"name": "x"}).close()  # nor does it mind what the first has written
    assert len((tmp_path / "run" / "run.jsonl").read_text().splitlines()) == (3 if writes else 1)
