"""Find the step that a printed dict belongs to, where the dict does not say so itself."""

from __future__ import annotations

import re
from array import array
from collections import Counter

from entropilot.readers.formats.notebooks import open_text
from entropilot.readers.formats.printed import Printed
from entropilot.readers.gather import Gathered
from entropilot.readers.reader import Log, Source

_BAR = re.compile(rb"\| *(\d{1,15})/(\d{1,15}) \[")
_STEP = re.compile(
    rb"(?:\b|_)(?:global[ _]?)?(?:step|iter|iteration|rollout|update)[ _:=#]{1,3}(\d{1,15})(?![\d.])[^{}\n]{0,60}$",
    re.IGNORECASE,
)
_LONGEST_STEP = 120  # characters that `_STEP` can take up
_EVALUATED = ("eval", "val", "test")
_NONE = -1


def read_dicts(log: Log, gathered: Gathered, run: str | None) -> Source:
    """Gather the dicts that a console shows, with the step of each.

    The step is the dict's own; else the number of a `step 3:` before it; else the training's progress bar, where it
    moves on with every dict; else the dicts are counted. An evaluation has the step of the training before it.
    """
    rows: list[dict[str, float]] = []
    told, bars, totals, evaluated = array("q"), array("q"), array("q"), array("b")
    kinds: dict[tuple[str, ...], tuple[bool, bool, bool]] = {}
    last: list[str] = []
    metrics = evaluation = has_step = False
    own = 0
    with open_text(log.path) as file:
        for before, row in Printed(gathered).read(file):
            if (names := list(row)) != last:  # nearly always as before, and comparing is faster than hashing
                last, columns = names, tuple(names)
                if columns not in kinds:
                    if len(kinds) > 10_000:
                        kinds.clear()
                    kinds[columns] = _kind(row, gathered)
                metrics, evaluation, has_step = kinds[columns]
            step = _STEP.search(before, max(before.rfind(b"\n") + 1, len(before) - _LONGEST_STEP))
            if not metrics and not has_step and step is None:
                continue  # a configuration, a summary
            gathered.add(row)
            if has_step:
                own += metrics
                continue
            bar = next(iter(_BAR.findall(before)[-1:]), None) if b"/" in before else None
            rows.append(row)
            told.append(int(step[1]) if step else _NONE)
            bars.append(int(bar[0]) if bar else _NONE)
            totals.append(int(bar[1]) if bar else _NONE)
            evaluated.append(evaluation)
    trained = [i for i in range(len(rows)) if not evaluated[i]]
    if own >= len(trained):  # also where there is nothing
        return Source([log.path], log.path.stem)
    if 2 * sum(step != _NONE for step in told) >= len(rows):
        for row, step in zip(rows, told, strict=True):
            if step != _NONE:
                row["step"] = float(step)
        return Source([log.path], log.path.stem)
    total = Counter(totals[i] for i in trained).most_common(1)[0][0]
    shown_steps = [bars[i] for i in trained]
    moves = total != _NONE and all(totals[i] == total for i in trained)
    moves = moves and all(a < b for a, b in zip(shown_steps, shown_steps[1:], strict=False))
    steps = dict(zip(trained, shown_steps if moves else range(1, len(trained) + 1), strict=True))
    now = 0
    for i, row in enumerate(rows):
        now = steps.get(i, now)
        row["step"] = float(now)
    gathered.notes.append(
        f"The steps are those of the progress bar, up to {now} of {total}."
        if moves
        else f"The log tells no steps, so the {len(trained)} training rows are counted 1, 2, 3, …; if a row was logged "
        "every N steps, step 1 here is step N there."
    )
    return Source([log.path], log.path.stem)


def _kind(row: dict[str, float], gathered: Gathered) -> tuple[bool, bool, bool]:
    """Return whether a row holds a column that matters, whether it is an evaluation, and whether it has its step."""
    metrics = [name for name in row if name not in gathered.steps and gathered.wanted(name)]
    of_eval = any(name.startswith(_EVALUATED) for name in row)
    evaluation = of_eval and all(name.startswith(_EVALUATED) for name in metrics)
    return bool(metrics), evaluation, not gathered.steps.isdisjoint(row)
