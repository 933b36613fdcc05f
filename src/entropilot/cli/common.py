"""Options and helpers that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from entropilot.answers.judge import Judge

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from entropilot.errors import TRAINING, UserError, need

# How messages that name a recipe's key are told by commands that have an option for it.
_SPELT = (
    (re.compile(r"Name yours with data\.(\w+)_column"), r"Rename yours to \1"),
    (re.compile(r"^data\.source: "), "--data: "),
    (re.compile(r"^data\.(split|template): "), r"--\1: "),
    (re.compile(r"(?<=set )data\.(template|over_length)\b"), lambda key: "--" + key[1].replace("_", "-")),
    (re.compile(r"(?<=leave out )data\.template\b"), "--template"),
    (re.compile(r"\bdata: sandbox\b"), "--data sandbox"),
    (re.compile(r"^reward: "), "--reward: "),
    (re.compile(r"^model: "), ""),  # of --model or of --compare; the sentence names the folder
)

Command = TypeVar("Command", bound=Callable[..., Any])


def spell_options(command: Command) -> Command:
    """Let a command's errors name its options where they name the keys of a recipe."""

    @wraps(command)
    def spelling(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except UserError as error:
            text = str(error)
            for key, option in _SPELT:
                text = key.sub(option, text)
            raise UserError(text) from error

    return spelling  # type: ignore[return-value]  # wraps keeps the signature


LogArgument = Annotated[
    Path,
    typer.Argument(
        help="A run folder, or a log: TRL, verl, OpenRLHF, slime, W&B, TensorBoard, Trackio, MLflow, a console, a "
        "notebook, a table."
    ),
]


LogsArgument = Annotated[
    list[Path], typer.Argument(help="Run folders, or logs of other frameworks.", show_default=False)
]


ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


TemplateOption = Annotated[
    str,
    typer.Option(help="Turn prompts into text by the chat template (chat), or take them as raw text (none)."),
]


PrefixOption = Annotated[
    str,
    typer.Option(help="Text put before every problem, such as examples; in bash $'...' holds line breaks."),
]


StopOption = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        help=r"End completions at this ASCII character, such as \n for one line. Repeat it for several.",
    ),
]


def text_settings(
    template: str, prefix: str, stop: list[str] | None, system: str | None = None
) -> dict[str, Any]:
    r"""Return the fields of `recipes.schema.Data` that say how problems become text; \n and \t are spelt out.

    Raises:
        UserError: an unknown template, a stop that is no single ASCII character, or a system turn in raw text.
    """
    if template not in ("chat", "none"):
        raise UserError(f"--template is {template!r}; choose chat or none.")
    if template == "none" and system is not None:
        raise UserError(
            "--template none sends no turns, so --system has no place; put its text into --prefix."
        )
    stops = [{r"\n": "\n", r"\t": "\t"}.get(text, text) for text in stop or []]
    for text in stops:
        if len(text) != 1 or not text.isascii():
            raise UserError(rf"--stop is {text!r}; give a single ASCII character, such as \n.")
    return {"template": template, "prefix": prefix, "stop_strings": stops}


def counted(n: int, noun: str) -> str:
    """Return "1 prompt", "2 prompts": a count with its noun."""
    return f"{n} {noun}{'s' * (n != 1)}"


def say(text: str) -> None:
    """Print for people, to standard error; standard output is for results."""
    typer.echo(text, err=True)


def print_json(value: Any) -> None:
    """Print strict JSON: what is not finite becomes null."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(value) for key, value in item.items()}
        if isinstance(item, list):
            return [plain(value) for value in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    typer.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def need_training_extra() -> None:
    """Refuse where the packages of training are not installed."""
    need(*TRAINING)


EntropyOption = Annotated[
    str | None, typer.Option("--entropy", help="Column of the entropy; default: the framework's.")
]


PerformanceOption = Annotated[
    str | None,
    typer.Option(
        "--performance", help="Column of the performance; default: validation, else the training reward."
    ),
]


StepOption = Annotated[
    str | None, typer.Option("--step", help="Column that holds the step; default: the framework's.")
]


FrameworkOption = Annotated[
    str | None, typer.Option("--framework", help="Framework of the log, where a folder holds several.")
]


NameOption = Annotated[
    str | None,
    typer.Option("--run", help="Name of the run, where a file holds several (Trackio, a W&B chart)."),
]


def open_log(
    path: Path,
    entropy: str | None,
    performance: str | None,
    step: str | None,
    framework: str | None,
    name: str | None = None,
    need_entropy: bool = True,
) -> Any:
    """Read a log of any framework, and print on standard error which columns were taken and what was left out."""
    from entropilot.readers import read as read_log
    from entropilot.reports.text import one_line

    columns = {"entropy": entropy, "performance": performance, "step": step}
    reading = read_log(path, framework=framework, run=name, need_entropy=need_entropy, **columns)
    ours = reading.framework == "entropilot"  # its columns are no surprise; what was left out is
    for line in reading.lines():
        if not ours or line.startswith("skipped") or line in reading.notes:
            say(one_line(line))
    return reading


JudgeOption = Annotated[
    str,
    typer.Option(
        help="Judge of equivalence: exact, math, entailment, embedding, verifier, or the dotted path of f(a, b, question)."
    ),
]


JudgeArgOption = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-arg",
        help="Option of the judge's class, as key=value: rule=loose, threshold=0.85, device=cuda:1.",
    ),
]


ShowOption = Annotated[
    int, typer.Option(min=0, help="Rows of the table to print; --json and --out hold all.")
]


LevelOption = Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence level of the intervals.")]


def check_rule(name: str) -> None:
    """Refuse an extraction rule that does not exist."""
    from entropilot.answers.extraction.extract import RULES

    if name not in RULES:
        raise UserError(f"--extract is {name!r}; choose one of {', '.join(RULES)}.")


def find_judge(name: str, model: str | None, arguments: list[str] | None) -> Judge:
    """Return the judge that the options name; a value of --judge-arg is JSON where it can be, else text."""
    from entropilot.answers.judges import build_judge

    options: dict[str, Any] = {} if model is None else {"model": model}
    for argument in arguments or []:
        key, equals, text = argument.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(
                f"--judge-arg {argument!r} is not of the form key=value; write for example rule=loose."
            )
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    try:
        return build_judge(name, **options)
    except ImportError:
        need(*TRAINING, what=f"The judge {name}")
        raise


def say_more(rows: int) -> None:
    """Say that a table is cut, and where the other rows are."""
    if rows > 0:
        typer.echo(f"and {rows} more; --show, --out and --json hold them")


def json_line(row: dict[str, Any]) -> str:
    """Return a row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False, default=str) + "\n"


def left_out(summary: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each kind of row that was left out."""
    if torn := summary["torn_rows"]:
        shown = ", ".join(map(str, torn[:10])) + (", …" if len(torn) > 10 else "")
        yield f"{len(torn)} rows are torn, or no JSON object, and are left out (row {shown})"
