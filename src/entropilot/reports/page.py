"""One self-contained HTML page about one or several runs; it needs no network and trusts no file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from entropilot.errors import UserError
from entropilot.records import ACCURACY, ENTROPY, REWARD, Run
from entropilot.reports import figures, spans
from entropilot.reports.reading import facts, reading
from entropilot.reports.table import summarise, summary_table
from entropilot.reports.text import escape, labels

_PAPER = '<a href="https://arxiv.org/abs/2505.22617" rel="noreferrer">arXiv:2505.22617</a>'


def write_report(runs: Sequence[Run], out: str | Path, title: str | None = None) -> Path:
    """Write the report of some runs to one HTML file, which replaces an older one as a whole; return its path.

    Raises:
        UserError: there is no run, Plotly is missing, or the file can't be written.
    """
    if not runs:
        raise UserError("A report needs at least one run; give the folder that `entropilot train` wrote.")
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the report a file name, as {out / 'report.html'}.")
    text = render(runs, title)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(text, encoding="utf-8", newline="\n")
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror}); choose another file.") from error
    return out


def render(runs: Sequence[Run], title: str | None = None) -> str:
    """Return the page as text."""
    plotly = _plotly_js()
    names = labels(runs)
    summaries = [summarise(run) for run in runs]
    if title is None:
        title = f"Run {names[0]}" if len(runs) == 1 else f"{len(runs)} runs compared"
    charts = _charts(runs, names, summaries)
    drawn = {f"chart-{key}": figure for key, (figure, *_) in charts.items() if figure is not None}
    scripts = [plotly, _asset("page.js")]
    body = "\n".join(
        (
            f'<header><h1>{escape(title, 200)}</h1><p class="quiet">Entropy, held-out accuracy, and the law that '
            f"joins them ({_PAPER}).</p></header>",
            _section("Summary", _readings(runs, names, summaries)),
            _section("Results", _table(runs, summaries)),
            _section("Charts", _chart_cards(charts, names)),
            _section("Tokens", _tokens(runs, names)),
            _section(
                "How this was run", "".join(facts(run, name) for run, name in zip(runs, names, strict=True))
            ),
        )
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title, 200)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<main>
{body}
</main>
<output id="readout" aria-live="polite"></output>
<script type="application/json" id="figures">{_inline_json(drawn)}</script>
{"".join(f"<script>{script}</script>" for script in scripts)}
</body>
</html>
"""


def _plotly_js() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        message = 'A report needs Plotly, which is not installed; run pip install "entropilot[report]".'
        raise UserError(message) from error
    # A browser reads every line end as \n, and the page's policy names the script by the hash of that.
    return get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")


def _asset(name: str) -> str:
    return (
        resources.files("entropilot.reports").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")
    )


def _policy(scripts: Iterable[str]) -> str:
    """Return a policy under which only these scripts run and nothing is loaded, whatever a record smuggles in."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def _inline_json(value: Any) -> str:
    """Return JSON that can't end the <script> element, or begin a comment in it."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{heading}</h2>{body}</section>" if body else ""


def _key(i: int) -> str:
    """Return the mark of a run in the charts: its colour and its symbol."""
    colour, glyph = figures.glyph(i)
    return f'<span class="key" style="color:{colour}" aria-hidden="true">{glyph}</span>'


def _readings(runs: Sequence[Run], names: Sequence[str], summaries: Sequence[Mapping[str, Any]]) -> str:
    items = (
        f"<li>{_key(i)}<strong>{escape(name)}</strong>: {escape(reading(run, summary))}</li>"
        for i, (run, name, summary) in enumerate(zip(runs, names, summaries, strict=True))
    )
    return f'<ul class="reading">{"".join(items)}</ul>'


