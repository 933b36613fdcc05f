"""The command line. Heavy imports stay inside the commands: `entropilot fit --help` must not wait for torch."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from entropilot import (
    cli_answers,
    cli_control,
    cli_dynamics,
    cli_evaluate,
    cli_law,
    cli_logits,
    cli_prompts,
    cli_study,
)
from entropilot.cli_law import need_training_extra, say
from entropilot.errors import UserError

# Nothing phones home, and generation never waits for a fork warning, unless the user decided otherwise.
QUIET_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_DISABLED_SERVICE_TELEMETRY": "1",
    # Threads that wait by spinning take the core from each other on a busy machine: 12 steps of the quickstart beside
    # two other processes took 46 s so, and 16 s with waiting threads that sleep.
    "OMP_WAIT_POLICY": "passive",
}

app = typer.Typer(
    help="Reinforcement learning of reasoning models, with entropy in hand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
sandbox_app = typer.Typer(help="The tiny model in the package, and its tasks.", no_args_is_help=True)
app.add_typer(cli_law.app)
app.add_typer(cli_answers.app)
app.add_typer(cli_prompts.app, name="prompts")
app.add_typer(cli_logits.app)
app.add_typer(cli_dynamics.app)
app.add_typer(cli_evaluate.app)
app.add_typer(cli_control.app, name="control")
app.add_typer(cli_study.app, name="study")
app.add_typer(sandbox_app, name="sandbox")

RecipeArgument = Annotated[Path, typer.Argument(help="A recipe file (YAML).", show_default=False)]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="key=value, dotted keys reach into sections: grpo.max_steps=20")
]
RunsArgument = Annotated[
    list[Path], typer.Argument(help="Folders that `entropilot train` wrote.", show_default=False)
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
    from entropilot.recipes import load_recipe

    loaded = load_recipe(recipe, overrides)
    folder = out or Path("runs") / loaded.name
    need_training_extra()
    from entropilot.progress import Progress

    progress = Progress(loaded.name)
    first = os.environ.get("RANK", "0") == "0"  # of several processes (accelerate launch), one speaks
    try:
        from entropilot.engines.stages import train_stages as run

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
    from entropilot.recipes import load_recipe

    loaded = load_recipe(recipe, overrides)
    need_training_extra()
    from entropilot.engines.doctor import examine

    for stage, described in loaded.expanded():
        diagnosis = examine(described, processes)
        if loaded.stages:
            typer.echo(f"stage {stage}")
        for name, value in diagnosis.facts:
            typer.echo(f"{name + ':':<22}{value}")
        for note in diagnosis.notes:
            typer.echo(f"note: {note}")
    typer.echo("No rule of the house is broken.")


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


@sandbox_app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder of the base model.")],
    tier: Annotated[str, typer.Option(help="Which tier's text.")] = "chains",
    steps: Annotated[int, typer.Option(min=1)] = 4500,
    batch_size: Annotated[int, typer.Option(min=1)] = 96,
    learning_rate: Annotated[float, typer.Option(min=0.0)] = 2e-3,
    seed: Annotated[int, typer.Option()] = 0,
    start: Annotated[
        str | None,
        typer.Option(help="A sandbox model's folder, or sandbox:TIER, to go on from; default: from scratch."),
    ] = None,
    hidden_size: Annotated[
        int | None, typer.Option(min=8, help="Default 128; the MLP is three times as wide.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Default 3.")] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Default 4; half as many for keys and values.")
    ] = None,
) -> None:
    """Make a tier's base model (chains, from scratch: about 12 minutes on two cores).

    The pool's was made so: --tier pool --start sandbox:chains --steps 300 --batch-size 128 --learning-rate 5e-4
    """
    need_training_extra()
    from entropilot.engines.loading import quiet
    from entropilot.engines.run import claim, unclaim
    from entropilot.progress import Progress
    from entropilot.sandbox.pretrain import pretrain as run
    from entropilot.sandbox.tasks import get_tier

    try:
        chosen = get_tier(tier)
    except ValueError as error:
        raise UserError(str(error)) from error
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give a new folder with --out.")
    origin, architecture = _origin(start, hidden_size, layers, heads)
    new = claim(out)
    quiet()
    progress = Progress(f"pretrain {tier}")
    progress.start(steps)
    try:
        run(
            chosen,
            out,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            start=origin,
            report=lambda step, loss: progress.row(step + 1, {"loss": loss}),
            **architecture,
        )
    finally:
        progress.close()
        unclaim(out, new)
    say(f"model: {out}")


def _origin(
    start: str | None, hidden_size: int | None, layers: int | None, heads: int | None
) -> tuple[Path | None, dict[str, int]]:
    """Return the folder to go on from, and what is changed in the architecture; both at once make no sense."""
    architecture: dict[str, int] = {}
    if hidden_size is not None:
        architecture |= {"hidden_size": hidden_size, "intermediate_size": 3 * hidden_size}
    if layers is not None:
        architecture["num_hidden_layers"] = layers
    if heads is not None:
        architecture |= {"num_attention_heads": heads, "num_key_value_heads": max(1, heads // 2)}
    width, count = hidden_size or 128, heads or 4
    if width % count or width // count % 2:
        raise UserError(
            f"--hidden-size {width} and --heads {count} give no even size per head; choose a multiple."
        )
    if heads is not None and heads > 1 and heads % 2:
        raise UserError(
            f"--heads {heads} is odd, and keys and values have half as many; choose an even number."
        )
    if start is None:
        return None, architecture
    if architecture:
        raise UserError("--start brings its own architecture; remove --hidden-size, --layers and --heads.")
    from entropilot.engines.doctor import resolve_model
    from entropilot.recipes import Recipe

    found = Path(resolve_model(Recipe(model=start)))
    if not found.is_dir():
        raise UserError(f"--start {start} is no folder; give a sandbox model's folder or sandbox:TIER.")
    return found, architecture


@sandbox_app.command()
def properties(
    tier: Annotated[str, typer.Option()] = "pool",
    model: Annotated[str | None, typer.Option(help="Default: the tier's own in the package.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Problems.")] = 128,
    samples: Annotated[int, typer.Option(min=1, help="Attempts at each.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the problems.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Of supervised training.")] = 100,
) -> None:
    """Measure what fixes a tier: how often its base model succeeds, and what it learns from right solutions."""
    need_training_extra()
    from entropilot.engines.loading import load_model, quiet
    from entropilot.recipes import Recipe
    from entropilot.sandbox.tasks import get_tier
    from entropilot.studies.properties import attempts, capacity

    try:
        chosen = get_tier(tier)
        found = chosen.problems("train", count, seed)
    except ValueError as error:
        raise UserError(str(error)) from error
    quiet()
    loaded, tokenizer = load_model(Recipe(model=model or f"sandbox:{tier}"))
    tried = attempts(loaded, tokenizer, chosen, found, samples)
    typer.echo(f"pass@1    {tried.accuracy:.3f}")
    for k in (8, 64, 256):
        if k <= samples:
            typer.echo(f"pass@{k:<4} {tried.pass_at(k):.3f}")
    typer.echo(f"greedy    {attempts(loaded, tokenizer, chosen, found, 1, 0.0).accuracy:.3f}")
    learned = capacity(loaded, tokenizer, chosen, found, steps=steps)
    typer.echo(f"supervised, greedy on the same problems, {steps} steps: {learned:.3f}")


@sandbox_app.command()
def problems(
    tier: Annotated[str, typer.Option()] = "chains",
    split: Annotated[str, typer.Option(help="train, validation or test")] = "train",
    count: Annotated[int, typer.Option(min=1)] = 10,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Print problems of a tier as JSONL with the columns prompt and answer."""
    from entropilot.sandbox.tasks import SPLITS, get_tier

    if split not in SPLITS:
        raise UserError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    try:
        found = get_tier(tier).problems(split, count, seed)  # type: ignore[arg-type]  # just checked
    except ValueError as error:
        raise UserError(str(error)) from error
    for problem in found:
        typer.echo(json.dumps({"prompt": problem.prompt, "answer": problem.answer}))


def _exit(message: str, code: int) -> NoReturn:
    from entropilot.reports.text import one_line  # names out of files may hold terminal escapes

    say(one_line(message))
    sys.stdout.flush()
    sys.exit(code)


def main() -> None:
    """Run the command line; errors for people are one sentence and exit code 2."""
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # A warning of ours (a torn line in a record) is a sentence for people; the place in our code is none of theirs.
    usual, warnings.formatwarning = warnings.formatwarning, lambda message, *_, **__: f"warning: {message}\n"
    try:
        app(prog_name="entropilot")
    except UserError as error:
        _exit(f"error: {error}", 2)
    except BrokenPipeError:
        sys.exit(0)
    finally:
        warnings.formatwarning = usual


if __name__ == "__main__":
    main()
