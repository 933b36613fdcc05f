"""The page in a real browser, by mouse and by keyboard: `make test-browser`."""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entropilot.records import Run, RunWriter, read_run, write_tokens
from entropilot.reports.page import serve
from entropilot.reports.page.build import Options
from entropilot.reports.page.write import write_report

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = Path("runs") / "screenshots"

HOSTILE = [
    "<script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "</p><svg onload=window.hacked=1>",
    "javascript:window.hacked=1", "'\"><iframe srcdoc='<script>parent.hacked=1</script>'>", "${window.hacked=1}",
    "`;window.hacked=1;`", "{{constructor.constructor('window.hacked=1')()}}", "\\u003cscript\\u003e", "&lt;script&gt;",
    "<style>*{display:none}</style>", "<base href='http://evil.example/'>", "<meta http-equiv=refresh content=0>",
    "<form action=http://evil.example><button>", "<a href=javascript:window.hacked=1>x</a>", "<!--", "-->", "]]>",
    "<template><script>window.hacked=1</script></template>", "<math><mtext><script>window.hacked=1</script>",
    "\u202eevil\u202c", "\x1b[31mred\x1b[0m", "\x00", "a" * 3000, "𝕳𝖎 👩‍👩‍👧 ñ", "null", "undefined", "__proto__",
    "constructor", "<object data=x>", "<link rel=stylesheet href=http://evil.example>", "%3Cscript%3E", "\n\n\n", "",
]  # fmt: skip


def _rich_run(folder: Path, name: str, method: str, seed: int = 0, steps: int = 60) -> Run:
    header = {
        "name": name,
        "recipe": {"method": method, "seed": seed, "grpo": {"max_steps": steps}},
        "metrics": {"entropy/policy_T1": {"unit": "nats", "definition": "policy entropy"}},
    }
    writer = RunWriter(folder, header)
    for step in range(1, steps + 1):
        h = 1.2 * math.exp(-step / 20) + 0.05 + 0.01 * seed
        row = {
            "entropy/policy_T1": h,
            "reward/mean": 0.9 - 0.2 * h,
            "seconds/step": 0.5,
            "semantic/entropy": h,
        }
        if step % 4 == 1:
            row["validation/accuracy"] = 0.95 - 0.25 * (math.exp(h) - 1) + 0.01 * (-1) ** step
        writer.row(step, row | {"loss/very long <b>name</b>": 1.0 / step})
    writer.end("finished")
    writer.close()
    for step in (1, 20, 40, 60):
        rows = 8
        words = [["The", " sum", " is", "\n", f" {step + row}", "."] for row in range(rows)]
        columns = {
            "step": [step] * rows,
            "prompt": ["What is 1 + 2?"] * 4 + ["What is 3 + 4?"] * 4,
            "prompt_id": ["p1"] * 4 + ["p2"] * 4,
            "role": ["held_out"] * 4 + ["training"] * 4,
            "truncated": [row == 3 for row in range(rows)],
            "reward": [float(row % 2) for row in range(rows)],
            "cluster": [row % 3 for row in range(rows)],
            "answer": [str(row % 3) for row in range(rows)],
            "tokens": words,
            "logp": [[-0.1 * (t + 1) for t in range(6)]] * rows,
            "entropy": [[0.02, 0.3, 0.8, 1.5, 2.4, 0.0]] * rows,
            "advantage": [[1.0 if row % 2 else -1.0] * 6 for row in range(rows)],
            "covariance": [[0.1 * t * (1 if row % 2 else -1) for t in range(6)] for row in range(rows)],
            "drift": [[0.0, 0.1, -0.1, 0.0, 0.2, 0.0]] * rows,
            "chosen": [[t == 4 and row == 5 for t in range(6)] for row in range(rows)],
        }
        columns["completion"] = ["".join(row) for row in words]
        write_tokens(folder, step, columns)
    return read_run(folder)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("one")
    return write_report([_rich_run(folder / "a", "first run", "kl_cov")], folder / "r.html").as_uri()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("many")
    runs = [_rich_run(folder / f"{m}{s}", f"{m} {s}", m, s) for m in ("kl_cov", "none") for s in (1, 2, 3)]
    return write_report(runs, folder / "r.html", Options(group_by="method", controls=3)).as_uri()


def wait(page: Any, condition: str, timeout: float = 30_000) -> None:
    """Wait until JavaScript says so; playwright's own way evaluates a string, which the page's policy forbids."""
    end = time.monotonic() + timeout / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"it did not happen: {condition}"
        page.wait_for_timeout(30)


def said(page: Any) -> str:
    return page.text_content("#readout")


