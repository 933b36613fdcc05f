"""The live page: loopback only, behind a token, read-only, and new rows arrive."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from entropilot.errors import UserError
from entropilot.records import RunWriter, read_run
from entropilot.reports.page import serve
from entropilot.reports.page.build import Options

pytest.importorskip("jinja2")


class Client:
    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.host, self.port, self.path = parts.hostname, parts.port, parts.path

    def ask(self, path: str = "", method: str = "GET", **headers: str) -> tuple[int, dict, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        target = path if path.startswith("/") else self.path + path
        connection.putrequest(method, target, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


@pytest.fixture
def served(tmp_path: Path, make_run, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, Path]]:
    monkeypatch.setattr(serve, "SHORTEST", 0.0)
    folder = tmp_path / "run"
    make_run(folder, end=None)
    live = serve.Live(lambda: [read_run(folder)], [folder], Options())
    server, address = serve.make_server(live)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Client(address), folder
    server.shutdown()
    server.server_close()
    thread.join()


def steps(body: bytes) -> int:
    raw = zlib.decompress(body)
    return json.loads(raw[4 : 4 + int.from_bytes(raw[:4], "little")])["runs"][0]["steps"]["n"]


def test_the_page_and_its_data(served) -> None:
    client, _ = served
    assert client.host == "127.0.0.1" and len(client.path) > 20
    status, headers, body = client.ask()
    assert status == 200 and b'data-live="true"' in body and headers["cache-control"] == "no-store"
    status, headers, body = client.ask("data")
    assert status == 200 and steps(body) == 21
    assert client.ask("data", If_None_Match=headers["etag"])[0] == 304
    state = json.loads(client.ask("state")[2])
    assert state["text"] == "demo: step 21, 1.00 s a step"


def test_new_rows_arrive_for_every_client(served) -> None:
    client, folder = served
    stamp = client.ask("data")[1]["etag"]
    time.sleep(0.02)
    with (folder / "run.jsonl").open("a") as file:
        file.write('{"step": 22, "entropy/policy_T1": 0.1}\n{"step": 23, "entr')  # and a line in the making
    status, headers, body = client.ask("data", If_None_Match=stamp)
    assert status == 200 and steps(body) == 22 and headers["etag"] != stamp
    second = Client(f"http://{client.host}:{client.port}{client.path}")
    assert steps(second.ask("data")[2]) == 22


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 404),
        ("/wrong-token/", {}, 404),
        ("/wrong-token/data", {}, 404),
        ("../../../../etc/passwd", {}, 404),
        ("%2e%2e/%2e%2e/etc/passwd", {}, 404),
        ("data/../../run.jsonl", {}, 404),
        ("run.jsonl", {}, 404),
        ("", {"Host": "evil.example"}, 403),  # DNS rebinding: another name for this address
        ("data", {"Host": "evil.example:80"}, 403),
        ("data", {"Origin": "http://evil.example"}, 403),
        ("data", {"Origin": "null"}, 403),
        ("/" + "a" * 70_000, {}, 414),
    ],
)
def test_who_does_not_belong_gets_nothing(served, path: str, headers: dict, status: int) -> None:
    client, _ = served
    got, _, body = client.ask(path, **headers)
    assert got == status and b"demo" not in body and b"root:" not in body
    assert client.ask()[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_nothing_can_be_written(served, method: str) -> None:
    client, folder = served
    before = sorted(path.name for path in folder.rglob("*"))
    assert client.ask("data", method=method)[0] == 501
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_a_run_that_is_deleted_meanwhile(served) -> None:
    client, folder = served
    shutil.rmtree(folder)
    status, _, body = client.ask("data")
    assert status == 410 and "is gone" in json.loads(body)["text"]
    assert "is gone" in json.loads(client.ask("state")[2])["text"]


def test_progress_tells_time_left_and_the_end(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "a", {"name": "a", "recipe": {"grpo": {"max_steps": 100}}})
    for step in range(1, 41):
        writer.row(step, {"seconds/step": 3.0})
    assert serve.progress(read_run(tmp_path / "a")) == "a: step 40, 3.00 s a step, about 3 minutes left"
    writer.end("finished")
    assert serve.progress(read_run(tmp_path / "a")) == "a: step 40, ended: finished"
    writer.close()


def test_a_port_that_is_taken_is_one_sentence(served) -> None:
    client, folder = served
    live = serve.Live(lambda: [read_run(folder)], [folder], Options())
    with pytest.raises(UserError, match=rf"--port {client.port} can't be used .*; choose another"):
        serve.make_server(live, client.port)
