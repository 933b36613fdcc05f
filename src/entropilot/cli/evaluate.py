"""The command `evaluate`: accuracy of models on problems, recorded completions, paired comparisons, sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from entropilot.cli.common import JsonOption, JudgeArgOption, find_judge, need_training_extra, print_json, say
from entropilot.errors import UserError
from entropilot.inputs.hub import check_model

app = typer.Typer()

# What the table shows, in this order; all measures are in --json and in the lines below a single evaluation.
_COLUMNS = ("accuracy", "pass", "majority", "semantic_entropy", "token_entropy", "tokens", "truncated")
_HEADINGS = ("avg@K", "pass@K", "maj@K", "sem. ent.", "tok. ent.", "tokens", "cut")


@app.command()
def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Option(help="sandbox, a folder, or a Hub id; several are compared with the first."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="sandbox[:TIER], a JSONL/Parquet/CSV file, or a Hub id; default: sandbox."),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATA]...", help="More data, as behind --data.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data.")] = "test",
    problems: Annotated[
        int | None, typer.Option(min=1, help="How many; default: 256 of the sandbox, else all.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="K, per problem; default: 1.")] = None,
    temperature: Annotated[
        str | None, typer.Option(help="0 is greedy (default); several for a sweep: 0,0.25,0.5,1.")
    ] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Nucleus; default: 1.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Length limit of a completion; default: 256.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling and the intervals.")] = 0,
    preset: Annotated[
        str | None, typer.Option(help="A paper's protocol: entropy-mechanism, empo or one-shot-em.")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(help="math, exact, sandbox, none or a dotted path; default: by the data, else math."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Compare answers by a judge: exact, math, entailment, embedding, verifier, or a dotted path."
        ),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Folder or Hub id of a model judge.")] = None,
    judge_args: JudgeArgOption = None,
    extract: Annotated[
        str | None, typer.Option(help="How the answer is found: auto, boxed, hash, last_line, …")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system turn before every problem.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Added to the user's turn.")] = None,
    engine: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Completions per forward pass.")] = 256,
    over_length: Annotated[
        str, typer.Option(help="What to do with prompts that leave no room: refuse or drop.")
    ] = "refuse",
    out: Annotated[
        Path | None, typer.Option(help="Folder for samples.jsonl, graded.jsonl and result.json.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the samples in --out.")] = False,
    completions: Annotated[
        Path | None, typer.Option(help="Grade these recorded completions; no model is needed.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="An earlier --out folder, or a model: paired differences.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure models on problems with a verifiable answer: avg@K, pass@k, maj@K, entropies, with intervals."""
    from entropilot.evaluation.protocols import overridden, preset_named, temperatures

    sweep = temperatures(temperature)
    protocol = preset_named(preset) if preset is not None else None
    for name, value, known in (
        ("over-length", over_length, ("refuse", "drop")),
        ("engine", engine, ("transformers", "vllm")),
        ("dtype", dtype, ("float32", "bfloat16", "float16", "auto")),
    ):
        if value not in known:
            raise UserError(f"--{name} is {value!r}; choose {', '.join(known[:-1])} or {known[-1]}.")
    if top_p == 0:
        raise UserError(
            "--top-p 0 leaves no token to draw; give a share above 0, or --temperature 0 for greedy."
        )
    if resume and out is None:
        raise UserError("--resume goes on with the samples of a folder; name it with --out.")
    if completions is not None and (model or data or more or compare):
        raise UserError("--completions needs no model and no data; leave --model, --data and --compare out.")
    if completions is None and not model:
        raise UserError("--model is missing; give sandbox, a folder or a Hub id, or --completions FILE.")
    if judge is None and (judge_model or judge_args):
        raise UserError("--judge-model and --judge-arg are options of a judge; name it with --judge.")
    if judge is not None and reward is not None:
        raise UserError("--judge and --reward both say how answers are graded; give one of them.")
    for name in (*(model or []), *([compare] if compare is not None else [])):
        check_model(name, "--model" if name in (model or []) else "--compare")
    rule = extract or (protocol.extract if protocol is not None and reward in (None, "math") else None)
    need_training_extra()
    from entropilot.cli.progress import Progress
    from entropilot.evaluation.evaluate import assess, assess_completions
    from entropilot.evaluation.one_model import Settings, Task
    from entropilot.recipes.schema import Data

    asked = None if judge is None else find_judge(judge, judge_model, judge_args)
    progress = Progress("evaluate", "completion")
    settings = Settings(
        reward=reward, judge=asked, extract=rule, engine=engine, dtype=dtype, batch_size=batch_size, seed=seed, out=out,
        resume=resume, on_start=progress.start, report=lambda done: progress.row(done, {}),
    )  # fmt: skip
    notes = [] if protocol is None else [f"preset {preset}: {protocol.source}", *protocol.notes]
    if completions is not None:
        _show(assess_completions(completions, settings), as_json, {})
        return
    tasks = []
    for source in [*(data or ([] if more else ["sandbox"])), *(more or [])]:
        kind = Data(source=source).kind
        own = kind != "rows"
        task = Data(
            source=source,
            split=split,
            limit=problems or (256 if kind == "sandbox" else None),
            over_length=over_length,  # type: ignore[arg-type]  # just checked
            system=system
            if system is not None
            else protocol.system
            if protocol is not None and not own
            else None,
            suffix=suffix
            if suffix is not None
            else protocol.suffix
            if protocol is not None and not own
            else "",
        )
        sampling = overridden(
            protocol.sampling(source) if protocol is not None else _plain_sampling(),
            samples=samples, top_p=top_p, max_tokens=max_tokens,
        )  # fmt: skip
        tasks.append(Task(task, tuple(sampling.at(t) for t in sweep or [sampling.temperature])))
    drawn = [sampling for task in tasks for sampling in task.sampling]
    if samples is not None and samples > 1:
        if all(sampling.temperature == 0 for sampling in drawn):
            raise UserError(
                f"--samples {samples} at temperature 0 would be copies of one greedy answer; set --temperature above 0, "
                "or leave --samples out."
            )
        if any(sampling.temperature == 0 for sampling in drawn):
            notes.append("at T = 0 there is one sample per problem: greedy answers are all alike")
    try:
        result = assess(model or [], tasks, settings, compare)
    except KeyboardInterrupt:
        progress.close()
        kept = (
            "nothing was kept; --out keeps what is finished"
            if out is None
            else f"{out} keeps what is finished"
        )
        say(f"interrupted; {kept}{'.' if out is None else ', and --resume goes on from there.'}")
        raise typer.Exit(130) from None
    finally:
        progress.close()
    from entropilot.evaluation.harness import commands

    result["notes"] = [*notes, *result["notes"]]
    sources = [task.data.source for task in tasks]
    hints = {} if model[0].startswith("sandbox") else commands(model[0], sources, drawn[0], seed, dtype)  # type: ignore[index]
    _show(result, as_json, hints)


