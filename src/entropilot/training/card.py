"""Write the card of a trained model: README.md in its folder, with data, figures, the law and the recipe."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml

from entropilot.errors import UserError
from entropilot.files import write_text
from entropilot.law.assess import assess_run
from entropilot.metrics import ACCURACY, ENTROPY, REWARD
from entropilot.records import Run, read_run

logger = logging.getLogger("entropilot")
FIGURES = ((ACCURACY, "held-out accuracy"), (ENTROPY, "policy entropy, nats"), (REWARD, "training reward"))


def write_card(out: Path) -> None:
    """Write the card of a run's model. A card that fails is a warning: the model and the record are there.

    Args:
        out: folder of the run, with its record and its model.
    """
    try:
        write_text(out / "model" / "README.md", card(read_run(out)))
    except Exception as error:
        logger.warning("The model in %s has no README.md (%s).", out / "model", error)


def card(run: Run) -> str:
    """Return the text of the card; nothing in it is a link, so that nothing in it can be dead."""
    recipe: dict[str, Any] = run.header.get("recipe") or {}
    versions = ", ".join(f"{name} {version}" for name, version in (run.header.get("versions") or {}).items())
    source = (recipe.get("data") or {}).get("source")
    head = "---\nlibrary_name: transformers\ntags: [entropilot, reinforcement-learning]\n---"
    steps = run.rows[-1]["step"] if run.rows else 0
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).rstrip()
    return "\n\n".join(
        [
            head,
            f"# {run.name}",
            f"Trained with entropilot from the model `{recipe.get('model')}` on the data `{source}`. Method: "
            f"`{recipe.get('method')}`, reward: `{recipe.get('reward')}`, seed {recipe.get('seed')}.",
            "## Figures",
            f"First and last recorded value; the record's last row is that of step {steps}. – means not recorded. The\n"
            "header of `run.jsonl`, in the folder above this one, defines each.",
            _figures(run),
            "Nothing else about this model was measured.",
            "## Law",
            _law(run),
            "## Recipe",
            f"```yaml\n{text}\n```",
            "## Versions",
            versions,
        ]
    ) + "\n"  # fmt: skip


def _figures(run: Run) -> str:
    lines = ["| | first | last |", "|---|---|---|"]
    for name, words in FIGURES:
        values = run.column(name)
        ends = (f"{values[0][1]:.3f}", f"{values[-1][1]:.3f}") if values else ("–", "–")
        lines.append(f"| {words} (`{name}`) | {ends[0]} | {ends[1]} |")
    return "\n".join(lines)


def _law(run: Run) -> str:
    """Return the fit of accuracy on entropy, with how far to trust it; or why there is none."""
    try:
        fit, columns, assessment = assess_run(run)
    except UserError as error:
        return f"R = −a·exp(H) + b was not fitted: {error}"
    return (
        f"R = −a·exp(H) + b with a = {fit.a:.3f}, b = {fit.b:.3f}, so the ceiling at H = 0 is {fit.ceiling:.3f}; R is\n"
        f"`{columns.performance}`. The fit: {assessment.verdict}."
    )
