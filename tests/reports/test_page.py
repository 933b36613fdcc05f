"""The page: one file, unplugged, and nothing in a record becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from entropilot.errors import UserError
from entropilot.records import Run, RunWriter, read_run
from entropilot.reports.page.build import Options, describe, render
from entropilot.reports.page.packing import Packer
from entropilot.reports.page.sentences import course, sentences
from entropilot.reports.page.sources import open_source
from entropilot.reports.page.write import write_report
from entropilot.reports.table import summarise

pytest.importorskip("jinja2")

EVIL = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\"'><b>&amp;{{ 7*7 }}{% for %}",
    "$\\alpha$ \ud800\x00",
    "]]><!--",
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
        if tag not in ("meta", "input"):
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.said += data


def unpacked(text: str) -> tuple[dict, bytes]:
    """Read the packed data as assets/data.js does: a witness that shares no code with the packer."""
    raw = zlib.decompress(base64.b64decode(text))
    length = int.from_bytes(raw[:4], "little")
    return json.loads(raw[4 : 4 + length]), raw[(4 + length + 7) // 8 * 8 :]


def column(body: bytes, ref: dict) -> np.ndarray:
    kind = {"f4": "<f4", "u4": "<u4", "u2": "<u2", "u1": "u1"}[ref["type"]]
    return np.frombuffer(body, dtype=kind, count=ref["n"], offset=ref["at"])


def parse(path: Path) -> tuple[Page, dict, bytes]:
    page = Page(path.read_text(encoding="utf-8"))
    return page, *unpacked(page.scripts[0])


def test_one_page_that_needs_no_network(tmp_path: Path, make_run) -> None:
    run = make_run(tmp_path / "run")
    out = write_report([run], tmp_path / "new" / "report.html")
    assert out == tmp_path / "new" / "report.html"
    assert [entry.name for entry in out.parent.iterdir()] == ["report.html"]
    assert out.stat().st_size < 1_500_000
    page, data, _ = parse(out)
    assert len(page.scripts) == 3 and data["groups"] == ["demo"]
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert ("html", {"lang": "en"}) in page.tags
    assert "Run demo" in page.said
    drawn = [a["data-metric"] for _, a in page.tags if "data-metric" in a]
    assert drawn == ["entropy/policy_T1", "validation/accuracy", "reward/mean"]
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")


def test_only_the_page_s_own_scripts_may_run(tmp_path: Path, make_run) -> None:
    page, _, _ = parse(write_report([make_run(tmp_path / "run")], tmp_path / "r.html"))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "unsafe-inline" not in policy.split(";")[1]
    assert "connect-src 'none'" in policy
    live = Page(render([make_run(tmp_path / "b")], live=True))
    own = next(a["content"] for tag, a in live.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "connect-src 'self'" in own and len(live.scripts) == 2  # the data come from the server
    for script in page.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
        assert "\r" not in script


@pytest.mark.parametrize("name", EVIL)
def test_names_and_texts_from_files_stay_text(tmp_path: Path, make_run, name: str) -> None:
    runs = [make_run(tmp_path / "a", name), make_run(tmp_path / "b", "calm", tokens=False)]
    plain, _, _ = parse(write_report([make_run(tmp_path / "c", "x"), runs[1]], tmp_path / "plain.html"))
    page, data, _ = parse(write_report(runs, tmp_path / "evil.html", Options(title=name)))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]  # no tag more than a harmless name
    shown = name.replace("\ud800", "\ufffd").replace("\x00", "\ufffd")
    assert page.said.count(shown) > 4
    assert data["runs"][0]["name"] == shown and shown in data["metrics"]


def test_the_data_holds_every_number_of_a_run(tmp_path: Path, make_run) -> None:
    run = make_run(tmp_path / "run")
    _, data, body = parse(write_report([run], tmp_path / "r.html"))
    (packed,) = data["runs"]
    assert column(body, packed["steps"]).tolist() == [row["step"] for row in run.rows]
    accuracy = column(body, packed["metrics"]["validation/accuracy"])
    assert accuracy == pytest.approx([row["validation/accuracy"] for row in run.rows], rel=1e-6)
    entropy = column(body, packed["metrics"]["entropy/policy_T1"])
    assert np.isnan(entropy[-1]) and entropy[0] == pytest.approx(1.15)  # the last row measured accuracy alone
    points = {key: column(body, ref) for key, ref in packed["points"].items()}
    assert points["step"].tolist() == list(range(1, 21)) and points["h"][-1] == pytest.approx(0.2)
    assert data["metrics"]["entropy/policy_T1"] == {"unit": "nats", "definition": "Eq. 5 demo"}


@pytest.mark.parametrize(("copies", "levels"), [(1, 65_535), (40_000, 1_023)])
def test_levels_are_fine_near_zero_and_keep_signs_and_gaps(copies: int, levels: int) -> None:
    values = np.tile([0.0, 1e-3, -0.5, 2.0, np.nan, -2.0], copies)
    packer = Packer()
    ref = packer.levels(values)
    (_, body) = unpacked(packer.text({}))
    level = column(body, ref)[:6].astype(float)
    assert ref["signed"] and ref["gaps"] and ref["max"] == 2.0 and ref["levels"] == levels and level[4] == 0
    share = 2 * (level - 1) / (levels - 1) - 1
    back = np.sign(share) * share**2 * 2.0
    # The share is off by 1/(levels − 1) at most, so x = 2·share² by 4·sqrt(|x|/2)/(levels − 1) and the square of it.
    room = 4 * np.sqrt(np.abs(values[:6]) / 2) / (levels - 1) + 4 / (levels - 1) ** 2
    assert (np.abs(back - values[:6]) <= room)[[0, 1, 2, 3, 5]].all()
    ref = packer.levels(np.array([0.25, 1.0]))
    assert not ref["signed"] and not ref["gaps"]
    (_, body) = unpacked(packer.text({}))
    assert column(body, ref).tolist() == [round(0.5 * 65_535), 65_535]


def test_a_collapse_is_told_from_its_peak(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {"name": "fallen"})
    accuracies = [0.655, 0.7, 0.75, 0.75, 0.74, 0.5, 0.3, 0.2]
    for step, accuracy in enumerate(accuracies, start=1):
        writer.row(step * 10, {"validation/accuracy": accuracy, "entropy/policy_T1": 1.0 / step})
    writer.end("finished")
    writer.close()
    run = read_run(tmp_path / "run")
    text = " ".join(sentences(run, summarise(run)))
    assert "fell from 0.655 to 0.200; its peak was 0.750 at step 30, and it fell by 0.550 after that." in text
    assert text.startswith("Entropy fell from 1.000 to 0.125 nats")
    assert (
        Page(render([run])).said.count("Entropy measures how undecided the model is about its next word:")
        == 1
    )
    assert "(−88 %) in 70 updates." in text


def test_noise_makes_no_peak() -> None:
    rng = np.random.default_rng(0)
    values = np.linspace(0, 1, 200) + 0.05 * rng.standard_normal(200)
    values[20] += 3.0  # one odd measurement
    went = course(range(200), values.tolist())
    # Means over ten neighbours: the odd one adds 0.3 at x = 0.1, the end stands at 0.98.
    assert went is not None and went.peak_step > 180 and 0.9 < went.peak < 1.1


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    bare = Run(tmp_path, {"end": None, "name": "bare"}, [{"step": 3, "loss": 0.5}])
    page = Page(render([bare]))
    assert "Entropy was not recorded, so the law and the forecast are missing here" in page.said
    assert "Held-out accuracy: no data." in page.said and "Training reward: no data." in page.said
    assert "The record has no end: the run was killed, or still goes on." in page.said
    foreign = Run(
        tmp_path, {"name": "f", "framework": "trl"}, [{"step": s, "entropy": 1.0 / s} for s in (1, 2)]
    )
    page = Page(render([foreign]))
    assert "policy entropy was not recorded" in page.said and "still goes on" not in page.said
    assert [a["data-metric"] for _, a in page.tags if "data-metric" in a] == ["entropy"]


def test_headers_and_rows_of_any_shape_leave_a_page(tmp_path: Path) -> None:
    for junk in (None, [], "words", 3, {"a": {"b": []}}):
        header = dict.fromkeys(
            ("name", "recipe", "clip", "metrics", "versions", "end", "commit", "columns"), junk
        )
        rows = [{"step": 1, "entropy/policy_T1": junk, "validation/accuracy": junk, "x": 10**400}]
        page = Page(render([Run(tmp_path, header, rows)]))
        assert "How this was run" in page.said
    with_nan = [{"step": s, "entropy/policy_T1": math.nan, "reward/mean": math.inf} for s in (1, 2, 3)]
    assert "no data" in Page(render([Run(tmp_path, {}, with_nan)])).said
    assert "Summary" in Page(render([Run(tmp_path, {}, [])])).said


@pytest.mark.slow(seconds=15)
def test_fifty_runs_are_grouped_and_described_by_group(tmp_path: Path, make_run) -> None:
    runs = [make_run(tmp_path / str(i), "kl_cov" if i % 2 else "grpo", tokens=False) for i in range(50)]
    page = describe(runs, Options())
    assert page.document["groups"] == ["grpo", "kl_cov"] and page.words["bands"]
    assert [item["name"] for item in page.words["readings"]] == ["", "grpo", "kl_cov"]
    assert page.words["readings"][1]["text"].startswith("25 runs; at the end entropy 0.200 ± 0.000 nats")
    by_model = describe(runs, Options(group_by="method_args.kl_cov"))
    assert by_model.document["groups"] == ["method_args.kl_cov = not set", "method_args.kl_cov = kl_cov"]
    with pytest.raises(UserError, match="--group-by grpo.beta: no run has this key"):
        describe(runs, Options(group_by="grpo.beta"))


def test_runs_are_paired_with_controls_by_seed(tmp_path: Path) -> None:
    def run(name: str, seed: int, accuracy: float) -> Run:
        header = {"name": name, "recipe": {"seed": seed, "method": name}}
        return Run(tmp_path, header, [{"step": 1, "validation/accuracy": accuracy, "entropy/policy_T1": 0.5}])

    treated = [run("a", 1, 0.50), run("a", 2, 0.70), run("a", 3, 0.90)]
    control = [run("c", 3, 0.70), run("c", 1, 0.40), run("c", 2, 0.60)]
    table = describe([*treated, *control], Options(controls=3)).words["comparison"]
    # Differences 0.1, 0.1, 0.2: mean 0.1333; sd 0.05774; half 4.3027 · 0.05774 / sqrt(3) = 0.1434.
    assert table["rows"][0][1:] == ["0.700 ± 0.497", "0.567 ± 0.379", "+0.133 ± 0.143"]
    assert "Paired by seed (1, 2, 3)." in table["caption"]
    unpaired = describe([*treated, run("c", 7, 0.7)], Options(controls=1)).words["comparison"]
    assert unpaired["rows"][0][3] == "–" and "Not paired" in unpaired["caption"]
    with pytest.raises(UserError, match="--against needs at least one run"):
        describe(control, Options(controls=3))


def test_each_run_is_forecast_from_its_first_part(tmp_path: Path, make_run) -> None:
    page = describe([make_run(tmp_path / "a", tokens=False)], Options())
    (row,) = page.words["forecasts"]["rows"]
    # The first 30 % are steps 1 to 7, and "no change" is the mean of their last three values.
    last = [0.8 - 0.2 * math.exp(1.2 - 0.05 * step) + 0.01 * (-1) ** step for step in (5, 6, 7)]
    assert row[:3] == ["demo", "validation/accuracy", "0.610"] and row[3].startswith(f"{sum(last) / 3:.3f} (")
    fan = page.document["runs"][0]["forecast"]["validation/accuracy"]
    assert fan["from"] == 7.0 and fan["to"] == 21.0 and fan["low"] < last[2] == pytest.approx(fan["start"])
    short = Run(tmp_path, {}, [{"step": 1, "entropy/policy_T1": 0.5, "reward/mean": 0.1}])
    assert describe([short], Options()).words["forecasts"]["rows"][0][5].startswith("no forecast: ")


def console(validated: int) -> str:
    """Return 100 steps of verl's console, with a validation every so many."""
    lines = []
    for step in range(1, 101):
        cells = f"actor/entropy:{1.5 - step / 100} - critic/score/mean:{0.2 + step / 500}"
        cells += f" - val-core/math/acc/mean@8:{0.3 + step / 400}" if step % validated == 0 else ""
        lines.append(f"step:{step} - {cells}\n")
    return "".join(lines)


