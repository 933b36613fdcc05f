"""The command `prompts rank`: which prompts are worth training on. Reading a file it needs no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from entropilot.answers.judged_rows import Judged, judge_rows, judged_file
from entropilot.cli.common import (
    ForceOption,
    JsonOption,
    JudgeArgOption,
    JudgeOption,
    LevelOption,
    ShowOption,
    check_rule,
    find_judge,
    json_line,
    left_out,
    print_json,
    say,
    say_more,
)
from entropilot.errors import TRAINING, UserError, need
from entropilot.files import check_output, writing

if TYPE_CHECKING:
    from entropilot.answers.judge import Judge
    from entropilot.inputs.completions import Sampled

app = typer.Typer(help="Which prompts are worth training on.", no_args_is_help=True)

# Of a row, what belongs to its samples: a ranking leaves it out, and a recipe has no use for it.
OF_SAMPLES = ("completions", "extracted", "correct", "logprobs", "token_entropy")


@app.callback()
def prompts() -> None:
    """Which prompts are worth training on."""


@app.command()
def rank(
    file: Annotated[
        Path | None, typer.Argument(help="JSONL or Parquet with `completions` per row.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Sample from it: sandbox, a folder, or a Hub id.")] = None,
    data: Annotated[str, typer.Option(help="For --model: sandbox[:TIER], a file, or a Hub id.")] = "sandbox",
    split: Annotated[str, typer.Option(help="Split of the data.")] = "train",
    problems: Annotated[
        int | None, typer.Option(min=1, help="How many; default: 256 of the sandbox, else all.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Samples per prompt.")] = 16,
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length limit of a completion.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    by: Annotated[
        str | None,
        typer.Option(
            help="variance, semantic_entropy, majority_share or token_entropy; default: variance where a gold "
            "answer is known, else semantic_entropy."
        ),
    ] = None,
    graded: Annotated[str, typer.Option(help="judge, or correct: the file's own verdicts.")] = "judge",
    judge: JudgeOption = "math",
    judge_model: Annotated[str | None, typer.Option(help="Folder or Hub id of a model judge.")] = None,
    judge_args: JudgeArgOption = None,
    extract: Annotated[
        str | None, typer.Option(help="auto, boxed, hash, …; default: auto, of the sandbox its own.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Write only the first N to --out.")] = None,
    level: LevelOption = 0.95,
    show: ShowOption = 20,
    out: Annotated[Path | None, typer.Option(help="JSONL that a recipe takes as `data:`.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rank prompts by what k samples say: the variance of their accuracy, or, without labels, their disagreement."""
    from entropilot.analysis.prompts import RULES, agreement, rank_prompts, score_prompt
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
    if model is not None and temperature == 0 and k > 1:
        raise UserError(f"--temperature 0 gives {k} times the same completion; set it above 0, such as 1.")
    check_output(out, file, Path(data) if model is not None else None, force=force)
    torn: list[int] = []
    if file is not None:
        asked = find_judge(judge, judge_model, judge_args)
        rows = judged_file(file, asked, extract or "auto", torn, graded)
    else:
        own = Data(source=data).kind != "rows"
        graded = "correct" if own else graded
        asked = find_judge("exact" if own and judge == "math" else judge, judge_model, judge_args)
        settings = {"samples": k, "temperature": temperature, "top_p": top_p, "max_new_tokens": max_tokens,
                    "batch_size": batch_size, "seed": seed}  # fmt: skip
        rows = _sampled(str(model), data, split, problems, asked, extract, graded, settings)

    scores, kept, empty = [], [], 0
    for judged in rows:
        if not judged.sampled.completions:
            empty += 1
            continue
        entropy = _token_entropy(file or Path(data), judged.sampled)
        scores.append(
            score_prompt(judged.clusters.labels, judged.clusters.missing, judged.correct, entropy, level)
        )
        kept.append((judged.sampled.number, _without_samples(judged.sampled.row), judged.sampled.question))
    if by is None:
        by = "variance" if any(score.variance is not None for score in scores) else "semantic_entropy"
    if not scores:
        raise UserError(f"{file or data} has no prompt with a completion; there is nothing to rank.")
    ranking = rank_prompts(scores, by, level)
    results = [
        {"rank": place, "row": kept[i][0], "by": by, "score": ranking.values[i], **scores[i]._asdict()}
        for place, i in enumerate(ranking.order, start=1)
    ]
    ordered = [kept[i] for i in ranking.order]
    with writing(out) as file_out:
        if file_out is not None:
            for (_, row, _), result in islice(zip(ordered, results, strict=True), top):
                file_out.write(json_line(row | {"selection": result}))
    summary = {
        "source": str(file or data),
        "by": by,
        "prompts": len(scores),
        "samples": dict(sorted(Counter(score.samples for score in scores).items())),
        "tied_first": ranking.tied,
        "unclear": ranking.unclear,
        "unknown": ranking.unknown,
        "without_completions": empty,
        "torn_rows": torn,
        "level": level,
        "spearman_with_variance": {rule: agreement(scores, rule) for rule in RULES if rule != "variance"},
    }
    if as_json:
        shown = [
            {**result, "prompt": prompt} for result, (_, _, prompt) in zip(results, ordered, strict=True)
        ]
        print_json({**summary, "rows": shown})
        return
    table = [["rank", "row", "score", "right", "accuracy", f"{level:.0%} interval", "variance", "H", "majority", "token H",
              "prompt"]]  # fmt: skip
    for result, (_, _, prompt) in islice(zip(results, ordered, strict=True), show):
        low_high = result["accuracy_interval"]
        right = "–" if result["correct"] is None else f"{result['correct']}/{result['samples']}"
        table.append(
            [
                *(str(result["rank"]), str(result["row"]), number(result["score"]), right),
                number(result["accuracy"], ".2f"),
                "–" if low_high is None else " to ".join(number(end, ".2f") for end in low_high),
                *(
                    number(result[n])
                    for n in ("variance", "semantic_entropy", "majority_share", "token_entropy")
                ),
                one_line(prompt or "–", 40),
            ]
        )
    if show:
        typer.echo(aligned(table, (10,)))
        say_more(len(results) - show)
    for sentence in _rank_sentences(summary):
        typer.echo(sentence)
    if out is not None:
        say(f"{min(top or len(results), len(results))} prompts: {out}")


