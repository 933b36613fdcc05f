"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from entropilot.cli.common import (
    EntropyOption,
    FrameworkOption,
    LogsArgument,
    PerformanceOption,
    open_log,
    say,
)

app = typer.Typer()


@app.command()
def report(
    runs: LogsArgument,
    out: Annotated[Path, typer.Option(help="File of the HTML page.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "entropilot report",
    performance: PerformanceOption = None,
    entropy: EntropyOption = None,
    framework: FrameworkOption = None,
) -> None:
    """Write one self-contained HTML page about runs of any framework, and print their table."""
    from entropilot.reports.page import write_report
    from entropilot.reports.table import format_table

    read = []
    for path in runs:
        reading = open_log(path, entropy, performance, None, framework)
        reading.run.header["columns"] = {"entropy": reading.entropy, "performance": reading.performance}
        read.append(reading.run)
    page = write_report(read, out, title=title)
    typer.echo(format_table(read))
    say(f"page: {page}")
