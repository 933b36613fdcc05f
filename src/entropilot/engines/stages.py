"""A recipe of several stages: each trains what the one before it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from entropilot.engines.doctor import examine
from entropilot.engines.run import train
from entropilot.recipes import Recipe
from entropilot.records import FILE_NAME, read_run


def folders(recipe: Recipe, out: Path) -> list[tuple[Recipe, Path]]:
    """Return (recipe, folder) of every stage: OUT/1-NAME, OUT/2-NAME, …, or OUT itself where there are none."""
    if not recipe.stages:
        return [(recipe, out)]
    return [(stage, out / f"{i}-{name}") for i, (name, stage) in enumerate(recipe.expanded(), start=1)]


def train_stages(recipe: Recipe, out: Path, *, resume: bool = False, **watch: Any) -> Path:
    """Train every stage of a recipe in order; returns the folder of the last one's model.

    Each stage is a run of its own, from the model that the one before it saved, with its own folder and record. With
    `resume` finished stages are kept, and the one that was interrupted goes on from its last checkpoint.

    Args:
        recipe: from `load_recipe`; without stages this is `train`.
        out: folder of the run or of the stages.
        resume: continue.
        **watch: as `train`.

    Raises:
        UserError: any of the stages cannot work, said before the first begins; or as `train`.
    """
    planned = folders(recipe, out)
    for stage, _ in planned:
        examine(stage)
    model = None
    for stage, folder in planned:
        if model is not None:
            stage = stage.model_copy(update={"model": str(model)})
        if resume and recipe.stages and finished(folder):
            model = folder / "model"
            continue
        begun = (folder / FILE_NAME).exists() or not recipe.stages
        model = train(stage, folder, resume=resume and begun, **watch)
    assert model is not None
    return model


def finished(folder: Path) -> bool:
    """Return whether a stage ended well and its model is there."""
    if not ((folder / FILE_NAME).exists() and (folder / "model").is_dir()):
        return False
    return (read_run(folder).header.get("end") or {}).get("reason") == "finished"
