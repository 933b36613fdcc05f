"""Define the commands about the law: `fit`, `forecast`, `scaling`, `read`. None of them needs torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from entropilot.cli.common import (
    EntropyOption,
    FrameworkOption,
    JsonOption,
    LogArgument,
    LogsArgument,
    NameOption,
    PerformanceOption,
    StepOption,
    open_log,
    print_json,
    say,
)
from entropilot.errors import UserError
from entropilot.files import claim

app = typer.Typer()


@app.command()
def fit(
    runs: LogsArgument,
    performance: PerformanceOption = None,
    entropy: EntropyOption = None,
    step: StepOption = None,
    framework: FrameworkOption = None,
    name: NameOption = None,
    level: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Confidence level of the interval.")
    ] = 0.95,
    as_json: JsonOption = False,
) -> None:
    """Fit R = -a*exp(H) + b to runs of any framework and say how far to trust the ceiling -a + b."""
    from entropilot.law.assess import assess_run
    from entropilot.reports.text import aligned, labels, number, one_line

    readings = [open_log(path, entropy, performance, step, framework, name) for path in runs]
    results: list[dict[str, Any]] = []
    for path, reading in zip(runs, readings, strict=True):
        fitted, names, assessment = assess_run(reading.run, reading.entropy, reading.performance)
        low, high = fitted.interval(level)
        results.append(
            {
                "run": reading.run.name,
                "path": str(path),
                "framework": reading.framework,
                "entropy": names[0],
                "performance": names[1],
                "a": fitted.a,
                "b": fitted.b,
                "ceiling": fitted.ceiling,
                "ceiling_low": low,
                "ceiling_high": high,
                "level": level,
                "r2": fitted.r2,
                "rmse": fitted.rmse,
                "n": fitted.n,
                "dropped": fitted.dropped,
                "grade": assessment.grade,
                "verdict": assessment.verdict,
            }
        )
    if as_json:
        print_json(results)
        return
    rows = [["run", "a", "b", "ceiling", f"{level:.0%} interval", "R²", "RMSE", "n"]]
    for label, result in zip(labels([reading.run for reading in readings]), results, strict=True):
        values = [number(result[key], ".4f") for key in ("a", "b", "ceiling", "r2", "rmse")]
        values.insert(3, " to ".join(number(result[key]) for key in ("ceiling_low", "ceiling_high")))
        rows.append([label, *values, str(result["n"])])
    typer.echo(aligned(rows))
    for row, result in zip(rows[1:], results, strict=True):
        typer.echo(f"{row[0]}, R is {one_line(result['performance'], 40)}: {one_line(result['verdict'])}")


@app.command()
def forecast(
    run: LogArgument,
    prefix: Annotated[
        float, typer.Option(help="Share of the run that is used, 0.01 to 1; 0.15 is its first 15 %.")
    ] = 0.15,
    last_step: Annotated[
        float | None, typer.Option(help="Step to forecast; default: the run's last.")
    ] = None,
    performance: PerformanceOption = None,
    entropy: EntropyOption = None,
    step: StepOption = None,
    framework: FrameworkOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast final performance from the first part of a run, and backtest the paper's method on the rest."""
    from entropilot.law.by_law import paper_protocol
    from entropilot.law.forecast import describe, forecast_run

    if not 0.01 <= prefix <= 1:
        raise UserError(f"--prefix is {prefix:g}; give a share of the run from 0.01 to 1, such as 0.15.")
    reading = open_log(run, entropy, performance, step, framework, name)
    ahead = forecast_run(
        reading.run,
        prefix,
        last_step,
        reading.entropy,
        reading.performance if performance is not None else None,
        default=reading.performance,
        training_reward=reading.training_reward,
    )
    protocol = (
        None if prefix == 1 else paper_protocol(reading.run, prefix, reading.entropy, ahead.performance_name)
    )
    if as_json:
        print_json(ahead.document() | {"run": reading.run.name, "prefix": prefix, "paper_protocol": protocol})
        return
    for line in describe(ahead, prefix, protocol):
        typer.echo(line)


@app.command()
def scaling(
    runs: Annotated[
        list[str], typer.Argument(help="RUN:PARAMETERS of three or more sizes, such as runs/a:1.5e9.")
    ],
    size: Annotated[float, typer.Option(min=1.0, help="Non-embedding parameters of the size to predict.")],
    performance: PerformanceOption = None,
    entropy: EntropyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the law of a larger model from the fits of smaller ones: a and b are lines in ln N."""
    from entropilot.law.law import fit_run
    from entropilot.law.scaling import fit_family

    fits = {}
    for run in runs:
        path, _, params = run.rpartition(":")
        try:
            count = float(params)
        except ValueError:
            raise UserError(
                f"{run!r} is not of the form RUN:PARAMETERS; write for example runs/small:1.5e9."
            ) from None
        reading = open_log(Path(path), entropy, performance, None, None)
        fits[count] = fit_run(reading.run, entropy=reading.entropy, performance=reading.performance)[0]
    result = fit_family(fits).predict(size)._asdict()
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        if value is not None:
            typer.echo(f"{name + ':':<22}{value if isinstance(value, str) else _numbers(value)}")


@app.command()
def read(
    run: LogArgument,
    to: Annotated[Path, typer.Option(help="Folder for the run in our own records.")],
    performance: PerformanceOption = None,
    entropy: EntropyOption = None,
    step: StepOption = None,
    framework: FrameworkOption = None,
    name: NameOption = None,
) -> None:
    """Convert any framework's log to a run folder, which `fit`, `report` and every other command read."""
    from entropilot.records import FILE_NAME, RunWriter

    if os.path.exists(to / FILE_NAME):  # False, where Path.exists raises: claim says it then
        raise UserError(f"{to} already holds a run; choose another --to, or remove the folder.")
    reading = open_log(run, entropy, performance, step, framework, name)
    claim(to, "--to")
    writer = RunWriter(to, reading.run.header)
    for row in reading.run.rows:
        writer.row(row["step"], {name: value for name, value in row.items() if name != "step"})
    writer.end("converted")
    writer.close()
    say(f"{len(reading.run.rows)} steps: {to / 'run.jsonl'}")


def _numbers(value: Any) -> str:
    return " to ".join(f"{x:.4g}" for x in value) if isinstance(value, tuple) else f"{value:.4g}"
