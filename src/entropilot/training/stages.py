"""A recipe of several stages: each trains what the one before it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from entropilot.errors import UserError
from entropilot.inputs.problems import load_problems
from entropilot.recipes.schema import Recipe
from entropilot.records import FILE_NAME, read_run
from entropilot.training.check import examine
from entropilot.training.resume import last_checkpoint, refuse_other
from entropilot.training.run import train


def folders(recipe: Recipe, out: Path) -> list[tuple[Recipe, Path]]:
    """Return (recipe, folder) of every stage: OUT/1-NAME, OUT/2-NAME, …, or OUT itself where there are none.

    Each stage's recipe names the model that the one before it will leave.
    """
    if not recipe.stages:
        return [(recipe, out)]
    found: list[tuple[Recipe, Path]] = []
    for i, (name, stage) in enumerate(recipe.expanded(), start=1):
        if found:
            stage = stage.model_copy(update={"model": str(found[-1][1].resolve() / "model")})
        found.append((stage, out / f"{i}-{name}"))
    return found


def train_stages(recipe: Recipe, out: Path, *, resume: bool = False, **watch: Any) -> Path:
    """Train every stage of a recipe in order; returns the folder of the last one's model.

    Each stage is a run of its own, from the model that the one before it saved, with its own folder and record. With
    `resume` finished stages are kept, and the one that was interrupted goes on from its last checkpoint; where it has
    none yet it begins anew, and what it had recorded is kept as run.jsonl.interrupted.

    Args:
        recipe: from `load_recipe`; without stages this is `train`.
        out: folder of the run or of the stages.
        resume: continue.
        **watch: as `train`.

    Raises:
        UserError: any of the stages cannot work, said before the first begins; or as `train`.
    """
    if not recipe.stages:
        return train(recipe, out, resume=resume, **watch)
    planned = folders(recipe, out)
    _refuse_early(recipe, planned, resume)
    for stage, folder in planned:
        if resume and finished(folder):
            continue
        begun = resume and (folder / FILE_NAME).exists()
        if begun and last_checkpoint(folder / "checkpoints") is None:
            (folder / FILE_NAME).replace(folder / f"{FILE_NAME}.interrupted")
            begun = False
        train(stage, folder, resume=begun, **watch)
    return planned[-1][1] / "model"


def _refuse_early(recipe: Recipe, planned: list[tuple[Recipe, Path]], resume: bool) -> None:
    """Refuse what would only be noticed after the first stages had been trained."""
    adapted = None
    for (name, described), (stage, folder) in zip(recipe.expanded(), planned, strict=True):
        examine(described)  # of the first model: the others do not exist yet
        load_problems(described.data)
        if described.lora is not None and adapted is not None:
            raise UserError(
                f"lora: the stage {name} would train adapters on the adapters that {adapted} leaves; give lora to one "
                "stage only."
            )
        adapted = name if described.lora is not None else None
        if not (folder / FILE_NAME).exists():
            continue
        if not resume:
            raise UserError(
                f"{folder} already holds a run; choose another --out, remove it, or continue it with --resume."
            )
        refuse_other(stage, folder)


def finished(folder: Path) -> bool:
    """Return whether a stage ended well and its model is there."""
    if not ((folder / FILE_NAME).exists() and (folder / "model").is_dir()):
        return False
    return (read_run(folder).header.get("end") or {}).get("reason") == "finished"