def _table(runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for i, (name, method, *cells) in enumerate(summary_table(runs, summaries)):
        numbers = "".join(
            f'<td class="text">{escape(cell)}</td>' if j == 8 else f"<td>{escape(cell)}</td>"
            for j, cell in enumerate(cells)
        )
        rows.append(
            f'<tr><th scope="row">{_key(i)}{escape(name)}</th><td class="text">{escape(method)}</td>{numbers}</tr>'
        )
    law = ("a", "b", "ceiling −a + b", "R²")
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of runs"><table>'
        "<caption>First and last recorded value; – means not recorded.</caption>"
        '<thead><tr><th scope="col" rowspan="2" class="text">run</th>'
        '<th scope="col" rowspan="2" class="text">method</th>'
        '<th scope="colgroup" colspan="2">held-out accuracy</th>'
        '<th scope="colgroup" colspan="2">policy entropy, nats</th>'
        '<th scope="colgroup" colspan="5">law R = −a·exp(H) + b</th>'
        '<th scope="col" rowspan="2">seconds</th></tr><tr>'
        + '<th scope="col">start</th><th scope="col">end</th>' * 2
        + "".join(f'<th scope="col">{heading}</th>' for heading in law)
        + f'<th scope="col" class="text">R is</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


Chart = tuple[figures.Figure | None, str, str]

# Drawn only where a run holds them: a reward that clusters the answers of a group.
_MEANING = {
    "semantic/entropy": (
        "nats",
        "Semantic entropy",
        "How undecided the policy is about the meaning of its answers, mean over the groups of a rollout.",
    ),
    "semantic/clusters": (
        "clusters",
        "Meanings per group",
        "Different answers among the completions of a prompt.",
    ),
    "semantic/filtered": (
        "share of groups",
        "Groups left out",
        "By the threshold on semantic entropy; they give no gradient.",
    ),
    "semantic/unanswered": (
        "share of completions",
        "Without an answer",
        "Completions from which no answer could be extracted.",
    ),
}


def _charts(
    runs: Sequence[Run], names: Sequence[str], summaries: Sequence[Mapping[str, Any]]
) -> dict[str, Chart]:
    """Return figure, heading and caption by key, in the order of the page."""
    meaning: dict[str, Chart] = {}
    for metric, (unit, heading, caption) in _MEANING.items():
        figure = figures.over_steps(runs, names, metric, unit)
        if figure is not None:
            meaning[metric.replace("/", "-")] = (figure, heading, caption)
    return {
        "entropy": (
            figures.over_steps(runs, names, ENTROPY, "nats"),
            "Policy entropy",
            "How undecided the policy is: at temperature 1 before each rollout's first update, or as the run's framework "
            "logs it.",
        ),
        "accuracy": (
            figures.over_steps(runs, names, ACCURACY, "accuracy"),
            "Held-out accuracy",
            "Share of right answers on problems that training never sees.",
        ),
        "law": (
            figures.law(runs, names, summaries),
            "The law: performance on entropy",
            "Training moves from right to left. A star at H = 0 is the ceiling, filled where the fit can be trusted; "
            "a dotted curve and an open star mark a fit that can't.",
        ),
        "reward": (
            figures.over_steps(runs, names, REWARD, "reward"),
            "Training reward",
            "Mean over each rollout, on the problems that are trained on.",
        ),
        **meaning,
    }


def _chart_cards(charts: Mapping[str, Chart], names: Sequence[str]) -> str:
    cards = []
    for key, (figure, heading, caption) in charts.items():
        if figure is None:
            drawing = '<p class="quiet">No data: no run has the values of this chart.</p>'
        else:
            drawing = f'<div id="chart-{key}" role="img" aria-label="{heading}, chart"></div>'
        cards.append(f"<figure><h3>{heading}</h3><figcaption>{caption}</figcaption>{drawing}</figure>")
    note = (
        "<noscript><p>The charts need JavaScript; the table above holds their start and end.</p></noscript>"
    )
    if len(names) > 1:
        buttons = (
            f'<li><button type="button" data-run="run{i}" aria-pressed="true">{_key(i)}{escape(name)}</button></li>'
            for i, name in enumerate(names)
        )
        note += f'<ul class="runs" aria-label="Runs shown in the charts">{"".join(buttons)}</ul>'
    return f'{note}<div class="charts">{"".join(cards)}</div>'


def _tokens(runs: Sequence[Run], names: Sequence[str]) -> str:
    found = ""
    for run, name in zip(runs, names, strict=True):
        found += spans.token_section(run, name, unfolded=not found)
    if not found:
        return ""
    return f'<p class="quiet">Point at a token, or tap it, for its numbers.</p>{spans.legend()}{found}'