def test_a_forecast_falls_back_to_the_training_reward(tmp_path: Path) -> None:
    """30 steps hold one validation of 20; the rewards of steps 28 to 30 are 0.256, 0.258, 0.260, and that of 100 0.4."""
    (tmp_path / "train.log").write_text(console(20))
    source = open_source(tmp_path / "train.log")
    assert source.run is not None
    page = describe([source.run], Options())
    (row,) = page.words["forecasts"]["rows"]
    assert row[1:3] == ["critic/score/mean", "0.400"] and row[3].startswith("0.258 (")
    assert "holds 1 value of validation/accuracy" in row[5] and "this forecasts the training reward" in row[5]
    assert list(page.document["runs"][0]["forecast"]) == ["critic/score/mean"]
    named = open_source(tmp_path / "train.log", performance="val-core/math/acc/mean@8").run
    assert named is not None  # a metric that was asked for is kept
    assert describe([named], Options()).words["forecasts"]["rows"][0][1] == "validation/accuracy"


def test_groups_have_a_forecast_each(tmp_path: Path, make_run) -> None:
    """Two runs of one method and one of another; a row per method, with means and the count of ends within."""
    runs = [make_run(tmp_path / str(i), name, tokens=False) for i, name in enumerate(("x", "x", "y"))]
    page = describe(runs, Options(group_by="method"))
    singles = [describe([run], Options()).words["forecasts"]["rows"][0] for run in runs]
    first, second = page.words["forecasts"]["rows"]
    assert (
        first[:4] == ["x", "2 of 2", "validation/accuracy", "0.610"] and first[4] == singles[0][3].split()[0]
    )
    low, high = (float(end) for end in singles[0][3].split("(")[1].rstrip(")").split(" to "))
    assert first[5] == ("2 of 2" if low <= 0.61 <= high else "0 of 2") and second[1] == "1 of 1"
    assert all(run["forecast"] == {} for run in page.document["runs"])


