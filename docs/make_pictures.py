"""Draw the pictures of the concept pages, as plain SVG; numbers in them are computed here.

Run `python docs/make_pictures.py` after a change; a test compares.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent / "concepts"
BLUE, GREY, RED = "#1f6fb2", "#8a8a8a", "#b23a1f"


def text(
    x: float, y: float, words: str, *, anchor: str = "middle", size: int = 13, colour: str = "#222"
) -> str:
    """Return a line of text."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0) -> str:
    """Return a filled rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{colour}" fill-opacity="{opacity:g}"/>'


def line(points: Sequence[tuple[float, float]], colour: str, dashes: str = "") -> str:
    """Return a polyline."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'


def dot(x: float, y: float, colour: str) -> str:
    """Return a point of a chart."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}" fill-opacity="0.5"/>'


def picture(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """Return an SVG on white, so that it can be read on a dark page."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    return (
        "\n".join(
            [head, f"<title>{escape(title)}</title>", box(0, 0, width, height, "#fff"), *parts, "</svg>"]
        )
        + "\n"
    )


def nats(shares: Sequence[float]) -> float:
    """Return −Σ p ln p."""
    return -math.fsum(p * math.log(p) for p in shares if p > 0) + 0.0


def entropy() -> str:
    """Return three distributions over four words, with the entropy of each."""
    parts = []
    for number, shares in enumerate(([0.97, 0.01, 0.01, 0.01], [0.6, 0.3, 0.05, 0.05], [0.25] * 4)):
        left = 30 + 210 * number
        for place, (word, share) in enumerate(zip(("so", "but", "wait", "if"), shares, strict=True)):
            x = left + 44 * place
            parts += [box(x, 150 - 110 * share, 32, 110 * share, BLUE), text(x + 16, 168, word)]
            parts.append(text(x + 16, 143 - 110 * share, f"{share:.0%}", size=11, colour=GREY))
        parts.append(text(left + 82, 198, f"H = {nats(shares):.2f} nats"))
    title = "Three distributions of the next word, from certain to undecided, with their entropy"
    return picture(650, 215, title, parts)


def covariance() -> str:
    """Return the four kinds of tokens, and what a step on each does to entropy."""
    parts = [text(250, 24, "advantage negative"), text(450, 24, "advantage positive")]
    rows = (
        ("likely token", ("entropy rises", False), ("entropy falls", True)),
        ("rare token", ("entropy falls", True), ("entropy rises", False)),
    )
    for number, (name, *cells) in enumerate(rows):
        y = 36 + 76 * number
        parts.append(text(140, y + 38, name, anchor="end"))
        for place, (words, falls) in enumerate(cells):
            x = 155 + 200 * place
            parts.append(box(x, y, 190, 66, RED if falls else BLUE, 0.2))
            sign = "covariance positive" if falls else "covariance negative"
            parts += [text(x + 95, y + 30, words), text(x + 95, y + 50, sign, size=11, colour="#555")]
    return picture(560, 195, "Which tokens lower entropy: those of positive covariance", parts)


def law() -> str:
    """Return the measurements of the quickstart's GRPO run, the curve that `fit` finds for them, and its ceiling."""
    from entropilot.law.law import fit_run
    from entropilot.records import ACCURACY, ENTROPY, Run

    kept = json.loads((FOLDER.parent / "results" / "quickstart.json").read_text(encoding="utf-8"))
    run = Run(Path("grpo"), {}, kept["runs"]["grpo"])
    fit, _ = fit_run(run)
    a, b = round(fit.a, 3), round(fit.b, 3)  # as `fit` prints them
    place = lambda h, r: (60 + 1000 * (0.45 - h), 230 - 450 * (r - 0.55))  # noqa: E731
    curve = [place(h / 100, b - a * math.exp(h / 100)) for h in range(45, -1, -1)]
    (left, bottom), (right, top) = place(0.45, 0.55), place(0.0, b - a)
    parts = [line([(left, 20), (left, bottom), (right + 60, bottom)], GREY), line(curve, BLUE)]
    parts += [dot(*place(h, r), BLUE) for _, h, r in run.column(ENTROPY, ACCURACY)]
    parts += [line([(left, top), (right + 60, top)], RED, "5 4")]
    parts.append(text(left + 8, top - 6, "ceiling −a + b", anchor="start", colour=RED))
    parts += [text(place(h, 0)[0], bottom + 18, f"{h:.1f}", size=11) for h in (0.4, 0.3, 0.2, 0.1, 0.0)]
    parts += [
        text(left - 8, place(0, r)[1] + 4, f"{r:.1f}", anchor="end", size=11)
        for r in (0.6, 0.7, 0.8, 0.9, 1.0)
    ]
    parts.append(text((left + right) / 2, bottom + 38, "entropy H, nats: training goes from left to right"))
    parts.append(text(left + 160, 190, "accuracy R = −a·exp(H) + b", anchor="start", colour=BLUE))
    return picture(600, 280, "Accuracy rises along a curve as entropy falls, and ends at the ceiling", parts)


def semantic() -> str:
    """Return eight answers in their clusters, with the semantic entropy."""
    groups = (["1/2", "0.5", "one half", "50 %"], ["1/3", "0.333…", "⅓"], ["2"])
    total = sum(map(len, groups))
    parts, x = [], 20.0
    for answers, colour in zip(groups, (BLUE, RED, GREY), strict=True):
        width = 68.0 * len(answers)
        parts.append(box(x, 20, width - 8, 60, colour, 0.2))
        parts += [text(x + 68 * i + 30, 55, answer) for i, answer in enumerate(answers)]
        parts.append(text(x + width / 2 - 4, 102, f"{len(answers)} of {total}", size=12, colour="#555"))
        x += width
    h = nats([len(answers) / total for answers in groups])
    parts.append(
        text(
            x / 2,
            132,
            f"semantic entropy {h:.2f} nats; all alike: 0; all different: ln {total} = {math.log(total):.2f}",
        )
    )
    return picture(int(x) + 20, 150, "Eight answers, three meanings", parts)


def regret() -> str:
    """Return two attempts, with what each step gave away of the best that could have been done."""
    parts = []
    for number, (name, steps) in enumerate(
        (("attempt 1", (0.0, 0.1, 0.0, 0.2)), ("attempt 2", (0.6, 0.0, 0.5, 0.3)))
    ):
        y = 30 + 100 * number
        parts.append(text(110, y + 30, name, anchor="end"))
        for place, lost in enumerate(steps):
            x = 130 + 90 * place
            parts += [box(x, y, 70, 50, GREY, 0.2), box(x, y + 50 * (1 - lost), 70, 50 * lost, RED, 0.7)]
            parts.append(text(x + 35, y + 68, f"{lost:.1f}", size=11))
        parts.append(text(500, y + 30, f"regret {sum(steps):.1f}", anchor="start"))
    parts.append(
        text(300, 228, "red: value of the best action less that of the action taken, step by step", size=12)
    )
    return picture(600, 240, "Regret adds up what each step gave away", parts)


PICTURES: dict[str, Callable[[], str]] = {
    "entropy.svg": entropy,
    "covariance.svg": covariance,
    "law.svg": law,
    "semantic-entropy.svg": semantic,
    "regret.svg": regret,
}

if __name__ == "__main__":
    for file, draw in PICTURES.items():
        (FOLDER / file).write_text(draw(), encoding="utf-8")
