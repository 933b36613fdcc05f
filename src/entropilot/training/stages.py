"""Train a recipe: one run, or several stages, each from the model that the one before it left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entropilot.errors import UserError
from entropilot.inputs.models import quiet
from entropilot.inputs.problems import load_problems
from entropilot.recipes.schema import Recipe, load_recipe
from entropilot.records import FILE_NAME, read_run
from entropilot.training.plan import Plan, check
from entropilot.training.resume import refuse_other
from entropilot.training.run import run


def train(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    **watch: Any,
) -> Path:
    """Train what a recipe says; returns the folder of the trained model, which `transformers` loads.

        model = entropilot.train("kl_cov", "runs/mine", overrides=["grpo.max_steps=20"])

    Args:
        recipe: a file, the name of one in the package, or from `load_recipe`; with stages, each is a run of its own in
            OUT/1-NAME, OUT/2-NAME, …
        out: folder that receives run.jsonl, tokens/, checkpoints/ and model/; default: runs/NAME.
        overrides: `key=value` for a recipe file, dotted keys reach into sections.
        resume: continue from the last checkpoint in `out`.
        **watch: on_start, on_row, on_alarm, as `training.run.run`.

    Raises:
        UserError: the recipe cannot work, the folder is taken, the loss is not finite.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, list(overrides))
    elif overrides:
        raise UserError("overrides are for a recipe file; change the Recipe itself, or give its path.")
    quiet()
    return run_all(plan_stages(recipe, None if out is None else Path(out)), resume=resume, **watch)


def plan_stages(
    recipe: Recipe, out: Path | None = None, *, processes: int | None = None, elsewhere: bool = False
) -> list[Plan]:
    """Check every stage of a recipe before the first begins; a recipe without stages is one plan.

    Args:
        recipe: from `load_recipe`.
        out: folder of the run, or of the stages' folders OUT/1-NAME, OUT/2-NAME, …; default: runs/NAME.
        processes: see `check`.
        elsewhere: see `check`.

    Raises:
        UserError: any of the stages cannot work.
    """
    if not recipe.stages:
        return [check(recipe, out, processes=processes, elsewhere=elsewhere)]
    out = Path("runs") / recipe.name if out is None else out
    plans: list[Plan] = []
    adapted = None
    for number, (name, stage) in enumerate(recipe.expanded(), start=1):
        if plans:
            stage = stage.model_copy(update={"model": str(plans[-1].out.resolve() / "model")})
        folder = out / f"{number}-{name}"
        try:
            plan = check(
                stage, folder, processes=processes, elsewhere=elsewhere, stage=name, awaited=bool(plans)
            )
        except UserError as error:
            raise UserError(f"Stage {name}: {error}") from error
        if plan.lora is not None and adapted is not None:
            raise UserError(
                f"lora: the stage {name} would train adapters on the adapters that {adapted} leaves; give lora to one "
                "stage only."
            )
        adapted = name if plan.lora is not None else None
        plans.append(plan)
    return plans


def run_all(plans: list[Plan], *, resume: bool = False, **watch: Any) -> Path:
    """Carry plans out in order; returns the folder of the last one's model.

    With `resume` finished stages are kept, and the one that was interrupted goes on from its last checkpoint; where it
    has none yet it begins anew, and what it had recorded is kept as run.jsonl.interrupted.

    Args:
        plans: of `plan_stages`.
        resume: continue.
        **watch: as `training.run.run`.

    Raises:
        UserError: what a later stage needs is missing, said before the first begins; or as `run`.
    """
    if plans[0].stage is None:
        return run(plans[0], resume=resume, **watch)
    _refuse_early(plans, resume)
    for plan in plans:
        if resume and finished(plan.out):
            continue
        run(plan, resume=resume and (plan.out / FILE_NAME).exists(), **watch)
    return plans[-1].out / "model"


def _refuse_early(plans: list[Plan], resume: bool) -> None:
    """Refuse what would only be noticed after the first stages had been trained."""
    for plan in plans:
        load_problems(plan.data)
        if not (plan.out / FILE_NAME).exists():
            continue
        if not resume:
            raise UserError(
                f"{plan.out} already holds a run; choose another --out, remove it, or continue it with --resume."
            )
        refuse_other(plan)


def finished(folder: Path) -> bool:
    """Return whether a stage ended well and its model is there."""
    if not ((folder / FILE_NAME).exists() and (folder / "model").is_dir()):
        return False
    return (read_run(folder).header.get("end") or {}).get("reason") == "finished"