def test_a_log_without_an_entropy_has_a_page_of_everything_else(tmp_path: Path) -> None:
    lines = console(10).replace("actor/entropy", "actor/grad_norm")
    (tmp_path / "train.log").write_text(lines)
    source = open_source(tmp_path / "train.log")
    assert source.run is not None and "The log has no entropy; what needs one is left out." in source.lines
    page = Page(render([source.run]))
    assert "Entropy was not recorded, so the law and the forecast are missing here" in page.said
    assert [a["data-metric"] for _, a in page.tags if "data-metric" in a][:1] == ["validation/accuracy"]
    assert "no fit: entropy was not recorded" in page.said.lower()


def test_findings_are_those_of_diagnose_and_stand_on_the_charts(tmp_path: Path) -> None:
    from entropilot.law.findings.find import find
    from entropilot.law.findings.signals import Signals

    def rows(peak: float) -> list[dict]:
        up = [{"step": s, "entropy/policy_T1": 1.0 / s, "reward/mean": peak * s / 50} for s in range(1, 51)]
        return up + [{"step": s, "entropy/policy_T1": 0.02, "reward/mean": 0.05} for s in range(51, 101)]

    run = Run(tmp_path, {"name": "fallen <b>"}, rows(0.8))
    told = [finding.name for finding in find(Signals(run))]
    assert told, "a reward that falls to nothing is found"
    page = describe([run], Options())
    assert sorted(f["title"] for f in page.words["findings"]) == sorted(told)
    assert [f["step"] for f in page.document["findings"]] == [f["step"] for f in page.words["findings"]]
    shown = Page(render([run]))
    links = [a["data-step"] for tag, a in shown.tags if tag == "a" and "data-step" in a]
    assert links == [str(f["step"]) for f in page.words["findings"]] and "What to try:" in shown.said
    calm = Run(tmp_path, {"name": "calm"}, rows(0.8)[:50])
    if not find(Signals(calm)):
        assert "None: no sign of a problem" in Page(render([calm])).said


