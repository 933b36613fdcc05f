"""Define the command `diagnose`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from entropilot.cli.common import (
    EntropyOption,
    FrameworkOption,
    JsonOption,
    LogsArgument,
    PerformanceOption,
    StepOption,
    counted,
    open_log,
    print_json,
)

app = typer.Typer()


class FailOn(StrEnum):
    """Name the least severity at which the exit code is 1."""

    warning = "warning"
    error = "error"
    never = "never"


@app.command()
def diagnose(
    runs: LogsArgument,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="A control run: the same without the method. May be given several times."),
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="The least severity of a finding at which the exit code is 1.")
    ] = FailOn.warning,
    performance: PerformanceOption = None,
    entropy: EntropyOption = None,
    step: StepOption = None,
    framework: FrameworkOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find what is wrong with runs: collapse, explosion, dead groups, drift, truncation and more, with advice."""
    from entropilot.law.findings.find import NEEDS, find, too_short, unchecked
    from entropilot.law.findings.finding import SEVERITIES
    from entropilot.law.findings.signals import Signals
    from entropilot.reports.text import labels, one_line

    def signals_of(path: Path) -> Signals:
        reading = open_log(path, entropy, performance, step, framework, need_entropy=False)
        return Signals(reading.run, reading.entropy if reading.has_entropy else None, reading.performance)

    signals = [signals_of(path) for path in runs]
    controls = [signals_of(path) for path in against or []]
    results = [find(each, controls) for each in signals]
    if as_json:
        documents: list[dict[str, Any]] = [
            {
                "run": each.run.name,
                "path": str(path),
                "findings": [finding.document() for finding in findings],
                "not_logged": unchecked(each),
                "too_short": too_short(each),
            }
            for path, each, findings in zip(runs, signals, results, strict=True)
        ]
        print_json(documents)
    else:
        for label, each, findings in zip(
            labels([each.run for each in signals]), signals, results, strict=True
        ):
            checked = len(NEEDS) - len(too_short(each)) - len(unchecked(each))
            said = counted(len(findings), "finding") if findings else "no findings"
            if not findings and checked < len(NEEDS):
                said = (
                    f"no findings in {checked} of {len(NEEDS)} checks"
                    if checked
                    else "nothing could be checked"
                )
            typer.echo(f"{one_line(label)}: {said}")
            for finding in findings:
                for line in finding.lines():
                    typer.echo(("    " if line.startswith(" ") else "  ") + one_line(line))
            for why, names in (
                ("it holds too few values of what is needed", too_short(each)),
                ("nothing was logged for it", unchecked(each)),
            ):
                if names:
                    typer.echo(f"  not checked, because {why}: {', '.join(names)}")
    if fail_on is FailOn.never:
        return
    bound = SEVERITIES.index(fail_on.value)
    if any(SEVERITIES.index(finding.severity) >= bound for findings in results for finding in findings):
        raise typer.Exit(1)
