"""Define the commands `train` and `check`."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from entropilot.cli.common import need_training_extra, say
from entropilot.errors import UserError

app = typer.Typer()


class WithOverrides(TyperCommand):
    """A command with a recipe: to an option that does not exist it says how a value of the recipe is given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # The class is click's, or that of Typer's own copy of click, which has no public name.
            if type(error).__name__ != "NoSuchOption":
                raise
            raise UserError(_instead(error)) from None


def _instead(error: Any) -> str:
    """Say what to write in place of an option that does not exist, given click's NoSuchOption."""
    from entropilot.recipes.schema import GRPO_KEYS, Recipe

    option, key = error.option_name, error.option_name.lstrip("-").replace("-", "_")
    keys = {field.alias or name for name, field in Recipe.model_fields.items()}
    if key in GRPO_KEYS:
        example = f"grpo.{key}=…"
    elif key.partition(".")[0] in keys:
        example = f"{key}=…"
    elif error.possibilities:
        return f"There is no option {option}; did you mean {error.possibilities[0]}?"
    else:
        example = "seed=1"
    return f"There is no option {option}; values of the recipe are given without dashes, as KEY=VALUE, such as {example}"


RecipeArgument = Annotated[
    Path,
    typer.Argument(
        help="Recipe: a YAML file, or the name of one in the package (see `entropilot recipes list`).",
        show_default=False,
    ),
]


OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="key=value, dotted keys reach into sections: grpo.max_steps=20")
]


ProcessesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Number of processes that will train; default: as many as run this command."),
]


@app.command(cls=WithOverrides)
def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue from the last whole checkpoint in --out; if none, begin anew."
        ),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Serve the live page while training, on this computer only.")
    ] = False,
    grace: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds after SIGTERM until this command exits, if a step is not done by then."
        ),
    ] = 25.0,
) -> None:
    """Train a model as a recipe says; the run's folder receives run.jsonl, tokens, checkpoints, model and report.html."""
    from entropilot.inputs.hub import check_model
    from entropilot.recipes.schema import load_recipe

    loaded = load_recipe(recipe, overrides)
    check_model(loaded.model)  # before torch is loaded, which takes longer than the answer
    folder = out or Path("runs") / loaded.name
    need_training_extra()
    from entropilot.cli.progress import Progress
    from entropilot.inputs.models import quiet
    from entropilot.training.leave import Terminated
    from entropilot.training.plan import steps_of
    from entropilot.training.stages import plan_stages, run_all

    quiet()
    plans = plan_stages(loaded, folder)
    progress = Progress(loaded.name)
    first = os.environ.get("RANK", "0") == "0"  # of several processes (accelerate launch), one speaks
    if first:
        for plan in plans:
            say(f"{plan.name}: steps: {steps_of(plan.config)}; results: {plan.out}")
        say(
            f"time: {_time(recipe, overrides, 'what is left is said while it trains; `check --time` measures it before')}"
        )
    told = {"on_start": progress.start, "on_row": progress.row, "on_alarm": progress.note} if first else {}
    folders = [plan.out for plan in plans]
    page = None
    if watch and first:
        from entropilot.reports.page.beside import LivePage

        page = LivePage(folders, loaded.name)
        say(f"watch: {page.address} (this computer only, until training ends)")
    try:
        model = run_all(plans, resume=resume, grace=grace, **told)
    except Terminated as stop:
        progress.close()
        if first:
            say(f"{stop}; --resume continues.")
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        progress.close()
        say(_interrupted(folder, staged=bool(loaded.stages)))
        raise typer.Exit(130) from None
    finally:
        progress.close()
        if page is not None:
            page.close()
    if first:
        say(f"model: {model}")
        say(f"record: {model.parent / 'run.jsonl'}")
        for line in _write_page(folders, folder / "report.html"):
            say(line)


def _time(recipe: Path, overrides: list[str] | None, otherwise: str) -> str:
    """Say how long a training takes, as the recipe's head has it (measured as it stands); or what else there is."""
    from entropilot.recipes.bundled import hardware

    said = hardware(recipe)
    if said is None:
        return otherwise
    return f"{said} (the recipe's own estimate{', without your changes' if overrides else ''})"


def _write_page(folders: list[Path], out: Path) -> list[str]:
    """Write the page of a run that is done, and return what to say of it; a page that fails is no failure of the run."""
    if find_spec("jinja2") is None:
        return []
    import traceback

    try:
        from entropilot.records import read_run
        from entropilot.reports.page.write import write_report

        return [f"page: {write_report([read_run(folder) for folder in folders], out)}"]
    except UserError as error:
        return [f"note: there is no page of this run: {error}"]
    except Exception as error:  # whatever it is, the model and the record are there
        reason = traceback.format_exception_only(error)[-1].strip()
        return [
            f"note: there is no page of this run ({reason}); `entropilot report {out.parent}` tries again."
        ]


