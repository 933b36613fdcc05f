"""The page: one file, unplugged, and nothing in a record becomes markup."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from entropilot.errors import UserError
from entropilot.records import Run
from entropilot.reports import figures
from entropilot.reports.page import _inline_json, write_report
from entropilot.reports.reading import reading
from entropilot.reports.table import summarise

plotly = pytest.importorskip("plotly")

EVIL = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\"'><b>&amp;%{x}",
    "$\\alpha$ \ud800\x00",
)


class Page(HTMLParser):
    """Tags, attributes and texts of a page, its scripts apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.said = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.said += data


def parse(path: Path) -> tuple[Page, dict]:
    page = Page(path.read_text(encoding="utf-8"))
    return page, json.loads(page.scripts[0])


def test_one_page_that_needs_no_network(tmp_path: Path, make_run) -> None:
    run = make_run(tmp_path / "run")
    out = write_report([run], tmp_path / "new" / "report.html")
    assert out == tmp_path / "new" / "report.html"
    assert [entry.name for entry in out.parent.iterdir()] == ["report.html"]
    page, drawn = parse(out)
    assert len(page.scripts) == 3 and len(page.scripts[1]) > 1_000_000
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert ("html", {"lang": "en"}) in page.tags
    assert "Run demo" in page.said
    assert list(drawn) == ["chart-entropy", "chart-accuracy", "chart-law", "chart-reward"]
    assert {attributes["id"] for _, attributes in page.tags if "id" in attributes} >= set(drawn)
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")


def test_only_the_page_s_own_scripts_may_run(tmp_path: Path, make_run) -> None:
    page, _ = parse(write_report([make_run(tmp_path / "run")], tmp_path / "r.html"))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "unsafe-inline" not in policy.split(";")[1]
    for script in page.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
        assert "\r" not in script


@pytest.mark.parametrize("name", EVIL)
def test_names_and_texts_from_files_stay_text(tmp_path: Path, make_run, name: str) -> None:
    runs = [make_run(tmp_path / "a", name), make_run(tmp_path / "b", "calm", tokens=False)]
    plain, _ = parse(write_report([make_run(tmp_path / "c", "x"), runs[1]], tmp_path / "plain.html"))
    page, drawn = parse(write_report(runs, tmp_path / "evil.html", title=name))
    assert [tag for tag, _ in page.tags] == [
        tag for tag, _ in plain.tags
    ]  # no tag more than a harmless name makes
    shown = name.replace("\ud800", "\ufffd").replace("\x00", "\ufffd")
    assert page.said.count(shown) > 6
    traces = [trace for figure in drawn.values() for trace in figure["data"]]
    named = {trace["name"] for trace in traces if trace["legendgroup"] == "run0"}
    assert named == {html.escape(shown, quote=False)}  # Plotly reads tags and entities in a name
    assert not any(shown in trace.get("hovertemplate", "") for trace in traces)  # and %{...} in a template


def test_inlined_json_cannot_leave_its_script() -> None:
    text = _inline_json({"a": "</script><!--<script>&"})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": "</script><!--<script>&"}


def test_figures_are_what_plotly_knows(tmp_path: Path, make_run) -> None:
    from plotly import graph_objects

    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b")]
    _, drawn = parse(write_report(runs, tmp_path / "r.html"))
    for figure in drawn.values():
        graph_objects.Figure(figure)  # raises on an unknown property


def test_law_marks_a_ceiling_only_where_there_is_one(tmp_path: Path, make_run) -> None:
    run = make_run(tmp_path / "a")
    summary = summarise(run)
    chart = figures.law([run], ["a"], [summary])
    points, curve, star = chart["data"]
    assert len(points["x"]) == summary["n"] == 20
    assert curve["x"][0] == 0.0 and curve["y"][0] == pytest.approx(summary["ceiling"])
    assert (star["x"], star["y"], star["marker"]["symbol"]) == ([0.0], [summary["ceiling"]], "star")
    (open_star,) = figures.law([run], ["a"], [summary | {"trusted": False}])["data"][2:]
    assert open_star["marker"]["symbol"] == "star-open"
    assert len(figures.law([run], ["a"], [summary | {"has_ceiling": False}])["data"]) == 2
    rising = make_run(tmp_path / "b", a=-0.2)
    assert len(figures.law([rising], ["b"], [summarise(rising)])["data"]) == 2


def test_runs_are_told_apart_by_more_than_colour(tmp_path: Path, make_run) -> None:
    runs = [make_run(tmp_path / str(i), tokens=False) for i in range(3)]
    page, drawn = parse(write_report(runs, tmp_path / "r.html"))
    lines = drawn["chart-entropy"]["data"]
    assert (
        len({trace["marker"]["symbol"] for trace in lines})
        == len({trace["line"]["dash"] for trace in lines})
        == 3
    )
    buttons = [attributes for tag, attributes in page.tags if tag == "button"]
    assert [button["data-run"] for button in buttons] == [trace["legendgroup"] for trace in lines]


