"""The live page in a real browser: `make test-browser`."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import rich_run, wait

from entropilot.records import read_run
from entropilot.reports.page import serve
from entropilot.reports.page.build import Options

pytestmark = pytest.mark.browser


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    monkeypatch.setattr(serve, "SHORTEST", 0.0)
    folder = tmp_path / "run"
    rich_run(folder, "live", "kl_cov")
    server, address = serve.make_server(serve.Live(lambda: [read_run(folder)], [folder], Options()))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield address, folder
    server.shutdown()
    server.server_close()
    thread.join()


def add_row(folder: Path, step: int) -> None:
    with (folder / "run.jsonl").open("a") as file:
        file.write(f'{{"step": {step}, "entropy/policy_T1": 0.01}}\n')


def test_new_rows_arrive_on_two_pages_and_what_was_set_stays(visit, live: tuple[str, Path]) -> None:
    address, folder = live
    page, second = visit(address), visit(address)
    page.fill("#roll-text", " 47.")
    page.select_option("#token-mode", "drift")
    add_row(folder, 77)
    for one in (page, second):
        wait(one, "page.data.runs[0].steps.at(-1) === 77", timeout=20_000)
        wait(one, "document.getElementById('live').textContent.startsWith('live: step 77')", timeout=20_000)
    assert page.input_value("#roll-text") == " 47." and page.input_value("#token-mode") == "drift"
    assert page.text_content("#rollouts [role=status]") == "1 of 32 completions"
    assert second.text_content("#rollouts [role=status]") == "32 of 32 completions"


def test_a_run_that_is_deleted_meanwhile(visit, live: tuple[str, Path]) -> None:
    address, folder = live
    page = visit(address)
    shutil.rmtree(folder)
    wait(page, "document.getElementById('live').textContent.includes('is gone')", timeout=20_000)
    assert page.locator("#charts canvas").count() == 3, "what was shown stays"
