"""Sampled completions as coloured tokens: how unsure the policy was of each, and which ones a method chose."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entropilot.records import TOKENS_FOLDER, Run, finite_number
from entropilot.reports.text import escape, number

LEVELS = (0.05, 0.2, 0.5, 1.0, 2.0)  # nats; the first level is below 0.05, the last from 2.0
MAX_COMPLETIONS = 12
MAX_TOKENS = 600
_COLUMNS = ("step", "prompt", "reward", "tokens", "logp", "entropy", "advantage", "covariance", "chosen")
_MEANING = ("answer", "cluster")  # of a reward that clusters the answers of a group


def last_sample(run: Run) -> Path | None:
    """Return the token sample of the latest step; None where there is none."""
    found = []
    folder = run.path / TOKENS_FOLDER
    for path in folder.glob("step_*.parquet") if folder.is_dir() else ():
        match = re.fullmatch(r"step_(\d{1,18})\.parquet", path.name)
        if match and path.is_file():
            found.append((int(match.group(1)), path))
    return max(found)[1] if found else None


def token_section(run: Run, name: str, *, unfolded: bool = True) -> str:
    """Return the HTML of a run's last token sample, folded under its name.

    A sample that can't be read gives a sentence that says so, and no sample gives an empty text.
    """
    path = last_sample(run)
    if path is None:
        return ""
    try:
        rows, total = _read(path)
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        # pyarrow's errors descend from these; the page is worth having without the sample.
        note = escape(f"{path.name} can't be read: {error}", 400)
        return f'<p class="quiet">{escape(name)}: {note}</p>'
    which = f"the first {len(rows)} of {total}" if total > len(rows) else f"all {total}"
    step = rows[0].get("step") if rows else None
    lead = f'<p class="quiet">Step {escape(step)}: {which} sampled completions.</p>'
    return (
        f'<details class="run"{" open" if unfolded else ""}><summary>{escape(name)}</summary>{lead}'
        f'<div class="completions">{"".join(_completion(row) for row in rows)}</div></details>'
    )


def legend() -> str:
    """Return the HTML that says what colour and underline mean."""
    bounds = [f"below {LEVELS[0]:g}"]
    bounds += [f"{low:g}–{high:g}" for low, high in zip(LEVELS, LEVELS[1:], strict=False)]
    bounds += [f"{LEVELS[-1]:g} and more"]
    items = "".join(f'<li><span class="e{i}">{text}</span></li>' for i, text in enumerate(bounds))
    return (
        f'<ul class="legend" aria-label="Legend"><li>entropy, nats:</li>{items}'
        '<li><u class="e0">underlined</u>: chosen by the method</li></ul>'
    )


def level(entropy: float | None) -> int:
    """Return the colour level of an entropy, 0 to 5; of no entropy, 0."""
    return 0 if entropy is None else sum(entropy >= bound for bound in LEVELS)


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        known = [name for name in (*_COLUMNS, *_MEANING) if name in file.schema_arrow.names]
        missing = {"tokens", "entropy"} - set(known)
        if missing:
            raise KeyError(f"it has no column {' and no column '.join(sorted(missing))}")
        for batch in file.iter_batches(batch_size=MAX_COMPLETIONS, columns=known):
            return batch.to_pylist(), file.metadata.num_rows
        return [], 0


def _completion(row: Mapping[str, Any]) -> str:
    tokens = _list(row.get("tokens"))
    parts = {key: _list(row.get(key)) for key in ("logp", "entropy", "advantage", "covariance", "chosen")}
    spans = [_span(tokens[t], {key: _at(values, t) for key, values in parts.items()}) for t in _shown(tokens)]
    left_out = len(tokens) - len(spans)
    if left_out:
        spans.append(f'<span class="quiet"> … and {left_out:,} more tokens</span>')
    entropies = [value for value in map(finite_number, parts["entropy"]) if value is not None]
    mean = sum(entropies) / len(entropies) if entropies else None
    chosen = sum(value is True for value in parts["chosen"])
    facts = [
        f"reward {number(finite_number(row.get('reward')), '.3g')}",
        f"{len(tokens):,} tokens",
        f"mean entropy {number(mean)} nats",
        f"{chosen:,} chosen",
    ]
    if "cluster" in row:
        answer = row.get("answer")
        facts.append(
            "no answer"
            if answer is None
            else f"answer {escape(answer, 60)}, meaning {escape(row['cluster'])}"
        )
    return (
        f'<article class="completion"><p class="prompt">{escape(row.get("prompt") or "", 600)}</p>'
        f'<p class="tokens">{"".join(spans)}</p><p class="quiet">{" · ".join(facts)}</p></article>'
    )


def _span(token: object, values: Mapping[str, Any]) -> str:
    entropy = finite_number(values["entropy"])
    tip = " · ".join(
        (
            f"log-prob {number(finite_number(values['logp']))}",
            f"entropy {number(entropy)} nats",
            f"advantage {number(finite_number(values['advantage']))}",
            f"covariance {number(finite_number(values['covariance']))}",
        )
    )
    tag = "u" if values["chosen"] is True else "span"
    if tag == "u":
        tip += " · chosen"
    # A line break is part of the text, but also a token that must be seen.
    text = escape("" if token is None else token, 200).replace("\n", "↵\n") or "∅"
    return f'<{tag} class="e{level(entropy)}" title="{tip}">{text}</{tag}>'


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _at(values: Sequence[Any], t: int) -> Any:
    return values[t] if t < len(values) else None


def _shown(tokens: Sequence[Any]) -> range:
    return range(min(len(tokens), MAX_TOKENS))
