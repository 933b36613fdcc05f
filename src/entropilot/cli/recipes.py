"""Define the commands `recipes list`, `recipes show` and `recipes copy`."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer

from entropilot.cli.common import say

app = typer.Typer(help="List, show and copy the recipes that come with the package.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a recipe of the package.")]


@app.command("list")
def list_() -> None:
    """List the recipes of the package, with what each trains."""
    from entropilot.recipes.bundled import about, names

    width = max(map(len, names())) + 2
    for name in names():
        text = fill(
            about(name),
            80,
            initial_indent=f"{name:<{width}}",
            subsequent_indent=" " * width,
            break_on_hyphens=False,
        )
        typer.echo(text or name)


@app.command()
def show(name: NameArgument) -> None:
    """Print a recipe of the package."""
    from entropilot.recipes.bundled import path_of

    typer.echo(path_of(name).read_text(encoding="utf-8"), nl=False)


@app.command()
def copy(
    name: NameArgument,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="File to write; default: the recipe's own name here."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Copy a recipe of the package into a file, to change it."""
    from entropilot.files import check_output, write_text
    from entropilot.recipes.bundled import path_of

    source = path_of(name)
    target = file or Path(source.name)
    check_output(target, source, option="FILE", force=force, remedy="give another FILE")
    write_text(target, source.read_text(encoding="utf-8"), option="FILE")
    say(f"{target} is written; train it with: entropilot train {target}")