def _sampled(
    model: str,
    data: str,
    split: str,
    problems: int | None,
    judge: Judge,
    rule: str | None,
    graded: str,
    settings: dict[str, Any],
) -> Iterator[Judged]:
    """Yield problems sampled from a model, with clusters and grades."""
    from entropilot.answers.extract import extract

    need(*TRAINING, what="Sampling")
    from entropilot.cli.progress import Progress
    from entropilot.evaluation.prompt_samples import sample_problems
    from entropilot.inputs.completions import Sampled, gold_of, question_of
    from entropilot.recipes.schema import Data
    from entropilot.sandbox.tasks import get_tier, tier_of

    tier = tier_of(data)
    limit = problems or (256 if tier is not None else None)
    progress = Progress("prompts rank", "completion")
    try:
        drawn = sample_problems(
            model,
            Data(source=data, split=split, limit=limit),
            on_start=progress.start,
            report=lambda done: progress.row(done, {}),
            **settings,
        )
        rows = (
            Sampled(number, row, row["completions"], question_of(row), gold_of(row))
            for number, row in enumerate(drawn, start=1)
        )
        own = tier is not None and rule is None
        read = get_tier(tier).answer_of if own else lambda text: extract(text, rule or "auto")
        yield from judge_rows(rows, judge, read, graded, Path(data))
    finally:
        progress.close()


def _token_entropy(source: Path, row: Sampled) -> float | None:
    """Return the mean token entropy of a row's samples: `token_entropy` per sample, else −mean log p of `logprobs`."""
    from entropilot.inputs.completions import per_sample

    values = per_sample(source, row, "token_entropy")
    if values is None:
        logprobs = per_sample(source, row, "logprobs")
        if logprobs is None:
            return None
        if not all(isinstance(tokens, list) and all(map(_is_number, tokens)) for tokens in logprobs):
            raise UserError(
                f"{source}: `logprobs` of row {row.number} must hold a list of numbers per completion."
            )
        values = [-sum(tokens) / len(tokens) for tokens in logprobs if tokens]
    known = [value for value in values if value is not None]
    if not all(map(_is_number, known)):
        raise UserError(f"{source}: `token_entropy` of row {row.number} must hold a number per completion.")
    return sum(known) / len(known) if known else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _without_samples(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in OF_SAMPLES}


def _rank_sentences(summary: dict[str, Any]) -> Iterator[str]:
    sizes = [
        f"{k} samples" if n == summary["prompts"] else f"{k} samples of {n}"
        for k, n in summary["samples"].items()
    ]
    yield f"{summary['prompts']} prompts, {', '.join(sizes)}, ranked by {summary['by']}"
    if summary["tied_first"] > 1:
        yield (
            f"{summary['tied_first']} prompts share the first place; among equals the larger semantic entropy comes first, "
            "then the earlier row"
        )
    if summary["unclear"]:
        yield (
            f"so few samples leave the choice open: {summary['unclear']} other prompts may have the larger variance "
            f"(the first has it with less than {summary['level']:.0%})"
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
