"""Describe a run in plain words: what its numbers say, and how it was run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from entropilot.records import REWARD, Run
from entropilot.reports.table import series
from entropilot.reports.text import MISSING, escape, mapping, method_name, number, one_line

_SOURCES = {
    "method": "set by the method",
    "user": "set by the user, over the method",
    "TRL default": "TRL's default",
}


def reading(run: Run, summary: Mapping[str, Any]) -> str:
    """Write a few sentences on what the numbers of a run say."""
    said = [_length(run, summary["seconds"])]
    start, end = summary["entropy_start"], summary["entropy_end"]
    if start is None:
        said.append("policy entropy was not measured")
    else:
        share = f" ({100 * (end / start - 1):+.0f} %)".replace("-", "−") if start > 0 and end != start else ""
        said.append(f"policy entropy {_moved(start, end)} nats{share}")
    start, end = summary["accuracy_start"], summary["accuracy_end"]
    if start is not None:
        said.append(f"held-out accuracy {_moved(start, end)}")
    else:
        said.append("held-out accuracy was not measured")
        _, rewards = series(run, REWARD)
        if rewards:
            tenth = max(1, len(rewards) // 10)
            first, last = sum(rewards[:tenth]) / tenth, sum(rewards[-tenth:]) / tenth
            said.append(f"training reward {_moved(first, last)} (means of the first and last tenth)")
    text = "; ".join(part for part in said if part) + "."
    law = one_line(summary["verdict"]).rstrip(".")
    if summary["has_ceiling"]:
        law = f"the law puts the ceiling at {number(summary['ceiling'])}; {law}"
    return " ".join(part for part in (_capital(text), _capital(law) + ".", _end(run)) if part)


def facts(run: Run, name: str) -> str:
    """Write the folded HTML that says how a run was made, from its header."""
    header = run.header
    recipe, clip = mapping(header.get("recipe")), mapping(header.get("clip"))
    versions = mapping(header.get("versions"))
    arguments = mapping(recipe.get("method_args"))
    items = {
        "folder": run.path,
        "started": header.get("time"),
        "commit": header.get("commit"),
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
        "method": method_name(run),
        "method arguments": ", ".join(f"{key} = {_json(value)}" for key, value in arguments.items()),
        "clip": _clip(clip),
        "ended": mapping(header.get("end")).get("reason"),
    }
    terms = "".join(
        f"<dt>{key}</dt><dd>{escape(value or MISSING, 2000)}</dd>" for key, value in items.items()
    )
    parts = [f"<details><summary>{escape(name)}</summary><dl>{terms}</dl>", _metrics(header.get("metrics"))]
    if recipe:
        text = json.dumps(recipe, indent=2, ensure_ascii=False, default=str)
        parts.append(f"<h4>Recipe, resolved</h4><pre>{escape(text, 20_000)}</pre>")
    return "".join(parts) + "</details>"


def _metrics(metrics: Any) -> str:
    rows = []
    for name, metric in mapping(metrics).items():
        said = mapping(metric)
        cells = (escape(said.get(key) or MISSING, 1000) for key in ("unit", "definition"))
        rows.append(
            f'<tr><th scope="row">{escape(name, 200)}</th>'
            + "".join(f'<td class="wrap">{cell}</td>' for cell in cells)
            + "</tr>"
        )
    if not rows:
        return ""
    heads = "".join(f'<th scope="col" class="text">{head}</th>' for head in ("metric", "unit", "definition"))
    return (
        f'<h4>What the metrics mean</h4><div class="scroll" tabindex="0" role="region" aria-label="Metrics">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _clip(clip: Mapping[str, Any]) -> str:
    if not clip:
        return MISSING
    bounds = ("none" if clip.get(side) is None else _json(clip[side]) for side in ("low", "high"))
    low, high = bounds
    source = clip.get("source")
    who = _SOURCES.get(source if isinstance(source, str) else "", f"source: {source}")
    return f"low {low}, high {high} ({who})"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _moved(start: float, end: float) -> str:
    low, high = number(start), number(end)
    if low == high:
        return f"stayed at {low}"
    return f"{'rose' if end > start else 'fell'} from {low} to {high}"


def _length(run: Run, seconds: float | None) -> str:
    # The last measurement, after training, is a row of its own and no step.
    trained = [
        row
        for row in run.rows
        if any(key != "step" and not key.startswith(("validation/", "seconds/")) for key in row)
    ]
    if not trained:
        return "no training step was recorded"
    steps = trained[-1]["step"]
    return f"{steps:,} step{'' if steps == 1 else 's'}" + (f" in {seconds:,.0f} s" if seconds else "")


def _end(run: Run) -> str:
    end = mapping(run.header.get("end"))
    if not end:
        return "The record has no end: the run was killed, or is still going on."
    reason = one_line(end.get("reason", ""), 200).rstrip(".")
    return "" if reason == "finished" else f"The run did not finish: {reason or 'no reason was recorded'}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
