"""Define the command `evaluate`: accuracy of models, recorded completions, paired comparisons, sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from entropilot.cli.common import (
    JsonOption,
    JudgeArgOption,
    PrefixOption,
    StopOption,
    TemplateOption,
    find_judge,
    need_training_extra,
    print_json,
    say,
    spell_options,
    text_settings,
)
from entropilot.errors import UserError

app = typer.Typer()


@app.command()
@spell_options
def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model to evaluate: sandbox, a folder, or a Hub id. Repeat it to compare others with the first."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Problems: sandbox[:TIER], a JSONL, Parquet or CSV file, or a Hub id; default: sandbox."
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATA]...", help="More problems, as with --data.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data.")] = "test",
    problems: Annotated[
        int | None,
        typer.Option(min=1, help="Number of problems of each source; default: 256 of the sandbox, else all."),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Samples per problem (K); default: 1.")] = None,
    temperature: Annotated[
        str | None,
        typer.Option(help="Sampling temperature; 0 is greedy (default). Several make a sweep: 0,0.25,0.5,1."),
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Nucleus of the sampling; default: 1.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Length limit of a completion; default: 256.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling and of the intervals.")] = 0,
    preset: Annotated[
        str | None, typer.Option(help="Use the protocol of a paper: entropy-mechanism, empo or one-shot-em.")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="Grade by a reward: math, exact, sandbox[:TIER], none or a dotted path; default: "
            "the data's own, else math."
        ),
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
        str | None,
        typer.Option(
            help="Rule that finds the answer in a completion: auto, boxed, hash, last_line, mark, …"
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt before every problem.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Text added to the end of every problem.")] = None,
    template: TemplateOption = "chat",
    prefix: PrefixOption = "",
    stop: StopOption = None,
    engine: Annotated[str, typer.Option(help="Engine that samples: transformers or vllm.")] = "transformers",
    dtype: Annotated[
        str, typer.Option(help="Number type of the weights: float32, bfloat16, float16 or auto.")
    ] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Completions per forward pass.")] = 256,
    over_length: Annotated[
        str, typer.Option(help="Prompts that leave no room for a completion: refuse or drop.")
    ] = "refuse",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write: samples.jsonl, graded.jsonl, result.json.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the samples in --out.")] = False,
    completions: Annotated[
        Path | None, typer.Option(help="Grade the completions of a file; needs no model.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="Show paired differences to an earlier --out folder, or to one more model."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the accuracy and entropy of models on problems with known answers, with intervals."""
    from entropilot.evaluation.protocols import preset_named, temperatures

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
    text = text_settings(template, prefix, stop, system)
    if text["stop_strings"] and engine == "vllm":
        raise UserError("--stop is for --engine transformers; leave it out, or let transformers sample.")
    if resume and out is None:
        raise UserError("--resume continues the samples of a folder; name it with --out.")
    if completions is not None and (model or data or more or compare):
        raise UserError("--completions needs no model and no data; leave --model, --data and --compare out.")
    if completions is None and not model:
        raise UserError("--model is missing; give sandbox, a folder or a Hub id, or --completions FILE.")
    if judge is None and (judge_model or judge_args):
        raise UserError("--judge-model and --judge-arg are options of a judge; name it with --judge.")
    if judge is not None and reward is not None:
        raise UserError("--judge and --reward both say how answers are graded; give one of them.")
    from entropilot.inputs.hub import check_model

    for name in (*(model or []), *([compare] if compare is not None else [])):
        check_model(name, "--model" if name in (model or []) else "--compare")
    rule = extract or (protocol.extract if protocol is not None and reward in (None, "math") else None)
    need_training_extra()
    from entropilot.cli.progress import Progress
    from entropilot.evaluation.evaluate import assess, assess_completions
    from entropilot.evaluation.one_model import Settings
    from entropilot.evaluation.request import make_tasks

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
    sources = [*(data or ([] if more else ["sandbox"])), *(more or [])]
    tasks, said = make_tasks(
        sources, preset=protocol, temperatures=sweep, problems=problems, split=split, over_length=over_length,
        system=system, suffix=suffix, text=text, samples=samples, top_p=top_p, max_tokens=max_tokens,
    )  # fmt: skip
    notes += said
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
    own = model[0].startswith("sandbox")  # type: ignore[index]  # given, without --completions
    hints = {} if own else commands(model[0], sources, tasks[0].sampling[0], seed, dtype)  # type: ignore[index]
    _show(result, as_json, hints)


def _show(result: dict[str, Any], as_json: bool, hints: dict[str, str]) -> None:
    from entropilot.reports.text import aligned, one_line

    if as_json:
        print_json({**result, "harness": hints})
        return
    rows = [*result["results"], *result["means"]]
    if len(rows) == 1:
        _show_one(rows[0])
    else:
        _show_many(rows)
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


def _show_many(rows: list[dict[str, Any]]) -> None:
    """Print two tables of at most 80 columns for each model: what is right, and what the samples are like."""
    from entropilot.reports.text import aligned, number, one_line

    def heat(row: dict[str, Any]) -> str:
        return "–" if row.get("temperature") is None else f"{row['temperature']:g}"

    for model in dict.fromkeys(row["model"] for row in rows):
        right = [["data", "T", "n", "K", "avg@K", "95 %", "pass@K", "maj@K"]]
        about = [["data", "T", "tokens", "cut", "no answer", "sem. ent.", "tok. ent."]]
        for row in rows:
            if row["model"] != model:
                continue
            name = one_line(row["data"], 20)
            passes = [key for key in row if key.startswith("pass@")]
            ends = row["intervals"].get("accuracy")
            right.append([
                *(name, heat(row), str(row["problems"]), str(row.get("samples", "–")), number(row.get("accuracy"))),
                f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "–",
                number(row[passes[-1]]) if len(passes) > 1 else "–",
                number(row.get("majority")),
            ])  # fmt: skip
            about.append([
                *(name, heat(row), number(row.get("tokens"), ".1f"), number(row.get("truncated"))),
                *(number(row.get(key)) for key in ("no_answer", "semantic_entropy", "token_entropy")),
            ])  # fmt: skip
        typer.echo(one_line(model, 80))
        typer.echo(aligned(right))
        typer.echo(aligned(about))
        typer.echo("")
    typer.echo("95 %: bootstrap interval over problems")


def _show_one(row: dict[str, Any]) -> None:
    from entropilot.reports.text import number, one_line

    for name, value in row.items():
        if name == "intervals" or value is None or (name == "graded" and value == row["problems"]):
            continue
        ends = row["intervals"].get(name)
        exact = name in ("temperature", "top_p") or not isinstance(value, float)
        text = one_line(value) if exact else number(value, ".4f")
        typer.echo(f"{name + ':':<22}{text}" + (f"  [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""))
