"""Describe how a run was made, from its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from entropilot.records import Run
from entropilot.reports.text import MISSING, escape, mapping, method_name

_SOURCES = {
    "method": "set by the method",
    "user": "set by the user, over the method",
    "TRL default": "TRL's default",
}


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
    parts = [
        f"<details><summary>{escape(name)}</summary><dl>{terms}</dl>",
        _metrics(header.get("metrics"), name),
    ]
    if recipe:
        text = json.dumps(recipe, indent=2, ensure_ascii=False, default=str)
        parts.append(f"<h3>Recipe, resolved</h3><pre>{escape(text, 20_000)}</pre>")
    return "".join(parts) + "</details>"


def _metrics(metrics: Any, run: str) -> str:
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
        f'<h3>What the metrics mean</h3><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Metrics of {escape(run, 200)}">'
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