def test_charts_hover_zoom_and_open_a_step(visit, one: str) -> None:
    page = visit(one)
    chart = page.locator(".chart").first
    assert page.locator("#charts canvas").count() == 3
    chart.locator(".u-over").hover(position={"x": 100, "y": 60})
    assert "entropy/policy_T1, step" in said(page)
    box = chart.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 220, box["y"] + 60, steps=5)
    page.mouse.up()
    wait(page, "!document.getElementById('unzoom').hidden")
    ranges = page.evaluate(
        "[...page.charts].filter(c => c.plot && c.marks).map(c => [c.plot.scales.x.min, c.plot.scales.x.max])"
    )
    assert len({tuple(r) for r in ranges}) == 1 and ranges[0][0] > 5  # all charts follow
    page.click("#unzoom")
    wait(page, "[...page.charts].find(c => c.plot).plot.scales.x.min === 1")
    chart.locator(".u-over").click(position={"x": 5, "y": 60})
    assert page.input_value("#roll-step") == "1"
    assert page.locator(".rows li").count() == 8


def test_charts_by_keyboard(visit, one: str) -> None:
    page = visit(one)
    chart = page.locator(".chart").first
    chart.focus()
    page.keyboard.press("Home")
    first = said(page)
    page.keyboard.press("ArrowRight")
    assert "step 1:" in first and "step 2:" in said(page)
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.text_content("output[for=roll-step]").strip() == "60"
    assert page.text_content(".detail h3") == "Step 60: fixed held-out prompt"


def test_smoothing_axes_and_log_scale(visit, one: str) -> None:
    page = visit(one)
    last = "[...page.charts].find(c => c.metric === 'reward/mean').drawn.columns[0].at(-1)"
    before = page.evaluate(last)
    page.fill("#smoothing", "0.9")
    wait(page, f"{last} !== {before}")
    page.check("#log-axis")
    wait(page, "[...page.charts].find(c => c.plot).plot.scales.y.distr === 3")
    page.select_option("#x-axis", "time")
    wait(page, "[...page.charts].find(c => c.plot).drawn.x.at(-1) === 30")  # 60 steps of 0.5 s
    page.select_option("#x-axis", "samples")
    wait(page, "document.querySelector('#charts').textContent.includes('No data: no shown run holds')")


@pytest.mark.parametrize("kind", ["png", "svg", "csv"])
def test_charts_are_saved(visit, one: str, kind: str) -> None:
    page = visit(one)
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save entropy/policy_T1 as {kind.upper()}").first.click()
    data = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename == f"entropy_policy_T1.{kind}"
    assert data.startswith({"png": b"\x89PNG", "svg": b"<svg ", "csv": b"step,"}[kind])
    if kind == "csv":
        step, value = data.decode().splitlines()[1].split(",")
        assert step == "1" and float(value) == pytest.approx(1.2 * math.exp(-1 / 20) + 0.05, rel=1e-6)


def test_groups_have_means_bands_and_a_shared_legend(visit, many: str) -> None:
    page = visit(many)
    buttons = page.locator("#legend button")
    assert [buttons.nth(i).text_content()[1:] for i in range(2)] == ["kl_cov", "none"]
    drawn = "[...page.charts].find(c => c.metric === 'entropy/policy_T1').drawn.lines"
    assert page.evaluate(f"{drawn}.length") == 12  # three runs, two edges and a mean, twice
    band = page.evaluate(f"(() => {{ const l = {drawn}; return [l[3].y[0], l[4].y[0], l[5].y[0]]; }})()")
    # h(1) = 1.2·exp(−1/20) + 0.05 + 0.01·seed for seeds 1, 2, 3: mean + 0.02, sd 0.01, half 4.303·0.01/√3.
    mean, half = 1.2 * math.exp(-1 / 20) + 0.07, 4.303 * 0.01 / math.sqrt(3)
    assert band == pytest.approx([mean - half, mean + half, mean], rel=1e-5)
    buttons.nth(1).focus()
    page.keyboard.press("Enter")
    assert buttons.nth(1).get_attribute("aria-pressed") == "false"
    wait(page, f"{drawn}.length === 6")
    assert "Paired by seed (1, 2, 3)" in page.text_content("#summary")


def test_the_prefix_slider_fits_what_came_first(visit, one: str) -> None:
    page = visit(one)
    cells = page.locator("#law-view tbody td")
    assert cells.nth(1).text_content() == "15" and cells.nth(5).text_content() == "–"
    page.focus("#prefix")
    for _ in range(10):
        page.keyboard.press("PageDown")
    fitted = int(cells.nth(1).text_content())
    assert fitted < 15 and cells.nth(5).text_content() != "–"
    assert page.text_content("output[for=prefix]").strip().endswith("% of the measurements")


