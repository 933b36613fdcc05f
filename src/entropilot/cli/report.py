"""Define the commands `report` and `watch`: a page about runs, written once or served live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from entropilot.cli.common import EntropyOption, FrameworkOption, LogsArgument, PerformanceOption, say
from entropilot.errors import UserError

if TYPE_CHECKING:
    from entropilot.records import Run
    from entropilot.reports.page.build import Options

app = typer.Typer()

GroupOption = Annotated[
    str | None,
    typer.Option("--group-by", help="Average runs of a group: method, or a recipe key such as grpo.beta."),
]
AgainstOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--against", help="A control run; repeat it for several. Runs are paired with controls by seed."
    ),
]
TitleOption = Annotated[str | None, typer.Option(help="Title of the page; default: the names of the runs.")]


@app.command()
def report(
    runs: LogsArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File of the page, or folder of the exported charts.")
    ] = None,
    title: TitleOption = None,
    group_by: GroupOption = None,
    against: AgainstOption = None,
    kind: Annotated[
        str, typer.Option("--format", help="html, or charts for a paper: png, svg or csv.")
    ] = "html",
    entropy: EntropyOption = None,
    performance: PerformanceOption = None,
    framework: FrameworkOption = None,
) -> None:
    """Write one self-contained page about runs or logs, and print their table."""
    from entropilot.reports.page.export import FORMATS, export
    from entropilot.reports.page.write import write_report
    from entropilot.reports.table import format_table

    if kind not in ("html", *FORMATS):
        raise UserError(f"--format {kind} does not exist; choose html, {', '.join(FORMATS)}.")
    opened, options = _open(runs, against, title, group_by, (entropy, performance, framework))
    if kind != "html":
        written = export(opened, out or Path("figures"), kind, group_by)  # type: ignore[arg-type]  # just checked
        say(f"{len(written)} files: {out or Path('figures')}")
        return
    page = write_report(opened, out or Path("report.html"), options)
    if opened:
        typer.echo(format_table(opened))
    say(f"page: {page}")


@app.command()
def watch(
    runs: LogsArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    title: TitleOption = None,
    group_by: GroupOption = None,
    entropy: EntropyOption = None,
    performance: PerformanceOption = None,
    framework: FrameworkOption = None,
) -> None:
    """Serve the page of runs that are still going on; new rows and samples appear by themselves. Stop with Ctrl-C."""
    from entropilot.reports.page.serve import Live, make_server

    def again() -> list[Run]:
        return _open(runs, None, title, group_by, (entropy, performance, framework), quiet=True)[0]

    _, options = _open(runs, None, title, group_by, (entropy, performance, framework))
    server, address = make_server(Live(again, runs, options), port)
    say(f"watching at {address} (this computer only; Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("stopped.")
    finally:
        server.server_close()


def _open(
    paths: list[Path],
    against: list[Path] | None,
    title: str | None,
    group_by: str | None,
    columns: tuple[str | None, str | None, str | None],
    quiet: bool = False,
) -> tuple[list[Run], Options]:
    from entropilot.reports.page.build import Options
    from entropilot.reports.page.sources import open_source
    from entropilot.reports.text import one_line

    opened: list[Run] = []
    evaluations: list[dict[str, Any]] = []
    for path in [*paths, *(against or [])]:
        source = open_source(path, *columns)
        if source.run is not None:
            opened.append(source.run)
        if source.evaluation is not None:
            evaluations.append(source.evaluation)
        for line in () if quiet else source.lines:
            say(one_line(line))
    return opened, Options(title, group_by, len(against or []), evaluations)
