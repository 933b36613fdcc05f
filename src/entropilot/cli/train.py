"""The commands `train` and `doctor`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from entropilot.cli.common import need_training_extra, say

app = typer.Typer()

RecipeArgument = Annotated[Path, typer.Argument(help="A recipe file (YAML).", show_default=False)]


OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="key=value, dotted keys reach into sections: grpo.max_steps=20")
]


@app.command()
def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint in --out.")
    ] = False,
) -> None:
    """Train what a recipe says; the run's folder receives run.jsonl, tokens, checkpoints and the model."""
    from entropilot.recipes.schema import load_recipe

    loaded = load_recipe(recipe, overrides)
    folder = out or Path("runs") / loaded.name
    need_training_extra()
    from entropilot.cli.progress import Progress

    progress = Progress(loaded.name)
    first = os.environ.get("RANK", "0") == "0"  # of several processes (accelerate launch), one speaks
    try:
        from entropilot.training.stages import train_stages as run

        shown = {"on_start": progress.start, "on_row": progress.row, "on_alarm": progress.note}
        watch = shown if first else {}
        model = run(loaded, folder, resume=resume, **watch)
    except KeyboardInterrupt:
        progress.close()
        kept = bool(loaded.stages) or any((folder / "checkpoints").glob("checkpoint-*"))
        say(
            f"interrupted; the record in {folder} is readable, and "
            + (
                "--resume continues from the last checkpoint."
                if kept
                else "there is no checkpoint yet to resume from."
            )
            if any(folder.rglob("run.jsonl"))
            else "interrupted before the run began; nothing was written."
        )
        raise typer.Exit(130) from None
    finally:
        progress.close()
    if first:
        say(f"model: {model}")
        say(f"record: {model.parent / 'run.jsonl'}")


@app.command()
def doctor(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many it is meant for; default: one.")
    ] = None,
) -> None:
    """Check a recipe without loading anything: what it comes to, and what would surprise you."""
    from entropilot.recipes.schema import load_recipe

    loaded = load_recipe(recipe, overrides)
    need_training_extra()
    from entropilot.training.check import examine

    for stage, described in loaded.expanded():
        diagnosis = examine(described, processes)
        if loaded.stages:
            typer.echo(f"stage {stage}")
        for name, value in diagnosis.facts:
            typer.echo(f"{name + ':':<22}{value}")
        for note in diagnosis.notes:
            typer.echo(f"note: {note}")
    typer.echo("No rule of the house is broken.")
