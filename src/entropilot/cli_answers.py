"""The command `cluster`, and what it shares with `prompts rank`: reading samples, judging and grading them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TextIO

import typer

from entropilot.cli_law import JsonOption, print_json
from entropilot.errors import UserError

if TYPE_CHECKING:
    from entropilot.answers.clusters import Clusters
    from entropilot.answers.judges import Judge
    from entropilot.readers.completions import Sampled

app = typer.Typer()

ROWS_AT_ONCE = 256  # whose answers are judged together

JudgeOption = Annotated[
    str,
    typer.Option(help="exact, math, entailment, embedding, verifier, or a dotted path f(a, b, question)."),
]
JudgeArgOption = Annotated[
    list[str] | None,
    typer.Option("--judge-arg", help="key=value for the judge: rule=loose, threshold=0.85, device=cuda:1"),
]
ShowOption = Annotated[int, typer.Option(min=0, help="Rows of the table; --json and --out hold all.")]
LevelOption = Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")]


class Judged(NamedTuple):
    """A row with its clusters and, where a gold answer is known, its grades."""

    sampled: Sampled
    clusters: Clusters
    correct: list[bool] | None


@app.command()
def cluster(
    file: Annotated[
        Path, typer.Argument(help="JSONL or Parquet with `completions` per row.", show_default=False)
    ],
    judge: JudgeOption = "math",
    model: Annotated[str | None, typer.Option(help="Folder or Hub id of a model judge.")] = None,
    judge_args: JudgeArgOption = None,
    extract: Annotated[
        str, typer.Option(help="auto, boxed, hash, phrase, tag, choice, last_line or whole.")
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
    low: Annotated[float | None, typer.Option(help="Of the window on H, nats.")] = None,
    high: Annotated[float | None, typer.Option(help="Of the window on H, nats.")] = None,
    level: LevelOption = 0.95,
    show: ShowOption = 20,
    out: Annotated[Path | None, typer.Option(help="JSONL with every row and what was found.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Cluster the answers of every prompt: semantic entropy, EMPO rewards, and whether the majority is right."""
    from entropilot.reports.text import aligned, number, one_line

    try:
        from entropilot.methods.empo import EMPO, MISSING, THRESHOLDS
    except ImportError as error:
        raise needs("The reward of EMPO", error) from error
    for option, value, names in (("missing", missing, MISSING), ("threshold", threshold, THRESHOLDS)):
        if value not in names:
            raise UserError(f"--{option} is {value!r}; choose one of {', '.join(names)}.")
    method = EMPO(threshold=threshold, low=low, high=high, missing=missing)  # type: ignore[arg-type]
    check_rule(extract)
    check_out(out, file)
    asked = find_judge(judge, model, judge_args)
    torn: list[int] = []
    found: list[dict[str, Any]] = []
    table = [["row", "answers", "clusters", "share", "H", "majority", "right", "accuracy"]]
    with writing(out) as file_out:
        for judged in judged_file(file, asked, extract, torn, "judge"):
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
        "judge": asked.name,
        "extract": extract,
        "missing": missing,
        "threshold": threshold,
    }
    summary = _summary(found, asked, torn, level)
    if as_json:
        print_json({**settings, "summary": summary, "rows": found})
        return
    if show:
        typer.echo(aligned(table, (5, 6)))
        say_more(summary["rows"] - show)
    for sentence in _sentences(summary, settings):
        typer.echo(sentence)


# --- reading, judging, grading --------------------------------------------------------------------------------------


def check_rule(name: str) -> None:
    """Refuse an extraction rule that does not exist."""
    from entropilot.answers.extract import RULES

    if name not in RULES:
        raise UserError(f"--extract is {name!r}; choose one of {', '.join(RULES)}.")


def check_out(out: Path | None, file: Path | None) -> None:
    """Refuse to write over the file that is read."""
    if out is not None and file is not None and out.resolve() == file.resolve():
        raise UserError(f"--out is {out}, which is read; give another file.")


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
    except ImportError as error:
        raise needs(f"The judge {name}", error) from error


def needs(what: str, error: ImportError) -> UserError:
    """Return the error of a package that is not installed."""
    return UserError(
        f'{what} needs {error.name or error}; install torch for your machine first, then: pip install "entropilot[train]"'
    )


def judged_file(file: Path, judge: Judge, rule: str, torn: list[int], graded: str) -> Iterator[Judged]:
    """Yield the rows of a file with clusters and grades, many rows to one call of the judge."""
    from entropilot.answers.extract import extract
    from entropilot.readers.completions import read_completions

    rows = read_completions(file, torn)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{file} holds no row with completions; give a file with at least one.")
    yield from judge_rows(chain([first], rows), judge, lambda text: extract(text, rule), graded, file)


def judge_rows(
    rows: Iterator[Sampled], judge: Judge, read: Any, graded: str, source: Path
) -> Iterator[Judged]:
    """Yield rows with their clusters and grades; `read` gives a completion's answer."""
    from entropilot.answers.clusters import cluster as cluster_groups
    from entropilot.answers.grading import gold_answer, grade

    while some := list(islice(rows, ROWS_AT_ONCE)):
        answers = [[read(text) for text in row.completions] for row in some]
        questions = [row.question for row in some]
        clusters = cluster_groups(answers, judge, questions)
        if graded == "correct":
            grades = [_recorded(source, row) for row in some]
        else:
            golds = [None if row.gold is None else gold_answer(row.gold) for row in some]
            grades = grade([found.answers for found in clusters], golds, judge, questions)
        for row, found, correct in zip(some, clusters, grades, strict=True):
            yield Judged(row, found, correct)


def _recorded(source: Path, row: Sampled) -> list[bool]:
    """Return a row's own verdicts, `correct`."""
    from entropilot.readers.completions import per_sample

    found = per_sample(source, row, "correct")
    if found is None or not all(value in (0, 1) for value in found):
        raise UserError(
            f"{source}: row {row.number} has no list of verdicts (true or false) in `correct`; leave out --graded correct."
        )
    return [bool(value) for value in found]


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
        right = label is not None and correct[found.labels.index(label)]
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
        f"{summary['rows']} prompts, {summary['completions']} completions, {summary['missing']} without an answer "
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


def left_out(summary: dict[str, Any]) -> Iterator[str]:
    if torn := summary["torn_rows"]:
        shown = ", ".join(map(str, torn[:10])) + (", …" if len(torn) > 10 else "")
        yield f"{len(torn)} rows are torn, or no JSON object, and are left out (row {shown})"


def _mean(found: dict[str, Any], summary: dict[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({summary['level']:.0%} {found['low']:.3f} to {found['high']:.3f})"


def say_more(rows: int) -> None:
    if rows > 0:
        typer.echo(f"and {rows} more; --show, --out and --json hold them")


def json_line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str) + "\n"


@contextlib.contextmanager
def writing(path: Path | None) -> Iterator[TextIO | None]:
    """Open a file that appears under its name only when all of it is written."""
    if path is None:
        yield None
        return
    partial = path.with_name(f"{path.name}.partial")
    try:
        file = partial.open("w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror}); choose another file with --out."
        ) from error
    try:
        with file:
            yield file
        os.replace(partial, path)
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror}); choose another file with --out."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
