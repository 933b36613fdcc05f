"""Runs to report on, as a training would have written them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import wait

from entropilot.records import Run, RunWriter, read_run, write_tokens

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def sample(rows: int, text: str) -> dict[str, list]:
    return {
        "step": [20] * rows,
        "prompt": [f"{text} prompt"] * rows,
        "completion": [text] * rows,
        "reward": [1.0] * rows,
        "tokens": [[text, "\n", ""]] * rows,
        "logp": [[-0.125, -1.0, -2.0]] * rows,
        "entropy": [[0.01, 0.75, 3.0]] * rows,
        "advantage": [[0.5, 0.5, 0.5]] * rows,
        "covariance": [[0.25, -0.1, 0.2]] * rows,
        "chosen": [[True, False, False]] * rows,
    }


def _make_run(
    folder: Path, name: str = "demo", *, tokens: bool = True, end: str | None = "finished", a: float = 0.2
) -> Run:
    header = {
        "name": name,
        "recipe": {"method": name, "method_args": {name: name}, "model": name},
        "clip": {"low": 0.2, "high": None, "source": "method"},
        "metrics": {
            "entropy/policy_T1": {"unit": "nats", "definition": f"Eq. 5 {name}"},
            name: {"unit": name},
        },
    }
    writer = RunWriter(folder, header)
    for step in range(1, 21):
        h = 1.2 - 0.05 * step
        row = {"rollout": step, "entropy/policy_T1": h, "reward/mean": 0.4, "seconds/step": 1.0}
        writer.row(step, row | {"validation/accuracy": 0.8 - a * math.exp(h) + 0.01 * (-1) ** step})
    writer.row(21, {"validation/accuracy": 0.61})
    if end:
        writer.end(end)
    writer.close()
    if tokens:
        write_tokens(folder, 9, sample(3, "an older sample") | {"step": [9] * 3})
        write_tokens(folder, 20, sample(14, name.encode("utf-8", "replace").decode()))
    return read_run(folder)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """Write a run of 20 steps that follows the law with `a`, and its token samples; read it back."""
    return _make_run


@pytest.fixture(scope="session")
def token_columns() -> Callable[[int, str], dict[str, list]]:
    """Make the columns of a token sample: so many completions of three tokens."""
    return sample


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="make test-browser installs playwright")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Open a page; at the end there must have been no console error, and no request but for itself."""
    contexts, troubles = [], []

    def open_page(address: str, width: int = 1200, **options: Any) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, accept_downloads=True, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        origin = address.rsplit("/", 1)[0]
        page.on(
            "request",
            lambda r: (
                troubles.append(r.url[:200]) if not r.url.startswith((origin, "blob:", "data:")) else None
            ),
        )
        page.goto(address)
        wait(page, "document.documentElement.dataset.ready === 'true'", timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []
