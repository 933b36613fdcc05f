"""Sections for kinds of runs: learning without labels, entropy minimisation, control, evaluation files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from entropilot.records import Run
from entropilot.reports.text import clean, mapping, number


@dataclass
class Special:
    """A section with charts and tables of its own; `metrics` and `tables` as the template takes them."""

    id: str
    heading: str
    text: str
    metrics: list[dict[str, str]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)


_KINDS = (
    (
        "label-free",
        "Learning without labels",
        "The reward comes from agreement between the model's own answers. It can be wrong about which answer is right, "
        "and then confirms the wrong one: watch the accuracy of the majority where answers are known, and how often "
        "majorities flip.",
        {
            "semantic/entropy": ("Semantic entropy", "How undecided the model is about the meaning of its answers, nats."),
            "semantic/majority_accuracy": ("Accuracy of the majority", "Share of prompts whose most frequent answer is right; needs known answers."),
            "semantic/flip_rate": ("Flip rate", "Share of prompts whose most frequent answer changed since the last visit."),
            "semantic/majority_share": ("Share of the majority", "How many of a prompt's completions give the most frequent answer."),
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


def specials_of(runs: Sequence[Run], evaluations: Sequence[Mapping[str, Any]]) -> list[Special]:
    """Return the sections that these runs have values for."""
    names = {name for run in runs for row in run.rows for name, value in row.items() if value is not None}
    sections = []
    for key, heading, text, metrics in _KINDS:
        charts = [
            {"metric": metric, "heading": title, "caption": caption}
            for metric, (title, caption) in metrics.items()
            if metric in names
        ]
        if charts and (key != "control" or "success" in names or "ranked_right" in names):
            sections.append(Special(key, heading, text, charts))
    if evaluations:
        sections.append(_evaluation(evaluations))
    return sections


def _evaluation(evaluations: Sequence[Mapping[str, Any]]) -> Special:
    rows = []
    for summary in evaluations:
        for name, value in _flat(summary.get("measures", summary)):
            rows.append([clean(summary.get("name", summary.get("model", "–")), 100), name, *value])
    table = {
        "caption": "Estimates with their 95 % intervals, as `entropilot evaluate` wrote them.",
        "headings": ["model", "measure", "value", "low", "high"],
        "rows": rows,
    }
    return Special("evaluation", "Evaluation", "Samples of models, graded.", tables=[table])


def _flat(measures: Any, prefix: str = "") -> list[tuple[str, list[str]]]:
    found = []
    for name, value in mapping(measures).items():
        label = f"{prefix}{clean(name, 80)}"
        if isinstance(value, Mapping) and isinstance(value.get("value"), int | float):
            found.append((label, [number(value.get(key)) for key in ("value", "low", "high")]))
        elif isinstance(value, Mapping):
            found += _flat(value, f"{label} ")
    return found