def test_reading_says_what_the_numbers_say(tmp_path: Path, make_run) -> None:
    run = make_run(tmp_path / "a")
    text = reading(run, summarise(run))
    assert text.startswith("20 steps in 20 s; policy entropy fell from 1.150 to 0.200 nats (−83 %);")
    assert "held-out accuracy rose from 0.158 to 0.610. The law puts the ceiling at 0." in text
    assert "did not finish" not in text
    rising = make_run(tmp_path / "b", a=-0.2, end="a worker died")
    text = reading(rising, summarise(rising))
    assert "the law does not hold here" in text.lower() and "puts the ceiling" not in text
    assert text.endswith("The run did not finish: a worker died.")
    bare = Run(tmp_path, {"end": None}, [])
    assert reading(bare, summarise(bare)) == (
        "No training step was recorded; policy entropy was not measured; held-out accuracy was not measured. "
        f"No fit: The run {tmp_path.name} has no entropy/policy_T1, which the law needs; it has no metric at all. "
        "The record has no end: the run was killed, or is still going on."
    )


def test_tokens_of_the_last_sample(tmp_path: Path, make_run) -> None:
    page, _ = parse(write_report([make_run(tmp_path / "run")], tmp_path / "r.html"))
    assert "Step 20: the first 12 of 14 sampled completions." in page.said
    assert "an older sample" not in page.said
    marked = [(tag, a) for tag, a in page.tags if a.get("title")]
    assert len(marked) == 12 * 3
    tip = "log-prob -0.125 · entropy 0.010 nats · advantage 0.500 · covariance 0.250 · chosen"
    assert marked[0] == ("u", {"class": "e0", "title": tip})
    assert [a["class"] for _, a in marked[1:3]] == ["e3", "e5"]
    assert "demo↵\n∅" in page.said


def test_headers_of_any_shape_leave_a_page(tmp_path: Path) -> None:
    for i, junk in enumerate((None, [], "words", 3)):
        header = dict.fromkeys(("name", "recipe", "clip", "metrics", "versions", "end", "commit"), junk)
        run = Run(tmp_path, header, [{"step": 1, "entropy/policy_T1": junk, "validation/accuracy": junk}])
        page, _ = parse(write_report([run], tmp_path / f"{i}.html"))
        assert "How this was run" in page.said
    clip = {
        "name": "n",
        "clip": {"low": [], "high": {}, "source": []},
        "recipe": {"method": {}, "method_args": []},
    }
    parse(write_report([Run(tmp_path, clip, [])], tmp_path / "clip.html"))


def test_facts_of_the_header(tmp_path: Path, make_run) -> None:
    page, _ = parse(write_report([make_run(tmp_path / "run")], tmp_path / "r.html"))
    assert "low 0.2, high none (set by the method)" in page.said
    assert 'demo = "demo"' in page.said and "Eq. 5 demo" in page.said and "numpy" in page.said


def test_an_older_report_is_replaced_as_a_whole(
    tmp_path: Path, make_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, run = tmp_path / "r.html", make_run(tmp_path / "run")
    out.write_text("older")

    def fails(*_args) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        with pytest.raises(UserError, match="No space left on device"):
            write_report([run], out)
    assert out.read_text() == "older"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["r.html", "run"]
    write_report([run], out)
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_refusals(tmp_path: Path, make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(UserError, match="at least one run"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(UserError, match="is a folder; give the report a file name"):
        write_report([run], tmp_path)
    with pytest.raises(UserError, match="can't be written"):
        write_report([run], tmp_path / "run" / "run.jsonl" / "r.html")
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(UserError, match=r'pip install "entropilot\[report\]"'):
        write_report([run], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_draws_the_charts_and_runs_nothing_else(tmp_path: Path, make_run) -> None:
    runs = [make_run(tmp_path / str(i), name) for i, name in enumerate(EVIL)]
    out = write_report(runs, tmp_path / "r.html")
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom", out.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.count('class="scatterlayer mlayer"') == 4
    assert "CONSOLE" not in done.stderr, re.findall(".*CONSOLE.*", done.stderr)
    assert "<img" not in re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)


def test_meanings_are_drawn_where_a_run_has_them(tmp_path: Path, make_run) -> None:
    plain = make_run(tmp_path / "plain")
    run = make_run(tmp_path / "run")
    for row in run.rows:
        row |= {"semantic/entropy": 0.5, "semantic/entropy_groups": [0.2, 0.8], "semantic/unanswered": 0.1}
    _, drawn = parse(write_report([plain, run], tmp_path / "r.html"))
    assert list(drawn)[4:] == ["chart-semantic-entropy", "chart-semantic-unanswered"]
    assert [trace["legendgroup"] for trace in drawn["chart-semantic-entropy"]["data"]] == ["run1"]
