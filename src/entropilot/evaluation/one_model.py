"""Evaluate one model on several data sources: sample what is missing to disk, grade everything, measure."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from entropilot.analysis.passk import mean_of_files
from entropilot.answers.judge import Judge
from entropilot.errors import UserError
from entropilot.evaluation.comparison import GRADED, cells
from entropilot.evaluation.grading import Grader, columns_of, grade, is_share, measure, no_answer_warning
from entropilot.evaluation.problems import Problems, fitted
from entropilot.evaluation.protocols import Sampling
from entropilot.evaluation.sampling.sampler import Transformers, ignored_settings
from entropilot.evaluation.sampling.samples_file import SampleFile, model_digest
from entropilot.files import claim, unclaim, write_lines
from entropilot.inputs.models import context_room, load_model, resolve_model
from entropilot.recipes.schema import Data, Recipe
from entropilot.records import package_versions

Line = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Hold one data source, and how it is sampled: one `Sampling` per temperature."""

    data: Data
    sampling: tuple[Sampling, ...]


@dataclass
class Settings:
    """Hold what all models of an evaluation share.

    Attributes:
        reward, judge, extract: see `build_grader`; None chooses by the data.
        engine: transformers or vllm.
        dtype: of the weights: float32, bfloat16, float16 or auto.
        batch_size: completions per forward pass.
        seed: of the sampling and of the bootstrap.
        out: folder for samples and results; None keeps nothing.
        resume: go on with what `out` holds.
        on_start: is called with the number of completions to come, for every model.
        report: is called with the number of completions so far.
    """

    reward: str | None = None
    judge: Judge | None = None
    extract: str | None = None
    engine: str = "transformers"
    dtype: str = "float32"
    batch_size: int = 256
    seed: int = 0
    out: Path | None = None
    resume: bool = False
    on_start: Callable[[int], None] | None = None
    report: Callable[[int], None] | None = None


@dataclass
class Outcome:
    """Hold the graded lines of one model, their measures, and what a reader should know."""

    model: str
    graded: list[Line]
    results: list[dict[str, Any]]
    means: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _engine(recipe: Recipe, settings: Settings) -> tuple[Any, Any, Callable[[int], int | None], list[str]]:
    """Return (engine, tokenizer, room of a prompt beside so many tokens, notes)."""
    if settings.engine == "vllm":
        from entropilot.evaluation.sampling.vllm import VLLM

        engine = VLLM(resolve_model(recipe), settings.dtype, settings.seed)
        limit = engine.context()
        notes = ["vllm does not tell the entropy of whole distributions, so there is no token entropy"]
        return (
            engine,
            engine.tokenizer,
            lambda tokens: None if limit is None else max(0, limit - tokens),
            notes,
        )
    model, tokenizer = load_model(recipe, {"dtype": settings.dtype})
    engine = Transformers(model, tokenizer, settings.batch_size)
    notes = []
    if not engine.ends:
        notes.append(f"{recipe.model} has no end token: every completion runs to the length limit")
    if ignored := ignored_settings(model):
        told = ", ".join(f"{name} = {value}" for name, value in ignored.items())
        notes.append(
            f"{recipe.model}: its generation config asks for {told}, which an evaluation does not apply"
        )
    return engine, tokenizer, lambda tokens: context_room(model, tokens), notes


def assess_one(
    recipe: Recipe,
    folder: Path | None,
    tasks: Sequence[Task],
    loaded: Sequence[Problems],
    graders: Sequence[Grader],
    settings: Settings,
) -> Outcome:
    """Sample and grade one model on every task."""
    temporary = None
    if folder is None:
        folder = temporary = Path(tempfile.mkdtemp(prefix="entropilot-evaluate-"))
    new = claim(folder)
    file = None
    try:
        engine, tokenizer, room, notes = _engine(recipe, settings)
        places = []
        for task, problems in zip(tasks, loaded, strict=True):
            longest = max(sampling.max_tokens for sampling in task.sampling)
            kept = fitted([row["prompt"] for row in problems.rows], tokenizer, task.data, room(longest))
            if len(kept) < len(problems.rows):
                left = len(problems.rows) - len(kept)
                notes.append(
                    f"{problems.name}: {left} prompts leave no room for a completion and were left out"
                )
            places.append(kept)
        file = SampleFile(folder, _header(recipe, tasks, loaded, engine, settings), resume=settings.resume)
        if file.dropped:
            notes.append(f"{file.path}: a torn last line was dropped; its problem was sampled again")
        _sample(engine, file, tasks, loaded, places, settings)
        file.close()
        wanted = {problems.name: set(kept) for problems, kept in zip(loaded, places, strict=True)}
        outcome = _grade(recipe.model, file, tasks, loaded, wanted, graders, settings)
        outcome.notes = [*notes, *outcome.notes]
        if temporary is None:
            write_lines(folder / GRADED, outcome.graded)
        return outcome
    except UserError:
        unclaim(folder, new)
        raise
    finally:
        if file is not None:
            file.close()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        gc.collect()  # the next model needs the memory of this one


