"""Define the command `prompts rank`: choose prompts to train on. Ranking a file needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from entropilot.answers.judged_rows import judged_file
from entropilot.answers.unanswered import Unanswered
from entropilot.cli.common import (
    ForceOption,
    JsonOption,
    JudgeArgOption,
    JudgeOption,
    LevelOption,
    PrefixOption,
    ShowOption,
    StopOption,
    TemplateOption,
    check_rule,
    counted,
    find_judge,
    left_out,
    print_json,
    say,
    say_more,
    spell_options,
    text_settings,
)
from entropilot.errors import TRAINING, UserError, need
from entropilot.files import check_output

app = typer.Typer(help="Choose prompts to train on.", no_args_is_help=True)


@app.callback()
def prompts() -> None:
    """Choose prompts to train on."""


@app.command()
@spell_options
def rank(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="JSONL, JSON, CSV or Parquet with `completions` per row, or rollouts of TRL or verl.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to sample from instead: sandbox, a folder, or a Hub id.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="Problems for --model: sandbox[:TIER], a file, or a Hub id.")
    ] = "sandbox",
    split: Annotated[str, typer.Option(help="Split of the data.")] = "train",
    problems: Annotated[
        int | None, typer.Option(min=1, help="Number of problems; default: 256 of the sandbox, else all.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Samples per prompt.")] = 16,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Nucleus of the sampling.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length limit of a completion.")] = 256,
    suffix: Annotated[str, typer.Option(help="Text added to the end of every problem.")] = "",
    template: TemplateOption = "chat",
    prefix: PrefixOption = "",
    stop: StopOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Completions per forward pass.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling.")] = 0,
    by: Annotated[
        str | None,
        typer.Option(
            help="variance, semantic_entropy, majority_share or token_entropy; default: variance where a gold "
            "answer is known, else semantic_entropy."
        ),
    ] = None,
    graded: Annotated[
        str, typer.Option(help="Who grades: judge, or correct (the column `correct` of the file).")
    ] = "judge",
    judge: JudgeOption = "math",
    judge_model: Annotated[str | None, typer.Option(help="Folder or Hub id of a model judge.")] = None,
    judge_args: JudgeArgOption = None,
    extract: Annotated[
        str | None,
        typer.Option(
            help="How the answer is found: auto, boxed, hash, …; default: auto, or the sandbox's own rule."
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Write only the first N to --out.")] = None,
    level: LevelOption = 0.95,
    show: ShowOption = 20,
    out: Annotated[
        Path | None, typer.Option(help="JSONL file to write; a recipe takes it as `data:`.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rank prompts by the variance of accuracy over k samples, or, without labels, by how much the samples disagree."""
    from entropilot.analysis.prompts import RULES
    from entropilot.evaluation.prompt_ranking import rank as rank_rows
    from entropilot.recipes.schema import Data
    from entropilot.reports.text import aligned, number, one_line

    if (file is None) == (model is None):
        raise UserError(
            "prompts rank takes either a FILE with completions, or --model and --data to sample; give one."
        )
    if graded not in ("judge", "correct"):
        raise UserError(f"--graded is {graded!r}; choose judge or correct.")
    if by is not None and by not in RULES:
        raise UserError(f"--by is {by!r}; choose one of {', '.join(RULES)}.")
    if extract is not None:
        check_rule(extract)
    if top is not None and out is None:
        raise UserError("--top says how many prompts are written; name the file with --out, or use --show.")
    if model is not None and k == 1 and by != "token_entropy":
        raise UserError("--k 1 can't tell how much samples differ; set it to 2 or more, such as 16.")
    if model is not None and temperature == 0 and k > 1:
        raise UserError(f"--temperature 0 gives {k} times the same completion; set it above 0, such as 1.")
    check_output(out, file, Path(data) if model is not None else None, force=force)
    if top_p == 0:
        raise UserError("--top-p 0 leaves no token to draw; give a share above 0, or 1 for all.")
    text = {**text_settings(template, prefix, stop), "suffix": suffix}
    torn: list[int] = []
    unanswered = Unanswered(extract or "auto")
    progress = None
    if file is not None:
        asked = find_judge(judge, judge_model, judge_args)
        rows = judged_file(file, asked, extract or "auto", torn, graded)
    else:
        own = Data(source=data).kind != "rows"
        graded = "correct" if own else graded
        asked = find_judge("exact" if own and judge == "math" else judge, judge_model, judge_args)
        need(*TRAINING, what="Sampling")
        from entropilot.cli.progress import Progress  # tqdm comes with the packages of training
        from entropilot.evaluation.prompt_samples import judged_samples

        progress = bar = Progress("prompts rank", "completion")
        rows = judged_samples(
            str(model), data, asked, extract, graded, split=split, problems=problems, text=text,
            on_start=bar.start, report=lambda done: bar.row(done, {}), samples=k,
            temperature=temperature, top_p=top_p, max_new_tokens=max_tokens, batch_size=batch_size, seed=seed,
        )  # fmt: skip
    try:
        ranked = rank_rows(unanswered.over(rows), str(file or data), by, level, torn)
    finally:
        if progress is not None:
            progress.close()
    if wrong := unanswered.warning():
        say(f"warning: {file or data}: {wrong}")
    written = 0 if out is None else ranked.write(out, top)
    results, summary = ranked.results, ranked.summary
    if as_json:
        shown = [
            {**result, "prompt": prompt} for result, prompt in zip(results, ranked.questions, strict=True)
        ]
        print_json({**summary, "rows": shown})
        return
    table = [["rank", "row", "score", "right", f"{level:.0%} interval", "H", "token H", "prompt"]]
    for result, prompt in islice(zip(results, ranked.questions, strict=True), show):
        ends = result["accuracy_interval"]
        table.append(
            [
                str(result["rank"]),
                str(result["row"]),
                number(result["score"]),
                "–" if result["correct"] is None else f"{result['correct']}/{result['samples']}",
                "–" if ends is None else " to ".join(number(end, ".2f") for end in ends),
                number(result["semantic_entropy"]),
                number(result["token_entropy"]),
                one_line(prompt or "–", 20),
            ]
        )
    if show:
        typer.echo(aligned(table, (7,)))
        say_more(len(results) - show)
    for sentence in _rank_sentences(summary):
        typer.echo(sentence)
    if out is not None:
        say(f"{counted(written, 'prompt')}: {out}")


def _rank_sentences(summary: dict[str, Any]) -> Iterator[str]:
    sizes = [
        counted(k, "sample") + ("" if n == summary["prompts"] else f" of {n}")
        for k, n in summary["samples"].items()
    ]
    yield f"{counted(summary['prompts'], 'prompt')}, {', '.join(sizes)}, ranked by {summary['by']}"
    if summary["tied_first"] > 1:
        yield (
            f"{summary['tied_first']} prompts share the first place; among equals the larger semantic entropy comes first, "
            "then the earlier row"
        )
    if summary["unclear"]:
        yield (
            f"the first place is uncertain with so few samples: {summary['unclear']} other prompts may have a larger "
            f"variance ({summary['level']:.0%} level); more samples of each prompt make the order clearer"
        )
    known = {rule: value for rule, value in summary["spearman_with_variance"].items() if value is not None}
    if known:
        said = ", ".join(f"{rule} {value:.2f}" for rule, value in known.items())
        yield f"rank correlation of the label-free rules with the variance: {said}"
    if summary["unknown"]:
        yield f"{summary['unknown']} prompts have no {summary['by']} and come last"
    if summary["without_completions"]:
        yield f"{summary['without_completions']} prompts have no completion and are left out"
    yield from left_out(summary)