def test_facts_of_the_header(tmp_path: Path, make_run) -> None:
    page, _, _ = parse(write_report([make_run(tmp_path / "run")], tmp_path / "r.html"))
    assert "low 0.2, high none (set by the method)" in page.said
    assert 'demo = "demo"' in page.said and "Eq. 5 demo" in page.said and "numpy" in page.said


def test_results_of_evaluate_have_a_section(tmp_path: Path) -> None:
    result = {"model": "m<b>", "data": "d", "temperature": 1.0, "accuracy": 0.5, "pass@1": 0.5, "pass@8": 0.9}
    result["intervals"] = {"accuracy": [0.4, 0.6], "pass@1": [0.4, 0.6], "pass@8": [0.8, 0.95]}
    compared = {"base": "m", "other": "n", "accuracy": 0.1, "interval": [0.05, 0.15]}
    document = {"results": [result], "comparisons": [compared]}
    page = Page(render([], Options(evaluations=[document])))
    assert "m<b>, d, T = 1.0" in page.said and "0.050 to 0.150" in page.said
    circles = [a for tag, a in page.tags if tag == "circle"]
    # The axis is logarithmic from k = 1 at x = 46 to k = 8 at 548; y = 10 + 254·(1 − value).
    assert [(c["cx"], c["cy"]) for c in circles] == [("46.0", "137.0"), ("548.0", "35.4")]


def test_an_older_report_is_replaced_as_a_whole(
    tmp_path: Path, make_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, run = tmp_path / "r.html", make_run(tmp_path / "run")
    out.write_text("older")

    def fails(*_args) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        patch.setattr("os.replace", fails)
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
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match=r'pip install "entropilot\[report\]"'):
        write_report([run], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_the_page_is_made_of_its_parts(tmp_path: Path, make_run) -> None:
    text = render([make_run(tmp_path / "run")])
    assert "uPlot (v1.6.32)" in text and "{{" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
