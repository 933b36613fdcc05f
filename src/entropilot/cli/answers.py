"""Define the command `cluster`: cluster the answers of every prompt, and grade them where gold answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from entropilot.answers.judge import name_of
from entropilot.answers.judged_rows import Judged, judged_file
from entropilot.answers.unanswered import Unanswered
from entropilot.cli.common import (
    ForceOption,
    JsonOption,
    JudgeArgOption,
    JudgeOption,
    LevelOption,
    ShowOption,
    check_rule,
    counted,
    find_judge,
    json_line,
    left_out,
    print_json,
    say,
    say_more,
)
from entropilot.errors import UserError
from entropilot.files import check_output, writing

if TYPE_CHECKING:
    from entropilot.answers.judge import Judge

app = typer.Typer()


@app.command()
def cluster(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSONL, JSON, CSV or Parquet with `completions` per row, or rollouts of TRL or verl.",
            show_default=False,
        ),
    ],
    judge: JudgeOption = "math",
    model: Annotated[str | None, typer.Option(help="Folder or Hub id of a model judge.")] = None,
    judge_args: JudgeArgOption = None,
    extract: Annotated[
        str,
        typer.Option(
            help="How answers are found: auto, strict, boxed, hash, phrase, tag, choice, first, lenient, last_line, mark "
            "or whole."
        ),
    ] = "auto",
    missing: Annotated[
        str, typer.Option(help="Reward without an answer: singleton, zero or penalty.")
    ] = "singleton",
    threshold: Annotated[
        str,
        typer.Option(
            help="Groups that give a reward: none, below_log_g, max_share_0.2, max_share_0.25, window."
        ),
    ] = "none",
    low: Annotated[
        float | None, typer.Option(help="With --threshold window: lowest semantic entropy (nats).")
    ] = None,
    high: Annotated[
        float | None, typer.Option(help="With --threshold window: highest semantic entropy (nats).")
    ] = None,
    level: LevelOption = 0.95,
    show: ShowOption = 20,
    out: Annotated[Path | None, typer.Option(help="JSONL with every row and what was found.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Cluster the answers of every prompt: semantic entropy, EMPO rewards, and whether the majority is right."""
    from entropilot.methods.empo import EMPO, MISSING, THRESHOLDS
    from entropilot.reports.text import aligned, number, one_line

    for option, value, names in (("missing", missing, MISSING), ("threshold", threshold, THRESHOLDS)):
        if value not in names:
            raise UserError(f"--{option} is {value!r}; choose one of {', '.join(names)}.")
    method = EMPO(threshold=threshold, low=low, high=high, missing=missing)  # type: ignore[arg-type]
    check_rule(extract)
    check_output(out, file, force=force)
    asked = find_judge(judge, model, judge_args)
    torn: list[int] = []
    found: list[dict[str, Any]] = []
    unanswered = Unanswered(extract)
    table = [["row", "answers", "clusters", "share", "H", "majority", "right", "accuracy"]]
    with writing(out) as file_out:
        for judged in unanswered.over(judged_file(file, asked, extract, torn, "judge")):
            result = _row(judged, method.rewards(judged.clusters.labels, judged.clusters.missing))
            if file_out is not None:
                file_out.write(json_line(judged.sampled.row | {"clusters": result}))
            if len(table) <= show:
                right = {None: "–", True: "yes", False: "no"}[result["majority_right"]]
                counts = [
                    str(sum(not gone for gone in judged.clusters.missing)),
                    str(len(judged.clusters.sizes)),
                ]
                values = [number(result[name], ".2f") for name in ("majority_share", "semantic_entropy")]
                said = one_line(result["majority"] if result["majority"] is not None else "–", 40)
                grade = number(result["accuracy"], ".2f")
                table.append([str(result["row"]), *counts, *values, said, right, grade])
            found.append(result if as_json else {name: result[name] for name in _SUMMED})
    settings = {
        "file": str(file),
        "judge": name_of(asked),
        "extract": extract,
        "missing": missing,
        "threshold": threshold,
    }
    summary = _summary(found, asked, torn, level)
    if wrong := unanswered.warning():
        say(f"warning: {file}: {wrong}")
    if as_json:
        print_json({**settings, "summary": summary, "rows": found})
        return
    if show:
        typer.echo(aligned(table, (5, 6)))
        say_more(summary["rows"] - show)
    for sentence in _sentences(summary, settings):
        typer.echo(sentence)
    if out is not None:
        say(f"{counted(summary['rows'], 'row')}: {out}")


# --- reading, judging, grading --------------------------------------------------------------------------------------


# --- results ----------------------------------------------------------------------------------------------------------

_SUMMED = (
    "row",
    "completions",
    "missing",
    "accuracy",
    "majority_right",
    "majority_tied",
    "semantic_entropy",
    "clusters",
    "left_out",
)