def _header(
    recipe: Recipe, tasks: Sequence[Task], loaded: Sequence[Problems], engine: Any, settings: Settings
) -> dict[str, Any]:
    source = resolve_model(recipe)
    return {
        "model": model_digest(source) or source,
        "model_name": recipe.model,
        "data": {
            problems.name: {"digest": problems.digest, "problems": len(problems.rows)} for problems in loaded
        },
        "settings": {
            "seed": settings.seed,
            "engine": engine.name,
            "dtype": settings.dtype,
            **({"stop": stops} if (stops := tasks[0].data.stop_strings) else {}),
            "sampling": {
                problems.name: [asdict(sampling) for sampling in task.sampling]
                for task, problems in zip(tasks, loaded, strict=True)
            },
        },
        "versions": package_versions(),
    }


def _sample(
    engine: Any,
    file: SampleFile,
    tasks: Sequence[Task],
    loaded: Sequence[Problems],
    places: Sequence[list[int]],
    settings: Settings,
) -> None:
    plan = []
    for task, problems, kept in zip(tasks, loaded, places, strict=True):
        for sampling in task.sampling:
            keys = {place: (problems.name, sampling.temperature, problems.indices[place]) for place in kept}
            plan.append((problems, sampling, [place for place in kept if keys[place] not in file.done]))
    if settings.on_start is not None:
        settings.on_start(sum(len(todo) * sampling.samples for _, sampling, todo in plan))
    before = 0
    for problems, sampling, todo in plan:
        place_of = {problems.indices[place]: place for place in todo}

        def report(done: int, before: int = before) -> None:
            if settings.report is not None:
                settings.report(before + done)

        for indices, groups in engine.draw(
            [problems.rows[place]["prompt"] for place in todo],
            [problems.indices[place] for place in todo],
            samples=sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_new_tokens=sampling.max_tokens,
            seed=settings.seed,
            report=report,
        ):
            file.append(
                {
                    **problems.line(place_of[index]),
                    "temperature": sampling.temperature,
                    "texts": [sample.text for sample in group],
                    "ids": [sample.ids for sample in group],
                    "entropy": [sample.entropy for sample in group],
                    "cut": [sample.cut for sample in group],
                }
                for index, group in zip(indices, groups, strict=True)
            )
        before += len(todo) * sampling.samples


def _grade(
    model: str,
    file: SampleFile,
    tasks: Sequence[Task],
    loaded: Sequence[Problems],
    wanted: dict[str, set[int]],
    graders: Sequence[Grader],
    settings: Settings,
) -> Outcome:
    outcome = Outcome(model, [], [])
    by_task: list[list[list[Line]]] = []
    for task, problems, grader in zip(tasks, loaded, graders, strict=True):
        mine = {problems.indices[place] for place in wanted[problems.name]}

        def lines(name: str = problems.name, mine: set[int] = mine) -> Iterator[Line]:
            return (line for line in file.lines() if line["data"] == name and line["index"] in mine)

        rows = {
            (problems.name, index): row for index, row in zip(problems.indices, problems.rows, strict=True)
        }
        failed = grader.failures()
        graded = sorted(grade(lines(), grader, rows), key=lambda line: (line["temperature"], line["index"]))
        outcome.notes += given_up(grader, failed)
        example = next((line["texts"][0] for line in lines()), "")
        outcome.notes += no_answer_warning(problems.name, graded, example, grader.rule)
        found = cells(graded)
        by_task.append([])
        for sampling in task.sampling:
            part = found[problems.name, sampling.temperature]
            outcome.graded += part
            by_task[-1].append(part)
            result = {
                "model": model,
                "data": problems.name,
                **asdict(sampling),
                **measure(part, seed=settings.seed),
            }
            outcome.results.append(result)
    if len(tasks) > 1:
        for position in range(len(tasks[0].sampling)):
            outcome.means.append(mean_over_data(model, [parts[position] for parts in by_task], settings.seed))
    return outcome


def mean_over_data(model: str, parts: Sequence[Sequence[Line]], seed: int) -> dict[str, Any]:
    """Return the means of the files' means, every file weighing the same, for the measures that all of them have."""
    columns = [columns_of(part) for part in parts]
    temperatures = {part[0]["temperature"] for part in parts}
    found: dict[str, Any] = {
        "model": model,
        "data": f"mean of {len(parts)}",
        "temperature": temperatures.pop() if len(temperatures) == 1 else None,
        "problems": sum(map(len, parts)),
        "intervals": {},
    }
    for name in columns[0]:
        if all(name in column for column in columns):
            result = mean_of_files([column[name] for column in columns], share=is_share(name), seed=seed)
            found[name] = result.value
            found["intervals"][name] = None if result.low is None else [result.low, result.high]
    return found


def given_up(grader: Grader, before: int) -> list[str]:
    """Return a note where the judge gave comparisons up since it had given up `before`."""
    failed = grader.failures() - before
    return [f"the judge gave {failed} comparisons up; they count as different"] if failed else []
