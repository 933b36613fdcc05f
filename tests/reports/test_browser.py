"""The page in a real browser, by mouse and by keyboard: `make test-browser`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from browsing import rich_run, said, wait

from entropilot.records import RunWriter, read_run
from entropilot.reports.page.build import Options
from entropilot.reports.page.write import write_report

pytestmark = pytest.mark.browser
SCREENSHOTS = Path("runs") / "screenshots"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("one")
    return write_report([rich_run(folder / "a", "first run", "kl_cov")], folder / "r.html").as_uri()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("many")
    runs = [rich_run(folder / f"{m}{s}", f"{m} {s}", m, s) for m in ("kl_cov", "none") for s in (1, 2, 3)]
    return write_report(runs, folder / "r.html", Options(group_by="method", controls=3)).as_uri()


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


def test_a_prompt_is_followed_over_steps_and_runs(visit, many: str) -> None:
    page = visit(many)
    page.select_option("#roll-kind", "held_out")
    page.locator(".rows button").first.click()
    heading = page.locator(".detail h3")
    assert heading.text_content() == "Step 1, kl_cov 1: fixed held-out prompt"
    assert page.text_content(".detail .prompt") == "What is 1 + 2?"
    assert page.locator("#prompt-earlier").is_disabled()
    page.focus("#prompt-later")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # the focus stays on the button
    assert heading.text_content() == "Step 40, kl_cov 1: fixed held-out prompt"
    page.select_option("#roll-run", "4")  # the same prompt and step of another run
    page.focus("#roll-step")
    page.keyboard.press("End")
    assert heading.text_content() == "Step 60, none 2: fixed held-out prompt"
    assert page.text_content(".detail .prompt") == "What is 1 + 2?"
    page.select_option("#roll-kind", "training")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert heading.text_content() == "Step 1, none 2: prompt from training"
    current = page.locator(".rows button[aria-current=true]")
    assert current.count() == 1, "the list marks what is open"


def test_tokens_by_mouse_and_by_touch(visit, one: str) -> None:
    page = visit(one, has_touch=True)
    tokens = page.locator(".detail .tokens").first.locator("[data-t]")
    tokens.nth(1).hover()
    assert said(page).startswith("“ sum” · entropy 0.3")
    tokens.nth(3).tap()
    assert said(page).startswith("“\n” · entropy 1.5")


def test_findings_and_the_prefix_by_mouse(visit, tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {"name": "fallen"})
    for step in range(1, 61):
        accuracy = {} if step % 3 else {"validation/accuracy": 0.7 - 0.5 * (step > 30)}
        writer.row(step, {"entropy/policy_T1": math.exp(-step / 5)} | accuracy)
    writer.end("finished")
    writer.close()
    page = visit(write_report([read_run(tmp_path / "run")], tmp_path / "r.html").as_uri())
    link = page.locator("#findings a").first
    link.click()
    chart = "[...page.charts].find(c => c.plot)"
    assert page.evaluate(f"{chart}.drawn.x[{chart}.plot.cursor.idx]") == int(link.get_attribute("data-step"))
    page.locator("#prefix").scroll_into_view_if_needed()
    box = page.locator("#prefix").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert 40 <= int(page.input_value("#prefix")) <= 65
    assert (
        page.locator("#law-view tbody td").nth(1).text_content() != "20"
    )  # of 20 measurements a part is fitted


def test_words_and_before_and_after(visit, one: str) -> None:
    page = visit(one)
    rows = page.locator("#words-view tbody tr")
    assert rows.count() == 20 and "different ones in the samples" in page.text_content("#words-view caption")
    heads = page.locator("#compare-view h3").all_text_contents()
    assert heads == ["Before: step 1", "After: step 60"]
    options = page.locator("#compare-prompt option").all_text_contents()
    assert options == ["held-out: What is 1 + 2?", "What is 3 + 4?"]
    page.focus("#compare-prompt")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.input_value("#compare-prompt") == "1"
    assert page.locator("#compare-view article").count() == 8
    words = page.locator("#compare-view .tokens").all_text_contents()
    assert " 5." in words[0] and " 64." in words[4], "the fifth row of the first and of the last sample"


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
    page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
    page.add_style_tag(content="main > section { content-visibility: visible !important; }")
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
        page.add_style_tag(content="main > section { content-visibility: visible !important; }")
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
    hidden = "[...document.querySelectorAll('section')].filter(s => getComputedStyle(s).contentVisibility !== 'visible')"
    assert page.evaluate(f"{hidden}.length") == 0
    wide = "[...document.querySelectorAll('.scroll')].filter(s => s.offsetParent).map(s => s.scrollWidth - s.clientWidth)"
    assert max(page.evaluate(wide)) <= 1
