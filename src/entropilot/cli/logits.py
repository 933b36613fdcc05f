"""Define the command `logits`: compare the logits of models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from entropilot.cli.common import (
    ForceOption,
    JsonOption,
    PrefixOption,
    StopOption,
    TemplateOption,
    print_json,
    say,
    spell_options,
    text_settings,
)
from entropilot.errors import TRAINING, UserError, need
from entropilot.files import check_output, write_json

app = typer.Typer()


@app.command()
@spell_options
def logits(
    model: Annotated[
        list[str],
        typer.Option(
            help="Model: sandbox, a folder, or a Hub id. Repeat it to compare others with the first."
        ),
    ],
    data: Annotated[
        str, typer.Option(help="Problems: sandbox[:TIER], a JSONL, Parquet or CSV file, or a Hub id.")
    ] = "sandbox",
    split: Annotated[str, typer.Option(help="Split of the data.")] = "test",
    problems: Annotated[int, typer.Option(min=1, help="Number of problems.")] = 20,
    scores: Annotated[
        str,
        typer.Option(help="Use raw logits, or processed ones: divided by the temperature, cut to the top k."),
    ] = "raw",
    samples: Annotated[int, typer.Option(min=1, help="Completions per problem.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Nucleus of the sampling.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Logits kept by --scores processed; 0 keeps all.")] = 50,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length limit of a completion.")] = 500,
    floor: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least probability of a token that counts as a candidate.")
    ] = 0.01,
    level: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Confidence level of the intervals.")
    ] = 0.95,
    draws: Annotated[int, typer.Option(min=100, help="Resamples of the prompts, for the intervals.")] = 2000,
    suffix: Annotated[str, typer.Option(help="Text added to the end of every problem.")] = "",
    template: TemplateOption = "chat",
    prefix: PrefixOption = "",
    stop: StopOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Completions per forward pass.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling and of the intervals.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write, with all numbers and histograms.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="HTML page to write, with the densities of all models.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the logits of models on text that they generate: mean, spread, skewness, top mass, entropy."""
    if scores not in ("raw", "processed"):
        raise UserError(f"--scores is {scores!r}; choose raw or processed.")
    if top_p == 0:
        raise UserError("--top-p is 0, which leaves no token to sample; give a share above 0, or 1 for all.")
    text = {**text_settings(template, prefix, stop), "suffix": suffix}
    check_output(out, Path(data), force=force)
    check_output(figure, Path(data), out, option="--figure", force=force)
    need(*TRAINING, *(["plotly"] if figure is not None else []), extra="train,report")
    from entropilot.analysis.logits import compare
    from entropilot.cli.progress import Progress
    from entropilot.evaluation.logits import study_models
    from entropilot.recipes.schema import Data

    settings: dict[str, Any] = {
        "scores": scores,
        "samples": samples,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "max_new_tokens": max_tokens,
        "floor": floor,
        "seed": seed,
    }
    source = Data(source=data, split=split, limit=problems, **text)
    progress = Progress("logits", "completion")
    try:
        models = study_models(
            model,
            source,
            batch_size=batch_size,
            on_start=progress.start,
            report=lambda done: progress.row(done, {}),
            **settings,
        )
    finally:
        progress.close()
    try:
        result = compare(models, level=level, draws=draws, seed=seed)
    except ValueError as error:
        raise UserError(str(error)) from error
    result = {"data": data, "split": split, **text, **settings, **result}
    if out is not None:
        write_json(out, result)
        say(f"numbers: {out}")
    if figure is not None:
        from entropilot.reports.logit_figure import write_logit_figure

        say(f"figure: {write_logit_figure(result, figure, scores)}")
    if as_json:
        print_json(result)
    else:
        _print(result, scores, floor)


# What the rows of the table are called; each names what it is over.
ROWS = {
    "mean": "mean",
    "sd": "standard deviation",
    "skewness": "skewness",
    "kurtosis": "excess kurtosis",
    "top1": "mass of the top 1",
    "top10": "mass of the top 10",
    "top50": "mass of the top 50",
    "entropy": "entropy, nats",
    "candidates": "candidates",
}


def _print(result: dict[str, Any], scores: str, floor: float) -> None:
    from entropilot.reports.text import one_line

    percent = f"{result['level']:.0%} intervals over prompts"
    for model in result["models"]:
        typer.echo(one_line(model["name"]))
        typer.echo(
            f"  {model['prompts']} prompts, {model['tokens']} tokens, {model['values']} {scores} scores; {percent}"
        )
        _rows(model, floor)
    for difference in result["differences"]:
        typer.echo(f"{one_line(difference['model'])} minus {one_line(difference['minus'])}, paired by prompt")
        _rows(difference, floor)


def _rows(cells: dict[str, Any], floor: float) -> None:
    for name, label in ROWS.items():
        label += f" of p ≥ {floor:g}" if name == "candidates" else ""
        value, low, high = (cells[name][key] for key in ("value", "low", "high"))
        ends = "" if low is None or high is None else f"  [{low:.4f}, {high:.4f}]"
        shown = math.nan if value is None else value
        typer.echo(f"  {label + ':':<26}{shown:>10.4f}{ends}")
