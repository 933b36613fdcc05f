"""Format numbers and untrusted text for tables, messages and pages."""

from __future__ import annotations

import html
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from entropilot.records import Run

MISSING = "–"
# Marks that turn the direction of the text around them: a name could hide behind one.
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(value: object, limit: int | None = None) -> str:
    """Return text without control characters (terminal escapes, NUL, lone surrogates), cut to `limit`."""
    text = str(value)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():  # so it holds none of them; a page cleans hundreds of thousands of words
        return text
    return "".join(
        "\ufffd"
        if char in _TURNING or (char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs"))
        else char
        for char in text
    )


def one_line(value: object, limit: int | None = None) -> str:
    """Return `clean` text on a single line."""
    return clean(" ".join(str(value).split()), limit)


def escape(value: object, limit: int | None = None) -> str:
    """Return `clean` text as HTML, safe between tags and within quoted attributes."""
    return html.escape(clean(value, limit), quote=True)


def number(value: float | None, spec: str = ".3f") -> str:
    """Return a number in words of people: a dash for None and nan, and no zero for what is only small."""
    if value is None or value != value:
        return MISSING
    text = format(value, spec)
    if value and not any(digit in text for digit in "123456789"):
        text = format(value, ".1e")
    return text


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping of a header, or an empty one where something else stands."""
    return value if isinstance(value, Mapping) else {}


def labels(runs: Sequence[Run]) -> list[str]:
    """Return one short name per run; runs that share a name are told apart by folder, then by number."""
    names = [one_line(run.name, 60) or MISSING for run in runs]
    for tails in ([one_line(run.path.name, 60) for run in runs], [str(i) for i in range(1, len(runs) + 1)]):
        shared = Counter(names)
        names = [
            f"{name} ({tail})" if shared[name] > 1 and name != tail else name
            for name, tail in zip(names, tails, strict=True)
        ]
    return names


def method_name(run: Run) -> str:
    """Return the method of a run's recipe; `none` for a control without one, a dash where it is not said."""
    recipe = mapping(run.header.get("recipe"))
    if "method" not in recipe:
        return MISSING
    method = recipe["method"]
    if isinstance(method, list):
        method = " + ".join(map(str, method))
    return "none" if method is None else one_line(method, 40)


def aligned(rows: Sequence[Sequence[str]], text_columns: Collection[int] = (0,)) -> str:
    """Return rows as a plain-text table, the first as its heading; columns hold numbers unless they are named."""
    widths = [max(_cells(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in [rows[0], ["-" * width for width in widths], *rows[1:]]:
        cells = []
        for i, (text, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - _cells(text))
            cells.append(text + space if i in text_columns else space + text)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cells(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