def _interrupted(folder: Path, staged: bool) -> str:
    """Say what an interrupted run left, and how to go on."""
    if not any(folder.rglob("run.jsonl")):
        return "interrupted before the run began; nothing was written."
    kept = staged or any((folder / "checkpoints").glob("checkpoint-*"))
    further = (
        "--resume continues from the last checkpoint."
        if kept
        else "there is no checkpoint yet, so --resume begins anew."
    )
    return f"interrupted; the record in {folder} is readable, and {further}"


@app.command(cls=WithOverrides)
def check(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    processes: ProcessesOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder that the run will have; default: runs/NAME.")
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            help="Memory of a GPU, GiB: estimate what each process needs, and exit with 1 if it does not fit.",
            show_default=False,
        ),
    ] = None,
    launch: Annotated[
        str, typer.Option(help="With --gpu-memory: how the model lies on the GPUs (see launch-config).")
    ] = "multi_gpu",
    prompt_tokens: Annotated[
        int, typer.Option(help="With --gpu-memory: tokens of the longest prompt.")
    ] = 512,
    time: Annotated[
        bool,
        typer.Option(
            "--time",
            help="Load the model, train three rollouts, throw them away, and say about how long the whole takes here.",
        ),
    ] = False,
) -> None:
    """Validate a recipe and show batch sizes, number of steps, clip range and warnings. Loads no model, but for --time."""
    from entropilot.inputs.hub import check_model
    from entropilot.recipes.schema import load_recipe

    loaded = load_recipe(recipe, overrides)
    if time and (processes or int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise UserError(
            "--time measures one process; leave --processes out, or train a few steps as you will launch it."
        )
    if time:
        check_model(loaded.model)
    need_training_extra()
    from entropilot.inputs.problems import FILE_KINDS
    from entropilot.training.fitting import told
    from entropilot.training.stages import plan_stages

    try:
        plans, fits = plan_stages(loaded, out, processes=processes, elsewhere=True), True
    except UserError as error:
        source = Path(loaded.data.source).expanduser()
        if source.suffix in FILE_KINDS and not source.is_file():  # a note only, where the recipe is in order
            raise UserError(f"{error} Nor is the file {loaded.data.source} of data.source here.") from error
        raise
    for plan in plans:
        if plan.stage is not None:
            typer.echo(f"stage {plan.stage}")
        for name, value in plan.facts:
            typer.echo(f"{name + ':':<22}{value}")
        for note in plan.notes:
            typer.echo(f"note: {note}")
        if gpu_memory is not None:
            ranks = processes or int(os.environ.get("WORLD_SIZE", "1"))
            # The model of a later stage does not exist yet; it has the sizes of the first one.
            sized = replace(plan, model=plans[0].model)
            lines, room = told(sized, ranks, gpu_memory, launch, prompt_tokens)
            fits = fits and room
            for line in lines:
                typer.echo(line)
    if time:
        from entropilot.inputs.models import quiet
        from entropilot.training.duration import measure

        quiet()
        for plan, duration in zip(plans, measure(loaded), strict=True):
            typer.echo(f"{'time:':<22}{'' if plan.stage is None else f'stage {plan.stage}, '}{duration}")
    else:
        typer.echo(f"{'time:':<22}{_time(recipe, overrides, '--time measures it')}")
    typer.echo("OK: no problems found." if fits else "The recipe is valid, but it does not fit.")
    if not fits:
        raise typer.Exit(1)


@app.command(hidden=True)
def doctor(
    recipe: RecipeArgument, overrides: OverridesArgument = None, processes: ProcessesOption = None
) -> None:
    """Do what `entropilot check` does, under its old name."""
    say("note: `entropilot doctor` is now `entropilot check`; the old name still works.")
    check(recipe, overrides, processes)


@app.command("launch-config")
def launch_config(
    name: Annotated[str, typer.Argument(help="multi_gpu, fsdp2, zero2, zero3 or multi_cpu.")],
) -> None:
    """Print the path of a configuration for `accelerate launch --config_file`."""
    from importlib.resources import files

    folder = Path(str(files("entropilot.training") / "accelerate"))
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"launch-config: {name!r} does not exist; choose one of: {', '.join(known)}.")
    typer.echo(folder / f"{name}.yaml")
