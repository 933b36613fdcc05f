"""The page of runs of every kind, and of hostile ones, in a real browser: `make test-browser`."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
from browsing import HOSTILE, rich_run, wait

from entropilot.records import RecordWarning, Run, RunWriter, read_run, write_tokens
from entropilot.reports.page.build import Options
from entropilot.reports.page.write import write_report

pytestmark = pytest.mark.browser


def test_hostile_texts_do_nothing(visit, tmp_path: Path) -> None:
    runs = []
    for i, text in enumerate(HOSTILE):
        clean = text.encode("utf-8", "replace").decode()
        metric = text or "x"
        # The entropy of this run is under a hostile name, so that the findings on its collapse name it.
        header = {"name": text, "recipe": {"method": text, "method_args": {text: text}}}
        header |= {"columns": {"entropy": metric}, "metrics": {metric: {"unit": text, "definition": text}}}
        writer = RunWriter(tmp_path / str(i), header)
        for step in range(1, 41):
            writer.row(step, {metric: math.exp(-step / 4), "reward/mean": 0.5})
        writer.end(text)
        writer.close()
        columns: dict[str, Any] = {
            "step": [1],
            "prompt": [clean],
            "prompt_id": [clean],
            "role": [clean],
            "reward": [1.0],
            "tokens": [[clean, "y" * 1_000_000 if i == 0 else clean]],
        }
        columns |= {"entropy": [[0.1, 0.2]], "covariance": [[0.1, -0.1]], "answer": [clean], "cluster": [0]}
        write_tokens(tmp_path / str(i), 1, columns)
        runs.append(read_run(tmp_path / str(i)))
    page = visit(write_report(runs, tmp_path / "r.html", Options(title=HOSTILE[0])).as_uri())
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None
    tags = ("SCRIPT", "IFRAME", "IMG", "OBJECT", "FORM", "BASE", "LINK", "TEMPLATE")
    counts = page.evaluate(
        "tags => Object.fromEntries(tags.map(t => [t, document.querySelectorAll(t).length]))", list(tags)
    )
    assert counts == dict.fromkeys(tags, 0) | {"SCRIPT": 3}
    assert page.text_content("h1") == HOSTILE[0]
    findings = page.text_content("#findings")
    assert sum(text in findings for text in HOSTILE if text.startswith("<")) >= 10, "findings name the metric"
    # Every payload is searched, opened and shown, and still does nothing.
    for text in ("<script>", "onerror", "__proto__", "evil"):
        page.fill("#roll-text", text)
        page.locator(".rows button").first.click()
    page.fill("#metric-search", "<img")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None


def written(folder: Path, kind: str) -> list[Run]:
    """Write the runs of a kind."""
    if kind == "50 runs":
        return [
            rich_run(folder / str(i), f"run {i}", "kl_cov" if i % 2 else "none", i, steps=20)
            for i in range(50)
        ]
    writer = RunWriter(folder / "run", {"name": kind})
    count = {"one step": 1, "nothing": 0}.get(kind, 40)
    for step in range(1, count + 1):
        row = {"entropy/policy_T1": 1.0 / step, "reward/mean": 0.5}
        if kind == "NaN":
            row = {
                "entropy/policy_T1": math.nan if step > 20 else 1.0,
                "reward/mean": math.inf,
                "loss": math.nan,
            }
        if kind == "collapsed":
            row = {"entropy/policy_T1": math.exp(-step / 3), "validation/accuracy": 0.7 - 0.5 * (step > 20)}
        if kind == "no entropy":
            row = {"reward/mean": 0.5 + 0.01 * step}
        if not (kind == "gaps" and 15 < step < 25):
            writer.row(step, row)
    writer.close()
    if kind == "torn":
        with (folder / "run" / "run.jsonl").open("a") as file:
            file.write('{"step": 41, "entr')
    return [read_run(folder / "run")]


@pytest.mark.parametrize(
    ("kind", "section", "line"),
    [
        ("one step", "#law", "No data: no run holds entropy and a performance measured at the same steps, three times"),
        ("nothing", "#charts", "Entropy was not recorded, so the law and the forecast are missing here"),
        ("no tokens", "#rollouts-view", "No data: no completions were sampled."),
        ("no tokens", "#words-view", "No data: no sample holds a covariance per token."),
        ("no tokens", "#compare-view", "No data: no completions were sampled."),
        ("gaps", "#charts", "Held-out accuracy: no data. It needs the metric validation/accuracy, which no run holds."),
        ("torn", "#summary", "The record has no end: the run was killed, or still goes on."),
        ("NaN", "#charts", "Training reward: no data."),
        ("no entropy", "#summary", "Entropy was not recorded."),
        ("collapsed", "#summary", "it fell by 0.500 after that"),
        ("50 runs", "#summary", "kl_cov: 25 runs; at the end entropy"),
    ],
)  # fmt: skip
def test_runs_of_every_kind_make_a_page(visit, tmp_path: Path, kind: str, section: str, line: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordWarning)  # of the torn line
        runs = written(tmp_path, kind)
    page = visit(write_report(runs, tmp_path / "r.html").as_uri())
    assert line in " ".join(page.text_content(section).split())
    if kind == "gaps":
        column = page.evaluate("[...page.charts].find(c => c.plot).drawn.columns[0].map(v => v === null)")
        assert sum(column) == 1
    if kind == "50 runs":
        assert page.locator("#legend button").count() == 2 and page.locator("#charts canvas").count() == 3
    if kind == "collapsed":
        link = page.locator("#findings a").first
        link.focus()
        page.keyboard.press("Enter")
        step = int(link.get_attribute("data-step"))
        at = page.evaluate(
            "(() => { const c = [...page.charts].find(c => c.plot); return c.drawn.x[c.plot.cursor.idx]; })()"
        )
        assert at == step, "the charts' cursor stands at the step of the finding"


def test_sections_of_runs_without_labels_of_loss_and_of_control(visit, tmp_path: Path) -> None:
    def run(name: str, rows: list[dict[str, float]]) -> Run:
        writer = RunWriter(tmp_path / name, {"name": name})
        for step, row in enumerate(rows, start=1):
            writer.row(step, row)
        writer.end("finished")
        writer.close()
        return read_run(tmp_path / name)

    several = {f"semantic/{reward}/entropy": 0.5 for reward in ("empo", "<b>majority")}
    runs = [
        run("label-free", [several | {"semantic/empo/flip_rate": 0.1 * step} for step in range(9)]),
        run("em", [{"entropy_min/loss": 1.0 / (1 + step)} for step in range(9)]),
        run("ppl", [{"success": 0.1 * step, "loss": 1.0 - 0.1 * step} for step in range(9)]),
    ]
    result = {"model": "m", "data": "d", "temperature": 1.0, "avg@8": 0.5, "intervals": {"avg@8": [0.4, 0.6]}}
    result |= {f"pass@{k}": 0.4 + 0.05 * k for k in (1, 2, 4, 8)}
    options = Options(evaluations=[{"results": [result]}])
    page = visit(write_report(runs, tmp_path / "r.html", options).as_uri())
    headings = page.locator("#label-free h3").all_text_contents()
    assert headings == ["Semantic entropy: <b>majority", "Semantic entropy: empo", "Flip rate: empo"]
    told = page.text_content("#label-free")
    assert "Accuracy of the majority: no data. It needs problems with answers." in told
    assert "Flip rate: no data" not in told
    for section, count in (("label-free", 3), ("entropy-min", 1), ("control", 2)):
        page.locator(f"#{section}").scroll_into_view_if_needed()
        assert page.locator(f"#{section} canvas").count() == count, section
    assert page.locator("#evaluation svg circle").count() == 4
    assert "0.400" in page.text_content("#evaluation table")


def test_a_search_finds_what_tokens_only_hold_together(visit, tmp_path: Path) -> None:
    """Words within a token, over two and over many, at the ends, and not where they only nearly stand."""
    writer = RunWriter(tmp_path / "run", {"name": "search"})
    writer.row(1, {"entropy/policy_T1": 1.0})
    writer.close()
    tokens = [
        ["the", " answ", "er", " is", " 4", "7", "."],
        ["a", "", "n", "s", "w", "e", "R"],
        ["aaab"],
        ["ans", "war"],
    ]
    texts = ["".join(row) for row in tokens]
    columns = {
        "step": [1] * 4,
        "prompt": [f"Prompt {i}" for i in range(4)],
        "tokens": tokens,
        "completion": texts,
    }
    columns |= {"entropy": [[0.1] * len(row) for row in tokens], "reward": [0.0] * 4}
    write_tokens(tmp_path / "run", 1, columns)
    page = visit(write_report([read_run(tmp_path / "run")], tmp_path / "r.html").as_uri())
    searched = (
        "answer",
        "ANSWER",
        "47.",
        "s 47",
        "the a",
        "aab",
        "aaab",
        "war",
        "answa",
        "prompt 2",
        "er is 47",
    )
    for words in (*searched, "xyz", "w", "."):
        page.fill("#roll-text", words)
        expected = [
            i
            for i, text in enumerate(texts)
            if words.lower() in text.lower() or words.lower() in f"prompt {i}"
        ]
        assert page.evaluate("Array.from(page.rollouts.rows)") == expected, words
    page.fill("#roll-text", "")
    wait(page, "page.rollouts.rows.length === 4")