def test_rollouts_filter_sort_search_and_open(visit, one: str) -> None:
    page = visit(one)
    count = page.locator("#rollouts [role=status]")
    assert count.text_content() == "32 of 32 completions"
    assert (
        "chosen" not in said(page) and page.locator(".detail u").count() == 1
    )  # opens where something was chosen
    for kind, expected in (("wrong", 16), ("right", 16), ("truncated", 4), ("chosen", 4), ("held_out", 16)):
        page.select_option("#roll-kind", kind)
        assert count.text_content() == f"{expected} of 32 completions", kind
    page.select_option("#roll-kind", "all")
    page.fill("#roll-text", " 47.")
    assert count.text_content() == "1 of 32 completions"
    page.fill("#roll-text", "1 + 2")
    assert count.text_content() == "16 of 32 completions"  # the prompt counts too
    page.fill("#roll-text", "")
    page.select_option("#roll-sort", "covariance")
    page.locator(".rows button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".detail article").count() == 4
    assert (
        "4 completions of this prompt in the sample of this step, with 3 different answers"
        in page.text_content(".detail")
    )
    assert page.evaluate("document.activeElement.className") == "detail"
    page.select_option("#same-prompt", index=0)
    assert page.text_content(".detail h3").startswith("Step 1:")
    page.focus("#roll-step")
    page.keyboard.press("ArrowRight")
    assert count.text_content() == "8 of 32 completions"


def test_tokens_change_colour_and_tell_their_numbers(visit, one: str) -> None:
    page = visit(one)
    fifth = "document.querySelectorAll('.detail .tokens')[0].children[4]"
    colour = f"getComputedStyle({fifth}).backgroundColor"
    by_entropy = page.evaluate(colour)
    modes = page.locator("#token-mode option").all_text_contents()
    assert modes == ["entropy", "log-prob", "covariance", "advantage", "drift", "chosen"]
    page.select_option("#token-mode", "covariance")
    assert page.evaluate(colour) != by_entropy
    assert "covariance of log-probability and advantage" in page.text_content(".legend")
    assert page.locator(".legend .swatch").count() == 5
    page.locator(".detail .tokens").first.focus()
    page.keyboard.press("ArrowRight")
    assert said(page).startswith("“The” · entropy 0.02")
    page.keyboard.press("ArrowRight")
    assert said(page).startswith("“ sum” · entropy 0.3")
    page.locator(".detail .tokens").first.locator("span").nth(4).click()
    assert "log-prob -0.5" in said(page) and "drift 0.2" in said(page)


def test_words_and_before_and_after(visit, one: str) -> None:
    page = visit(one)
    rows = page.locator("#words-view tbody tr")
    assert rows.count() == 20 and "different ones in the samples" in page.text_content("#words-view caption")
    heads = page.locator("#compare-view h3").all_text_contents()
    assert heads == ["Before: step 1", "After: step 60"]
    page.select_option("#compare-prompt", "1")
    assert page.locator("#compare-view article").count() == 8


def test_all_metrics_are_searched(visit, one: str) -> None:
    page = visit(one)
    status = page.locator("#metrics-view [role=status]")
    assert status.text_content() == "6 of 6 metrics"
    page.fill("#metric-search", "policy entropy")  # words of the definition
    wait(page, "document.querySelector('#metrics-view [role=status]').textContent === '1 of 6 metrics'")
    page.locator("#metrics-view figure").scroll_into_view_if_needed()
    page.wait_for_selector("#metrics-view canvas")
    assert page.locator("#label-free canvas").count() == 1  # the section of runs that learn without labels


@pytest.mark.parametrize("name", ["one", "many"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, request, name: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make test-browser installs it")
    page = visit(request.getfixturevalue(name), color_scheme=scheme)
    # axe's own script is put in by the tool, past the page's policy.
    source = Path(axe.__file__).with_name("axe.min.js").read_text()
    page.evaluate(source + "; null")
    found = page.evaluate(
        "axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 200))]))"
    )
    assert found == []


@pytest.mark.parametrize("width", [390, 1200])
def test_no_sideways_scroll_and_a_screenshot(visit, one: str, many: str, width: int) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name, address in (("one", one), ("many", many)):
        page = visit(address, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=SCREENSHOTS / f"{name}_{width}.png", full_page=True)


def test_printing_loses_nothing(visit, one: str, tmp_path: Path) -> None:
    page = visit(one)
    out = tmp_path / "r.pdf"
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.pdf(path=out, format="A4")
    assert out.stat().st_size > 20_000
    headings = page.locator("h2").all_text_contents()
    visible = page.evaluate(
        "[...document.querySelectorAll('h2')].filter(h => h.offsetParent).map(h => h.textContent)"
    )
    assert visible == headings
    assert page.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")
    wide = "[...document.querySelectorAll('.scroll')].filter(s => s.offsetParent).map(s => s.scrollWidth - s.clientWidth)"
    assert max(page.evaluate(wide)) <= 1


def test_hostile_texts_do_nothing(visit, tmp_path: Path) -> None:
    runs = []
    for i, text in enumerate(HOSTILE):
        clean = text.encode("utf-8", "replace").decode()
        header = {"name": text, "recipe": {"method": text, "method_args": {text: text}}}
        header["metrics"] = {text or "x": {"unit": text, "definition": text}}
        writer = RunWriter(tmp_path / str(i), header)
        writer.row(1, {"entropy/policy_T1": 0.5, text or "x": 1.0})
        writer.row(2, {"entropy/policy_T1": 0.4, text or "x": 2.0})
        writer.end(text)
        writer.close()
        columns = {
            "step": [1],
            "prompt": [clean],
            "reward": [1.0],
            "tokens": [[clean, "y" * 1_000_000 if i == 0 else clean]],
        }
        columns |= {"entropy": [[0.1, 0.2]], "covariance": [[0.1, -0.1]], "answer": [clean], "cluster": [0]}
        write_tokens(tmp_path / str(i), 1, columns)
        runs.append(read_run(tmp_path / str(i)))
    page = visit(write_report(runs, tmp_path / "r.html", Options(title=HOSTILE[0])).as_uri())
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None
    allowed = {
        "SCRIPT": 3,
        "IFRAME": 0,
        "IMG": 0,
        "OBJECT": 0,
        "FORM": 0,
        "BASE": 0,
        "LINK": 0,
        "TEMPLATE": 0,
    }
    counts = page.evaluate(
        "tags => Object.fromEntries(tags.map(t => [t, document.querySelectorAll(t).length]))", list(allowed)
    )
    assert counts == allowed
    assert page.text_content("h1") == HOSTILE[0]


@pytest.mark.parametrize("kind", ["one step", "no tokens", "gaps", "torn", "nothing"])
def test_runs_of_every_kind_make_a_page(visit, tmp_path: Path, kind: str) -> None:
    writer = RunWriter(tmp_path / "run", {"name": kind})
    count = {"one step": 1, "nothing": 0}.get(kind, 40)
    for step in range(1, count + 1):
        if not (kind == "gaps" and 15 < step < 25):
            writer.row(step, {"entropy/policy_T1": 1.0 / step, "reward/mean": 0.5})
    writer.close()
    if kind == "torn":
        with (tmp_path / "run" / "run.jsonl").open("a") as file:
            file.write('{"step": 41, "entr')
    with pytest.warns(UserWarning) if kind == "torn" else _nothing():
        run = read_run(tmp_path / "run")
    page = visit(write_report([run], tmp_path / "r.html").as_uri())
    assert "No data: no completions were sampled." in page.text_content("#rollouts-view")
    if kind == "gaps":
        column = page.evaluate("[...page.charts].find(c => c.plot).drawn.columns[0].map(v => v === null)")
        assert sum(column) == 1
    if kind == "nothing":
        assert "no data" in page.text_content("#charts")


class _nothing:  # noqa: N801  # a context that does nothing, beside pytest.warns
    def __enter__(self) -> None: ...
    def __exit__(self, *_: Any) -> None: ...


def test_a_live_page_shows_new_rows_and_keeps_what_was_set(visit, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(serve, "SHORTEST", 0.0)
    folder = tmp_path / "run"
    _rich_run(folder, "live", "kl_cov")
    server, address = serve.make_server(serve.Live(lambda: [read_run(folder)], [folder], Options()))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        page = visit(address)
        page.fill("#roll-text", " 47.")
        page.select_option("#token-mode", "drift")
        with (folder / "run.jsonl").open("a") as file:
            file.write('{"step": 77, "entropy/policy_T1": 0.01}\n')
        wait(page, "page.data.runs[0].steps.at(-1) === 77", timeout=20_000)
        assert page.input_value("#roll-text") == " 47." and page.input_value("#token-mode") == "drift"
        assert page.text_content("#rollouts [role=status]") == "1 of 32 completions"
        wait(page, "document.getElementById('live').textContent.startsWith('live: step 77')", timeout=20_000)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
