"""Sections for kinds of runs: learning without labels, entropy minimisation, control, evaluation files."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from entropilot.metrics import SEMANTIC
from entropilot.records import Run, finite_number
from entropilot.reports.figures import COLOURS
from entropilot.reports.text import clean, escape, mapping, number


@dataclass
class Special:
    """Hold a section with charts and tables of its own; `metrics` and `tables` as the template takes them."""

    id: str
    heading: str
    text: str
    metrics: list[dict[str, str]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    picture: str = ""  # SVG
    missing: list[str] = field(default_factory=list)  # a line for each chart without data


_KINDS = (
    (
        "label-free",
        "Learning without labels",
        "The reward comes from agreement between the model's own answers. It can be wrong about which answer is right, "
        "and then confirms the wrong one: watch the accuracy of the majority where answers are known, and how often "
        "majorities flip.",
        {
            "semantic/entropy": ("Semantic entropy", "How undecided the model is about the meaning of its answers, nats."),
            "semantic/majority_accuracy": (
                "Accuracy of the majority",
                "Share of prompts whose most frequent answer is right.",
            ),
            "semantic/flip_rate": (
                "Flip rate",
                "How often a prompt's most frequent answer changed over its last five visits.",
            ),
            "semantic/margin": (
                "Margin of the majority",
                "Share of the most frequent answer less that of the second.",
            ),
            "semantic/majority_share": (
                "Share of the majority",
                "How many of a prompt's completions give the most frequent answer.",
            ),
            "semantic/clusters": ("Meanings per group", "Different answers among the completions of a prompt."),
            "semantic/filtered": ("Groups left out", "Share of groups outside of the threshold; they give no gradient."),
            "semantic/unanswered": ("Without an answer", "Share of completions from which no answer could be extracted."),
        },
    ),
    (
        "entropy-min",
        "Entropy minimisation",
        "Training lowers the entropy of the model's own completions and sees no reward. A few updates can help; more make "
        "the model surer without making it better.",
        {"entropy_min/loss": ("Loss: mean entropy", "Entropy of the tokens that are trained on, nats.")},
    ),
    (
        "control",
        "Control from preferences",
        "Behaviour cloning first, then learning from pairs of segments, of which one is preferred.",
        {
            "success": ("Success", "Share of evaluation episodes that were solved."),
            "ranked_right": ("Pairs ranked right", "Share of the last batch whose preferred segment scores higher."),
            "loss": ("Loss", "Of the last batch."),
        },
    ),
)  # fmt: skip


_NEEDS = {
    "semantic/majority_accuracy": "It needs problems with answers.",
    "semantic/flip_rate": "It needs prompts that are visited at least twice.",
}


def _named(metric: str, names: Collection[str]) -> list[tuple[str, str]]:
    """Return (metric, reward) of what stands for a metric: itself, or one per reward where a run has several."""
    own = [(metric, "")] if metric in names else []
    if not metric.startswith(SEMANTIC):
        return own
    tail = "/" + metric.removeprefix(SEMANTIC)
    several = sorted(
        name for name in names if name.startswith(SEMANTIC) and name.endswith(tail) and name != metric
    )
    return own + [(name, name.removeprefix(SEMANTIC).removesuffix(tail)) for name in several]


def specials_of(runs: Sequence[Run], evaluations: Sequence[Mapping[str, Any]]) -> list[Special]:
    """Return the sections that these runs have values for."""
    names = {name for run in runs for row in run.rows for name, value in row.items() if value is not None}
    sections = []
    for key, heading, text, metrics in _KINDS:
        charts, missing = [], []
        for metric, (title, caption) in metrics.items():
            holders = _named(metric, names)
            charts += [
                {
                    "metric": clean(name, 200),
                    "heading": f"{title}: {clean(reward, 100)}" if reward else title,
                    "caption": caption,
                }
                for name, reward in holders
            ]
            if not holders and metric in _NEEDS:
                missing.append(f"{title}: no data. {_NEEDS[metric]}")
        if charts and (key != "control" or "success" in names or "ranked_right" in names):
            sections.append(Special(key, heading, text, charts, missing=missing))
    if evaluations:
        sections.append(_evaluation(evaluations))
    return sections


def _evaluation(documents: Sequence[Mapping[str, Any]]) -> Special:
    """Return the tables of what `entropilot evaluate` wrote: measures, pass@k and paired comparisons."""
    results = [mapping(result) for document in documents for result in document.get("results", ())]
    names = [
        clean(f"{result.get('model')}, {result.get('data')}, T = {result.get('temperature')}", 120)
        for result in results
    ]
    rows, curves = [], []
    for name, result in zip(names, results, strict=True):
        intervals = mapping(result.get("intervals"))
        for measure, value in result.items():
            if finite_number(value) is None or measure in ("temperature", "problems", "graded", "samples"):
                continue
            ends = intervals.get(measure)
            low, high = ends if isinstance(ends, list) and len(ends) == 2 else (None, None)
            rows.append([name, clean(measure, 60), *(number(finite_number(x)) for x in (value, low, high))])
            if measure.startswith("pass@") and measure[5:].isdigit():
                curves.append((name, int(measure[5:]), float(value), finite_number(low), finite_number(high)))
    tables = [
        {
            "caption": "Estimates with their 95 % intervals over problems.",
            "headings": ["model", "measure", "value", "low", "high"],
            "rows": rows,
        }
    ]
    compared = [mapping(entry) for document in documents for entry in document.get("comparisons", ())]
    if compared:
        keys = list(dict.fromkeys(key for entry in compared for key in entry))
        tables.append(
            {
                "caption": "Paired comparison, problem by problem.",
                "headings": [clean(key, 60) for key in keys],
                "rows": [[_cell(entry.get(key)) for key in keys] for entry in compared],
            }
        )
    return Special(
        "evaluation", "Evaluation", "Samples of models, graded.", tables=tables, picture=pass_at_k(curves)
    )


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(_cell(part) for part in value)
    as_number = finite_number(value)
    return number(as_number) if as_number is not None else clean("–" if value is None else value, 120)


def pass_at_k(points: Sequence[tuple[str, int, float, float | None, float | None]]) -> str:
    """Return the curves of pass@k over k as SVG, with their intervals; empty where there are fewer than two k.

    Args:
        points: (name, k, value, low, high).
    """
    ks = sorted({k for _, k, *_ in points})
    if len(ks) < 2:
        return ""
    width, height, left, bottom = 560, 300, 46, 36
    span = math.log(ks[-1] / ks[0])

    def x(k: int) -> float:
        return left + (width - left - 12) * math.log(k / ks[0]) / span

    def y(value: float) -> float:
        return 10 + (height - bottom - 10) * (1 - value)

    parts = [
        f'<line x1="{left}" x2="{width - 12}" y1="{y(v):.1f}" y2="{y(v):.1f}" class="grid"/>'
        f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in (0, 0.25, 0.5, 0.75, 1)
    ]
    parts += [f'<text x="{x(k):.1f}" y="{height - 16}" text-anchor="middle">{k}</text>' for k in ks]
    parts.append(f'<text x="{width / 2}" y="{height - 2}" text-anchor="middle">k</text>')
    for place, name in enumerate(dict.fromkeys(name for name, *_ in points)):
        colour = COLOURS[place % len(COLOURS)]
        own = sorted(point for point in points if point[0] == name)
        line = " ".join(f"{x(k):.1f},{y(value):.1f}" for _, k, value, *_ in own)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for _, k, value, low, high in own:
            if low is not None and high is not None:
                parts.append(
                    f'<line x1="{x(k):.1f}" x2="{x(k):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke="{colour}"/>'
                )
            parts.append(f'<circle cx="{x(k):.1f}" cy="{y(value):.1f}" r="3.5" fill="{colour}"/>')
        parts.append(f'<text x="{left + 8}" y="{24 + 16 * place}" fill="{colour}">{escape(name)}</text>')
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="pass@k over k" class="curve">{"".join(parts)}</svg>'
