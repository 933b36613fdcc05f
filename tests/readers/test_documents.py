"""JSON documents, notebooks and MLflow folders: every shape with numbers of its own, and the same shapes torn."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from entropilot.errors import UserError
from entropilot.readers import lines, read
from entropilot.readers.formats import documents, notebooks
from entropilot.readers.gather import TORN

H, R, ACC = "entropy/train_token_mean", "reward/mean", "validation/accuracy"
STEPS = [(5, 1.5, 0.125), (10, 1.0, 0.25), (15, 0.5, 0.5)]  # step, H, R
ROWS = [{"step": s, "entropy": h, "reward": r} for s, h, r in STEPS]
BY_STEP = {name: {str(row["step"]): row[name] for row in ROWS} for name in ("entropy", "reward")}
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
LONG = [
    {"metricName": name, "metricValue": str(row[name]), "step": row["step"], "timestamp": 1.7e12}
    for name in ("entropy", "reward")
    for row in ROWS
]


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(ROWS, id="array"),
        pytest.param({"log_history": ROWS}, id="log_history"),
        pytest.param({"global_step": 15, "state": {"log_history": ROWS}}, id="log_history within"),
        pytest.param({"run": {"id": "x"}, "history": ROWS, "config": {"sizes": [1, 2]}}, id="history"),
        pytest.param(BY_STEP, id="series"),
        pytest.param({"train": BY_STEP}, id="series within"),
        pytest.param({name: [[row["step"], row[name]] for row in ROWS] for name in BY_STEP}, id="pairs"),
        pytest.param({name: [{"step": r["step"], "value": r[name]} for r in ROWS] for name in BY_STEP}, id="points"),
        pytest.param({name: {"steps": COLUMNS["step"], "values": COLUMNS[name]} for name in BY_STEP}, id="steps, values"),
        pytest.param(COLUMNS, id="columns"),
        pytest.param({name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]}, id="pandas columns"),
        pytest.param({str(row["step"]): {"entropy": row["entropy"], "reward": row["reward"]} for row in ROWS}, 
            id="rows by step"),
        pytest.param(LONG, id="Comet"),
        pytest.param([{"key": e["metricName"], "value": float(e["metricValue"]), "step": e["step"]} for e in LONG], 
            id="MLflow"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("indent", [None, 1])
def test_shapes_of_documents(log, document: object, indent: int | None) -> None:
    name = "train/" if isinstance(document, dict) and "train" in document else ""
    reading = read(log(json.dumps(document, indent=indent), "log.json"), entropy=f"{name}entropy")
    assert reading.run.column(H, R) == STEPS
    assert reading.skipped == {}


def test_objects_one_after_the_other_with_indents(log) -> None:
    reading = read(log("\n".join(json.dumps(row, indent=2) for row in ROWS), "log.json"))
    assert reading.run.column(H, R) == STEPS


@pytest.mark.parametrize("head", ["[\n", '{"global_step": 15, "log_history": [\n'])
def test_a_document_with_one_row_a_line_is_no_table_of_its_last(log, head: str) -> None:
    text = head + ",\n".join(map(json.dumps, ROWS)) + "\n]" + "}" * head.count("{")
    assert read(log(text, "log.json")).run.column(H, R) == STEPS


def test_nested_objects_become_columns(log) -> None:
    rows = [
        {
            "step": s,
            "actor": {"entropy_loss": h, "pg": {"loss": 1}},
            "val": {"accuracy_reward": r} if s > 5 else {},
        }
        for s, h, r in STEPS
    ]
    reading = read(log("\n".join(map(json.dumps, rows)), "log.jsonl"), performance="val/accuracy_reward")
    assert reading.run.column(H, ACC) == STEPS[1:]
    assert reading.run.rows[0]["actor/pg/loss"] == 1


def test_a_step_of_so_many(log) -> None:
    rows = [
        {"global_step/max_steps": f"{s}/60", "entropy/mean": h, "reward": r, "train/eta": "3/4"}
        for s, h, r in STEPS
    ]
    for text, name in (
        ("\n".join(map(json.dumps, rows)), "log.jsonl"),
        (
            "global_step/max_steps,entropy/mean,reward\n" + "".join(f"{s}/60,{h},{r}\n" for s, h, r in STEPS),
            "log.csv",
        ),
        ("".join(f"{row}\n" for row in rows), "log.txt"),
    ):
        reading = read(log(text, name))
        assert reading.run.column(H, R) == STEPS
        assert "train/eta" not in reading.run.rows[0]  # only a step is written so


@pytest.mark.parametrize("size", [1, 40, 60, 95])
def test_an_array_cut_anywhere_gives_its_whole_rows(log, size: int) -> None:
    text = json.dumps(ROWS * 3)[:-size]
    path = log(text, "log.json")
    assert len(list(documents.rows(path))) == text.count("}") + (size > 1)
    assert read(path).skipped.get(TORN, 0) == (1 if size > 1 else 0)


def test_a_torn_object_is_refused(log) -> None:
    text = json.dumps(BY_STEP)
    for size in range(2, len(text), 7):
        with pytest.raises(UserError, match="holds no log|has no|no row"):
            read(log(text[:size], "log.json"))


def test_an_array_is_read_item_by_item(log) -> None:
    """30 MB of rows with text in them, of which nothing is held; one item beyond all measure ends it."""
    row = {"entropy": 0.5, "reward": 1.0, "text": "x" * 30_000}
    text = ",\n".join(json.dumps({"step": i} | row) for i in range(1000))
    path = log(f"[{text}]", "log.json")
    tracemalloc.start()
    assert len(read(path).run.rows) == 1000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 << 20


@pytest.mark.parametrize("opening", ["[", '{"log_history": ['])
def test_one_object_per_line_is_a_document_and_is_reported(log, run, opening: str) -> None:
    pytest.importorskip("jinja2")
    closing = "]" if opening == "[" else "]}"
    path = log(f"{opening}\n" + ",\n".join(map(json.dumps, ROWS)) + f"\n{closing}\n", "state.json")
    assert read(path).run.column(H, R) == STEPS
    done = run("report", str(path), "--out", "page.html")
    assert done.code == 0 and "warning" not in done.err and len(done.err.splitlines()) < 8
    assert Path("page.html").stat().st_size > 10_000


def test_one_object_beyond_the_limit_is_refused(log, monkeypatch) -> None:
    monkeypatch.setattr(documents, "LARGEST", 1 << 20)
    monkeypatch.setattr(documents, "BLOCK", 1 << 16)
    path = log(json.dumps({"a": {str(i): i for i in range(200_000)}}), "log.json")
    with pytest.raises(UserError, match="one JSON object of more than 1 MB; write its rows as JSON Lines"):
        read(path)
    monkeypatch.setattr(documents, "LONGEST", 1 << 18)
    path = log(json.dumps([*ROWS, {"a": "x" * (1 << 20)}, *ROWS]), "log.json")
    reading = read(path)
    assert reading.run.column(H, R) == STEPS and reading.skipped == {TORN: 1}
    assert lines.LONGEST > 1 << 20


def cell(*outputs: dict) -> dict:
    return {"cell_type": "code", "metadata": {}, "source": [], "execution_count": 1, "outputs": list(outputs)}


def notebook(*outputs: dict) -> str:
    return json.dumps(
        {"cells": [cell(), cell(*outputs)], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1
    )


PRINTED = [f"{{'loss': 0.0, 'reward': {r}, 'entropy': {h}, 'epoch': {s / 15}}}\n" for s, h, r in STEPS]


def test_a_notebook_that_printed_dicts(log) -> None:
    reading = read(log(notebook({"output_type": "stream", "name": "stdout", "text": PRINTED}), "x.ipynb"))
    assert reading.framework == "trl" and [row[H] for row in reading.run.rows] == [1.5, 1.0, 0.5]
    history = repr([dict(row, epoch=1.0) for row in ROWS])
    reading = read(
        log(notebook({"output_type": "execute_result", "data": {"text/plain": [history]}}), "x.ipynb")
    )
    assert reading.run.column(H, R) == STEPS
    verl = "".join(f"step:{s} - actor/entropy:{h} - critic/score/mean:{r}\n" for s, h, r in STEPS)
    reading = read(log(notebook({"output_type": "stream", "text": verl}), "x.ipynb"))
    assert reading.framework == "verl" and reading.run.column(H, R) == STEPS


def test_a_notebook_with_the_table_of_transformers(log) -> None:
    """The page that transformers' NotebookTrainingTracker shows, with Unsloth's columns."""
    head = "".join(f"<th>{name}</th>" for name in ("Step", "Training Loss", "reward", "entropy"))
    body = "".join(
        f"<tr><td>{s}</td><td>No log</td><td>{r:.6f}</td><td>{h:.6f}</td></tr>" for s, h, r in STEPS
    )
    page = (
        "<div><progress value='3' max='3'></progress> [3/3 00:01, Epoch 1/1]</div>\n"
        f"<table border='1' class='dataframe'><thead><tr style='text-align: left;'>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table><p>"
    )
    data = {"text/html": page.splitlines(keepends=True), "text/plain": ["<IPython.core.display.HTML object>"]}
    reading = read(log(notebook({"output_type": "display_data", "data": data}), "x.ipynb"))
    assert reading.run.column(H, R) == STEPS


def test_notebooks_that_are_torn_large_or_odd(log, monkeypatch) -> None:
    text = notebook({"output_type": "stream", "text": PRINTED})
    with pytest.raises(UserError):
        read(log(text[: len(text) // 2], "x.ipynb"))
    odd = {"cells": [7, {"outputs": [None, {"text": [1]}, {"data": []}]}], "nbformat": 4}
    with pytest.raises(UserError, match="holds no log"):
        read(log(json.dumps(odd), "x.ipynb"))
    path = log(text, "x.ipynb")
    monkeypatch.setattr(notebooks, "LARGEST", 100)
    with pytest.raises(UserError, match="clear the pictures from its outputs"):
        read(path)


def test_an_mlflow_run_folder(tmp_path: Path) -> None:
    """As MLflow's file store lays it out: `metrics/<name>`, with folders for `/`; lines of time, value and step."""
    run = tmp_path / "0" / "1f2e"
    (run / "metrics" / "actor").mkdir(parents=True)
    (run / "params").mkdir()
    (run / "meta.yaml").write_text("run_id: 1f2e\n")
    (run / "params" / "lr").write_text("1e-6")
    (run / "metrics" / "actor" / "entropy").write_text(
        "".join(f"17000 {h} {s}\n" for s, h, _ in STEPS) + "torn\n"
    )
    (run / "metrics" / "reward").write_text("".join(f"17000 {r} {s}\n" for s, _, r in STEPS))
    reading = read(run)
    assert (reading.framework, reading.run.name) == ("mlflow", "1f2e")
    assert reading.run.column(H, R) == STEPS and reading.skipped == {TORN: 1}
