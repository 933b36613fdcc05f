"""What `train` says of the page at its end, and that no page is no failure; the live page beside a training."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from entropilot.cli import train
from entropilot.records import RunWriter
from entropilot.reports.page import serve, write

pytest.importorskip("jinja2")


def written(folder: Path, rows: int = 3) -> RunWriter:
    writer = RunWriter(folder, {"name": "mine", "recipe": {}, "metrics": {}})
    for step in range(1, rows + 1):
        writer.row(step, {"entropy/policy_T1": 1.0 / step})
    return writer


def test_the_page_is_written_beside_the_record(tmp_path: Path) -> None:
    written(tmp_path / "run").close()
    out = tmp_path / "run" / "report.html"
    assert train._write_page([tmp_path / "run"], out) == [f"page: {out}"]
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_without_jinja_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "run").close()
    monkeypatch.setattr(train, "find_spec", lambda name: None)
    assert train._write_page([tmp_path / "run"], tmp_path / "report.html") == []
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_fails_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = train._write_page([tmp_path / "gone"], tmp_path / "report.html")
    assert line.startswith("note: there is no page of this run: ") and "holds no run" in line

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by 0")

    written(tmp_path / "run").close()
    monkeypatch.setattr(write, "render", broken)
    (line,) = train._write_page([tmp_path / "run"], tmp_path / "run" / "report.html")
    assert line == (
        f"note: there is no page of this run (ZeroDivisionError: by 0); `entropilot report {tmp_path / 'run'}` tries again."
    )


def test_the_live_page_is_there_before_the_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from entropilot.reports.page.beside import LivePage

    monkeypatch.setattr(serve, "SHORTEST", 0.0)
    page = LivePage([tmp_path / "run"], "mine")
    parts = urlsplit(page.address)

    def ask(path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        connection.request("GET", parts.path + path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    assert parts.hostname == "127.0.0.1"
    try:
        assert json.loads(ask("state")[1])["text"] == "mine: no step yet"
        assert ask("")[0] == ask("data")[0] == 200
        writer = written(tmp_path / "run")
        assert json.loads(ask("state")[1])["text"].startswith("mine: step 3")
        writer.row(4, {"entropy/policy_T1": 0.2})
        assert json.loads(ask("state")[1])["text"].startswith("mine: step 4")
        writer.close()
    finally:
        page.close()
    with pytest.raises(OSError):
        ask("state")
