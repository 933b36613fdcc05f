"""Assemble the page: what is said about the runs, the packed data, the template, and the policy of what may run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from entropilot.analysis.seeds import cell
from entropilot.errors import UserError
from entropilot.records import ACCURACY, ENTROPY, REWARD, Run
from entropilot.reports.facts import facts
from entropilot.reports.page import groups as grouping
from entropilot.reports.page.compare import comparison
from entropilot.reports.page.findings import findings_of
from entropilot.reports.page.forecasts import forecasts_of
from entropilot.reports.page.packing import Packer
from entropilot.reports.page.rollouts import Samples, pack_samples, samples_of
from entropilot.reports.page.sentences import ENTROPY_IS, sentences
from entropilot.reports.page.series import columns_of, definitions_of, pack_series
from entropilot.reports.page.special import specials_of
from entropilot.reports.table import HEADINGS, LEGEND, entropy_name, summarise, summary_table
from entropilot.reports.text import clean, labels

SCRIPTS = (
    "base",
    "data",
    "charts",
    "law",
    "tokens",
    "search",
    "rollouts",
    "words",
    "compare",
    "metrics",
    "live",
    "main",
)
SECTIONS = [
    ("summary", "Summary"),
    ("charts", "Charts"),
    ("law", "Accuracy against entropy"),
    ("rollouts", "Rollouts"),
    ("words", "Words"),
    ("compare", "Before and after"),
    ("metrics", "All metrics"),
    ("setup", "How this was run"),
]
# (metrics, of which the first that some run holds is shown; heading; caption)
MAIN_CHARTS = (
    (
        ENTROPY,
        "Entropy",
        "How undecided the model is about its next word, at temperature 1, before each rollout's first update. "
        "Near 0 it gives the same answer again and again.",
    ),
    (ACCURACY, "Held-out accuracy", "Share of right answers on problems that training never sees."),
    (
        REWARD,
        "Training reward",
        "Mean score of the completions that are trained on, one point for each rollout. Most rewards are 1 for a right "
        "answer and 0 for a wrong one.",
    ),
)
MOST_READINGS = 12  # runs described one by one; of more, a page says how each group went


@dataclass(frozen=True)
class Options:
    """Hold what a reader asked for.

    Attributes:
        title: of the page; None makes one from the runs.
        group_by: `method`, a dotted key of the recipe, or None: every run by itself, or by method where there are
            more than eight.
        controls: how many of the last runs are controls, to which the others are compared.
        evaluations: summaries that `entropilot evaluate` wrote.
    """

    title: str | None = None
    group_by: str | None = None
    controls: int = 0
    evaluations: Sequence[Mapping[str, Any]] = ()


def render(runs: Sequence[Run], options: Options = Options(), *, live: bool = False) -> str:  # noqa: B008  # frozen
    """Return the page as text; a live page holds no data and asks its server for it."""
    page = describe(runs, options)
    scripts = [_asset("uPlot.iife.min.js"), _own_script()]
    policy = _policy(scripts, live)
    return _template().render(
        **page.words,
        live=live,
        policy=policy,
        style=_asset("uPlot.min.css") + "\n" + _asset("page.css"),
        scripts=scripts,
        data="" if live else page.packer.text(page.document),
    )


@dataclass
class Description:
    """Hold the words of the template, and the data of the scripts."""

    words: dict[str, Any]
    document: dict[str, Any]
    packer: Packer


def describe(runs: Sequence[Run], options: Options) -> Description:
    """Return everything that a page says and shows of some runs."""
    names = labels(runs)
    by = options.group_by or ("method" if len(runs) > 8 and _methods(runs) > 1 else None)
    run_groups = grouping.group_names(runs, by) if by else names
    group_list = list(dict.fromkeys(run_groups))
    summaries = [summarise(run) for run in runs]
    samples = [samples_of(run) for run in runs]
    packer = Packer()
    packed = []
    for run, name, group, summary in zip(runs, names, run_groups, summaries, strict=True):
        steps, values = columns_of(run)
        points = _points(run, summary, steps, values, packer)
        entry = {"name": name, "group": group, "law": _law(summary), "points": points}
        packed.append(pack_series(steps, values, packer) | entry)
    findings = findings_of(runs, names, options.controls)
    forecasts = forecasts_of(runs, names, run_groups)
    for entry, fan in zip(packed, forecasts.fans, strict=True):
        entry["forecast"] = fan
    specials = specials_of(runs, options.evaluations)
    document = {
        "runs": packed,
        "groups": group_list,
        "metrics": definitions_of(runs),
        "findings": [{"run": f["run"], "step": f["step"]} for f in findings],
        "rollouts": pack_samples(samples, packer),
    }
    charts, missing = _charts(runs)
    sections = list(SECTIONS)
    sections[6:6] = [(special.id, special.heading) for special in specials]
    title = options.title or (f"Run {names[0]}" if len(runs) == 1 else f"{len(runs)} runs compared")
    words = {
        "title": clean(title, 200),
        "sections": sections,
        "readings": _readings(runs, names, summaries, run_groups, group_list),
        "findings": findings,
        "legend": LEGEND,
        "headings": HEADINGS,
        "text_columns": (0, 1, 10),
        "table": [[clean(cell, 200) for cell in row] for row in summary_table(runs, summaries)],
        "comparison": comparison(runs, options.controls) if options.controls else None,
        "charts": charts,
        "missing": missing,
        "bands": len(group_list) < len(runs),
        "forecasts": forecasts.table,
        "sample_notes": _sample_notes(samples, names),
        "specials": specials,
        "setup": "".join(facts(run, name) for run, name in zip(runs, names, strict=True)),
    }
    return Description(words, document, packer)


def _methods(runs: Sequence[Run]) -> int:
    return len(set(grouping.group_names(runs, "method")))


def _law(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    if summary["performance"] is None:
        return None
    ceiling = summary["ceiling"] if summary["has_ceiling"] else None
    low, high = summary.get("ceiling_interval") or (None, None)
    return {
        "performance": summary["performance"],
        "words": {ACCURACY: "held-out accuracy", REWARD: "training reward"}.get(
            summary["performance"], summary["performance"]
        ),
        "ceiling": ceiling,
        "low": _finite(low) if ceiling is not None else None,
        "high": _finite(high) if ceiling is not None else None,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _points(
    run: Run,
    summary: Mapping[str, Any],
    steps: Sequence[int],
    values: Mapping[str, np.ndarray],
    packer: Packer,
) -> dict[str, Any] | None:
    """Return (step, H, R) where both were measured, in order of step."""
    performance, entropy = summary["performance"], entropy_name(run)
    if performance is None or entropy is None:
        return None
    if performance not in values or entropy not in values:
        return None
    both = np.isfinite(values[entropy]) & np.isfinite(values[performance])
    return {
        "step": packer.column(np.asarray(steps)[both], "f4"),
        "h": packer.column(values[entropy][both], "f4"),
        "r": packer.column(values[performance][both], "f4"),
    }


def _readings(
    runs: Sequence[Run],
    names: Sequence[str],
    summaries: Sequence[Mapping[str, Any]],
    run_groups: Sequence[str],
    group_list: Sequence[str],
) -> list[dict[str, str]]:
    said = [{"name": "", "text": ENTROPY_IS}]
    if len(runs) <= MOST_READINGS and len(group_list) == len(runs):
        return said + [
            {"name": name if len(runs) > 1 else "", "text": clean(" ".join(sentences(run, summary)))}
            for run, name, summary in zip(runs, names, summaries, strict=True)
        ]
    for group in group_list:
        members = [summary for summary, own in zip(summaries, run_groups, strict=True) if own == group]
        said.append({"name": clean(group, 100), "text": _group_sentence(members)})
    return said


def _group_sentence(members: Sequence[Mapping[str, Any]]) -> str:
    count = f"{len(members)} run{'' if len(members) == 1 else 's'}"
    entropy = cell([m["entropy_end"] for m in members])
    accuracy = cell([m["accuracy_end"] for m in members])
    return f"{count}; at the end entropy {entropy} nats, held-out accuracy {accuracy} (mean ± half of the 95 % t interval)."


def _charts(runs: Sequence[Run]) -> tuple[list[dict[str, str]], list[str]]:
    """Return the charts that some run has values for, and a line for each that none has."""
    charts, missing = [], []
    for metric, heading, caption in MAIN_CHARTS:
        if any(row.get(metric) is not None for run in runs for row in run.rows):
            charts.append({"metric": metric, "heading": heading, "caption": caption})
            continue
        other = (
            next((name for run in runs if (name := entropy_name(run))), None) if metric == ENTROPY else None
        )
        if other is not None:
            charts.append(
                {
                    "metric": clean(other, 200),
                    "heading": "Training entropy",
                    "caption": "How undecided the model is about its next word, as the framework logs it while it "
                    "trains; policy entropy was not recorded.",
                }
            )
        elif metric == ENTROPY:
            missing.append(
                "Entropy was not recorded, so the law and the forecast are missing here; everything else is shown. "
                "`entropilot fit` says how to log it."
            )
        else:
            missing.append(f"{heading}: no data. It needs the metric {metric}, which no run holds.")
    return charts, missing


def _sample_notes(samples: Sequence[Samples], names: Sequence[str]) -> list[str]:
    return [
        clean(f"{name}: {note}" if len(names) > 1 else note, 400)
        for part, name in zip(samples, names, strict=True)
        for note in part.notes[:5]
    ]


def _template() -> Any:
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise UserError(
            'A report needs Jinja2, which is not installed; run pip install "entropilot[report]".'
        ) from error
    environment = Environment(autoescape=True, trim_blocks=False, keep_trailing_newline=True)
    return environment.from_string(_asset("page.html.jinja"))


def _asset(name: str) -> str:
    folder = resources.files("entropilot.reports.page").joinpath("assets")
    return folder.joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _own_script() -> str:
    body = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}}})();\n'


def _policy(scripts: Iterable[str], live: bool) -> str:
    """Return a policy under which only these scripts run and nothing is loaded, whatever a record smuggles in."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    own = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; connect-src {own}; "
        "base-uri 'none'; form-action 'none'"
    )
