"""Run the command line. Heavy imports stay inside the commands: `entropilot fit --help` must not wait for torch."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from entropilot import __version__
from entropilot.cli import (
    answers,
    control,
    diagnose,
    dynamics,
    evaluate,
    law,
    logits,
    prompts,
    recipes,
    report,
    train,
)
from entropilot.cli.common import say
from entropilot.cli.sandbox import sandbox_app
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
    help="Track, forecast and control policy entropy in RL for language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: loading rich and its Markdown takes a third of the time of `fit --help`
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"entropilot {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options of the program itself."""


app.add_typer(train.app)
app.add_typer(recipes.app, name="recipes")
app.add_typer(law.app)
app.add_typer(diagnose.app)
app.add_typer(report.app)
app.add_typer(answers.app)
app.add_typer(prompts.app, name="prompts")
app.add_typer(logits.app)
app.add_typer(dynamics.app)
app.add_typer(evaluate.app)
app.add_typer(control.app, name="control")
app.add_typer(sandbox_app, name="sandbox")


def _leave(code: int) -> NoReturn:
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        # Gloo's threads may still run, and the end of the interpreter then now and then aborts the process
        # ("terminate called without an active exception"), which hides the exit code. What the end of the interpreter
        # does for Python is done here: threads with work left are waited for, and what trackers registered is called.
        if code == 0:
            threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _fail(message: str) -> NoReturn:
    from entropilot.reports.text import one_line  # names out of files may hold terminal escapes

    say(one_line(message))
    sys.stdout.flush()
    _leave(2)


def _command(arguments: Sequence[str]) -> Callable[..., object]:
    """Return what runs the arguments: where they begin with a command, without the options that stand before one.

    To learn that such an option was not given, Typer imports pydantic, which is half of the time of `fit --help`.
    """
    command = get_command(app)
    if isinstance(command, TyperGroup) and arguments and arguments[0] in command.commands:
        command.add_help_option, command.params = False, []
    return command


def main() -> None:
    """Run the command line; errors for people are one sentence and exit code 2."""
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # A warning of ours (a torn line in a record) is a sentence for people; the place in our code is none of theirs.
    usual, warnings.formatwarning = warnings.formatwarning, lambda message, *_, **__: f"warning: {message}\n"
    try:
        _command(sys.argv[1:])(prog_name="entropilot")
    except SystemExit as leaving:  # Typer ends every command with it, one that went well, too
        if isinstance(leaving.code, str):  # a message, which the interpreter prints
            raise
        # A reader that has gone, such as `head`, is no failure; Typer says 1 and leaves this in the place of the output.
        gone = type(sys.stdout).__name__ == "PacifyFlushWrapper"
        _leave(0 if gone else leaving.code or 0)
    except UserError as error:
        _fail(f"error: {error}")
    except BrokenPipeError:
        _leave(0)
    finally:
        warnings.formatwarning = usual


if __name__ == "__main__":
    main()
