"""Name the colours and dashes of figures; colour is never the only sign."""

from __future__ import annotations

import html
from typing import Any

Figure = dict[str, Any]

# Mid tones that are read on white and on near-black; colour is never the only sign, so each has a symbol and a dash.
COLOURS = ("#2f7ed8", "#d97a1f", "#1f9d78", "#b8559f", "#7b6fd6", "#8a8a2c", "#c8504f", "#2f9fb3")
DASHES = ("solid", "dash", "dot", "dashdot")


def plotly_text(text: str) -> str:
    """Escape a name for Plotly, which reads tags and entities in names, titles and hover labels."""
    return html.escape(text, quote=False)