def _row(judged: Judged, rewards: list[float | None]) -> dict[str, Any]:
    from entropilot.answers.grading import majority

    sampled, found, correct = judged
    label, tied = majority(found)
    right = None
    if correct is not None:
        right = label is not None and correct[found.leaders[label]]
    size, name = len(found.labels), sampled.row.get("id")
    return {
        "row": sampled.number,
        "id": name if name is None or isinstance(name, str | int | float) else str(name),
        "completions": size,
        "missing": sum(found.missing),
        "answers": found.answers,
        "labels": found.labels,
        "clusters": len(found.sizes),
        "shares": found.shares,
        "semantic_entropy": found.semantic_entropy if size else None,
        "rewards": rewards,
        "left_out": None in rewards,
        "majority": None if label is None else found.representatives[label],
        "majority_share": None if label is None else found.shares[label],
        "majority_tied": tied,
        "gold": sampled.gold,
        "correct": correct,
        "accuracy": sum(correct) / size if correct else None,
        "majority_right": right if size else None,
    }


def _summary(rows: list[dict[str, Any]], judge: Judge, torn: list[int], level: float) -> dict[str, Any]:
    from entropilot.analysis.auroc import auroc
    from entropilot.analysis.passk import estimates

    filled = [row for row in rows if row["completions"]]
    graded = [row for row in filled if row["majority_right"] is not None]
    columns: dict[str, list[float]] = {"semantic_entropy": [row["semantic_entropy"] for row in filled]}
    if graded:
        columns["majority_accuracy"] = [float(row["majority_right"]) for row in graded]
        columns["accuracy"] = [row["accuracy"] for row in graded]
    means = {
        name: estimates({name: values}, share={"accuracy", "majority_accuracy"}, level=level)[name]._asdict()
        for name, values in columns.items()
        if values
    }
    area = auroc(
        [row["semantic_entropy"] for row in graded],
        [not row["majority_right"] for row in graded],
        level=level,
    )
    report = getattr(judge, "report", None)
    return {
        "rows": len(rows),
        "completions": sum(row["completions"] for row in rows),
        "missing": sum(row["missing"] for row in rows),
        "without_completions": len(rows) - len(filled),
        "torn_rows": torn,
        "graded": len(graded),
        "accuracy": means.get("accuracy"),
        "majority_accuracy": means.get("majority_accuracy"),
        "majority_tied": sum(row["majority_tied"] for row in filled),
        "semantic_entropy": means.get("semantic_entropy"),
        "clusters": sum(row["clusters"] for row in filled) / max(1, len(filled)),
        "left_out": sum(row["left_out"] for row in filled),
        "auroc": area._asdict(),
        "level": level,
        "truncated": getattr(judge, "truncated", None),
        "failed": None if report is None else sum(report.counts.values()),
    }


def _sentences(summary: dict[str, Any], settings: dict[str, str]) -> Iterator[str]:
    """Yield the summary in words."""
    yield (
        f"{counted(summary['rows'], 'prompt')}, {counted(summary['completions'], 'completion')}, "
        f"{summary['missing']} without an answer "
        f"(judge {settings['judge']}, extraction {settings['extract']})"
    )
    if summary["semantic_entropy"] is not None:
        yield f"semantic entropy {_mean(summary['semantic_entropy'], summary)} nats, {summary['clusters']:.2f} clusters"
    if summary["graded"]:
        tied = summary["majority_tied"]
        note = f" ({tied} tied: the first answer of the largest is taken)" if tied else ""
        yield (
            f"accuracy {_mean(summary['accuracy'], summary)}, "
            f"of the majority {_mean(summary['majority_accuracy'], summary)}{note}"
        )
        area = summary["auroc"]
        if area["value"] is None:
            yield "semantic entropy as a sign of a wrong majority: not defined, all majorities are alike"
        else:
            yield (
                f"AUROC of semantic entropy for a wrong majority {_mean(area, summary)} "
                f"({area['positive']} wrong, {area['negative']} right)"
            )
    else:
        yield "no gold answers: accuracy is not known"
    if summary["left_out"]:
        yield f"{summary['left_out']} prompts are outside the threshold {settings['threshold']} and give no reward"
    if summary["without_completions"]:
        yield f"{summary['without_completions']} prompts have no completion and count nowhere"
    yield from left_out(summary)
    if summary["truncated"]:
        yield f"{summary['truncated']} texts were too long for the judge's model and were cut"
    if summary["failed"]:
        yield f"{summary['failed']} comparisons failed or ran out of time and count as not equivalent"


def _mean(found: dict[str, Any], summary: dict[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({summary['level']:.0%} {found['low']:.3f} to {found['high']:.3f})"
