"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from entropilot.cli.common import say

app = typer.Typer()

RunsArgument = Annotated[
    list[Path], typer.Argument(help="Folders that `entropilot train` wrote.", show_default=False)
]


@app.command()
def report(
    runs: RunsArgument,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Its title.")] = "entropilot report",
) -> None:
    """Write one self-contained page of runs, and print their table."""
    from entropilot.records import read_run
    from entropilot.reports.page import write_report
    from entropilot.reports.table import format_table

    read = [read_run(path) for path in runs]
    page = write_report(read, out, title=title)
    typer.echo(format_table(read))
    say(f"page: {page}")
