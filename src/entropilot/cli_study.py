"""The command `study`: many runs with their controls, and the tables that come out of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from entropilot.cli_law import need_training_extra, say
from entropilot.errors import UserError

app = typer.Typer(help="Many runs with their controls, over seeds.", no_args_is_help=True)

SMALL = ("wide_clip", "clip_cov_restrain_1")


@app.callback()
def _group() -> None:
    """Keep `study` a group while it has one command."""


@app.command()
def exploration(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs; what is finished there is not run again.")
    ] = None,
    small: Annotated[
        bool,
        typer.Option("--small", help="Two seeds, three arms: six runs, at most 15 minutes on two cores."),
    ] = False,
    arms: Annotated[
        str | None, typer.Option(help="Comma-separated; their controls come with them. `list` names all.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Comma-separated; default: the five that are reported.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs side by side, one thread each.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print every row instead of the tables.")] = False,
) -> None:
    """Exploration on a fixed pool: GRPO, what is done against entropy collapse, and the control of each."""
    need_training_extra()
    from entropilot.studies import arms as known
    from entropilot.studies.exploration import study
    from entropilot.studies.tables import tables

    if arms == "list":
        for name, arm in known.ARMS.items():
            typer.echo(f"{name:<28}{arm.about}; control: {arm.control or '–'}")
        return
    chosen = tuple(name.strip() for name in arms.split(",")) if arms else SMALL if small else known.REPORTED
    try:
        numbers = (
            [int(seed) for seed in seeds.split(",")] if seeds else list(known.REPORT[: 2 if small else None])
        )
    except ValueError as error:
        raise UserError(f"--seeds {seeds} is no list of numbers; write for example --seeds 1,2,3.") from error
    known.with_controls(chosen)  # a wrong name is said before anything is run
    folder = out or Path("runs") / "exploration"
    found = study(folder, chosen, numbers, jobs=jobs, report=say)
    typer.echo(json.dumps(found, indent=1) if as_json else tables(found))
    if not as_json:
        typer.echo(f"\nseeds {numbers}; ± is half of the 95 % t interval over seeds. Runs: {folder}")