def _plain_sampling() -> Any:
    """Return the sampling of an evaluation without a preset."""
    from entropilot.evaluation.protocols import Sampling

    return Sampling()


def _show(result: dict[str, Any], as_json: bool, hints: dict[str, str]) -> None:
    from entropilot.reports.text import aligned, one_line

    if as_json:
        print_json({**result, "harness": hints})
        return
    rows = [*result["results"], *result["means"]]
    if len(rows) == 1:
        _show_one(rows[0])
    else:
        many = len({row["model"] for row in rows}) > 1
        table = [[*(["model"] if many else []), "data", "T", "n", "K", *_HEADINGS]]
        for row in rows:
            names = [one_line(row["model"], 30)] if many else []
            heat = "–" if row.get("temperature") is None else f"{row['temperature']:g}"
            count = row.get("samples", "–")
            cells = [_value(row, name) for name in _COLUMNS]
            table.append([*names, one_line(row["data"], 40), heat, str(row["problems"]), str(count), *cells])
        typer.echo(aligned(table, (0, 1) if many else (0,)))
        typer.echo("(95 % bootstrap intervals over problems in brackets)")
    for comparison in result["comparisons"]:
        typer.echo("")
        typer.echo(one_line(f"{comparison['model']} minus {comparison['base']}, {comparison['data']}", 120)
                   + f" at T = {comparison['temperature']:g}, paired by problem:")  # fmt: skip
        lines = [["measure", "difference", "95 %", "problems", "better", "worse"]]
        for name, found in comparison["differences"].items():
            ends = "–" if found["low"] is None else f"{found['low']:+.4f} to {found['high']:+.4f}"
            counts = [str(found[key]) for key in ("problems", "better", "worse")]
            lines.append([name, f"{found['value']:+.4f}", ends, *counts])
        typer.echo(aligned(lines))
    for note in result["notes"]:
        say(one_line(note) if note.startswith("warning: ") else f"note: {one_line(note)}")
    if hints:
        say("the same model in other harnesses (their prompts and graders differ):")
        for command in hints.values():
            say(f"  {one_line(command)}")


def _value(row: dict[str, Any], name: str) -> str:
    """Return a cell of the table; accuracy with its interval."""
    from entropilot.reports.text import number

    if name == "pass":
        found = [key for key in row if key.startswith("pass@")]
        return number(row[found[-1]]) if len(found) > 1 else "–"
    text = number(row.get(name), ".1f" if name == "tokens" else ".3f")
    ends = row["intervals"].get(name)
    return f"{text} [{ends[0]:.3f}, {ends[1]:.3f}]" if name == "accuracy" and ends else text


def _show_one(row: dict[str, Any]) -> None:
    from entropilot.reports.text import number, one_line

    for name, value in row.items():
        if name == "intervals" or value is None or (name == "graded" and value == row["problems"]):
            continue
        ends = row["intervals"].get(name)
        exact = name in ("temperature", "top_p") or not isinstance(value, float)
        text = one_line(value) if exact else number(value, ".4f")
        typer.echo(f"{name + ':':<22}{text}" + (f"  [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""))
