"""Evaluate models on problems: sample to disk, grade, measure, compare. `entropilot evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entropilot.errors import UserError
from entropilot.evaluation.comparison import GRADED, cells, compare, read_graded
from entropilot.evaluation.grading import build_grader, grade, measure, no_answer_warning
from entropilot.evaluation.one_model import Outcome, Settings, Task, assess_one, given_up, mean_over_data
from entropilot.evaluation.problems import problems_of, recorded
from entropilot.evaluation.protocols import name_of
from entropilot.evaluation.sampling.samples_file import FILE_NAME
from entropilot.files import claim, unclaim, write_lines
from entropilot.inputs.models import quiet, resolve_model
from entropilot.recipes.schema import Recipe


def assess(
    models: Sequence[str], tasks: Sequence[Task], settings: Settings, against: str | None = None
) -> dict[str, Any]:
    """Evaluate models and return everything as plain data: results, means, comparisons, notes.

    Args:
        models: sandbox, folders or Hub ids; the first is what the others are compared with.
        tasks: data sources, each once.
        settings: see `Settings`.
        against: the folder of an earlier evaluation, or one more model, that all models are compared with.

    Raises:
        UserError: model, data, reward or folder can't be used.
    """
    quiet()
    names = [name_of(task.data.source) for task in tasks]
    sources = [task.data.source for task in tasks]
    if len(set(sources)) < len(sources):
        raise UserError(f"--data names {max(sources, key=sources.count)} twice; give each source once.")
    if len(set(models)) < len(models):
        raise UserError(f"--model names {max(models, key=models.count)} twice; give each model once.")
    names = names if len(set(names)) == len(names) else sources
    earlier = None
    if against is not None and (Path(against) / GRADED).exists():
        earlier = Outcome(against, read_graded(Path(against)), [])
    elif against is not None:
        models = [against, *(model for model in models if model != against)]
    graders = [
        build_grader(settings.reward, task.data.source, settings.extract, settings.judge) for task in tasks
    ]
    loaded = [problems_of(task.data, name) for task, name in zip(tasks, names, strict=True)]
    recipes = [_recipe(model, tasks) for model in models]
    for recipe in recipes:
        resolve_model(recipe)
    folders = _folders(models, settings)
    outcomes = []
    new = settings.out is not None and claim(settings.out)
    try:
        for recipe, folder in zip(recipes, folders, strict=True):
            outcomes.append(assess_one(recipe, folder, tasks, loaded, graders, settings))
    except UserError:
        if settings.out is not None:
            unclaim(settings.out, new)
        raise
    notes = [note for problems in loaded for note in problems.notes]
    base, others = (earlier, outcomes) if earlier is not None else (outcomes[0], outcomes[1:])
    comparisons = []
    for other in others:
        found, said = compare(base.graded, other.graded, (base.model, other.model), seed=settings.seed)
        comparisons += found
        notes += said
    document = {
        "results": [result for outcome in outcomes for result in outcome.results],
        "means": [mean for outcome in outcomes for mean in outcome.means],
        "comparisons": comparisons,
        "notes": list(dict.fromkeys([*notes, *(note for outcome in outcomes for note in outcome.notes)])),
    }
    if settings.out is not None:
        write_lines(settings.out / "result.json", [document])
    return document


def assess_completions(path: Path, settings: Settings) -> dict[str, Any]:
    """Grade recorded completions; no model is needed.

    Raises:
        UserError: the file or the reward can't be used.
    """
    problems, lines = recorded(path)
    grader = build_grader(settings.reward or "math", "file", settings.extract, settings.judge)
    rows = {(line["data"], line["index"]): row for line, row in zip(lines, problems.rows, strict=True)}
    graded = list(grade(lines, grader, rows))
    results = []
    by_temperature: dict[float, list[Any]] = {}
    for (data, temperature), part in cells(graded).items():
        head = {"model": "(recorded)", "data": data, "temperature": part[0]["temperature"]}
        results.append({**head, **measure(part, seed=settings.seed)})
        by_temperature.setdefault(temperature, []).append(part)
    means = [
        mean_over_data("(recorded)", parts, settings.seed)
        for parts in by_temperature.values()
        if len(parts) > 1
    ]
    notes = [*problems.notes, *given_up(grader, 0)]
    notes += no_answer_warning(problems.name, graded, lines[0]["texts"][0], grader.rule)
    verdicts = [
        (bool(said), bool(score > 0.5))
        for row, line in zip(problems.rows, graded, strict=True)
        if line["scores"] is not None and len(row.get("correct") or []) == len(line["scores"])
        for said, score in zip(row["correct"], line["scores"], strict=True)
    ]
    if verdicts:
        same = sum(said == score for said, score in verdicts)
        notes.append(
            f"{problems.name}: {same} of {len(verdicts)} verdicts agree with the recorded column `correct`"
        )
    document = {"results": results, "means": means, "comparisons": [], "notes": notes}
    if settings.out is not None:
        claim(settings.out)
        write_lines(settings.out / GRADED, graded)
        write_lines(settings.out / "result.json", [document])
    return document


def _recipe(model: str, tasks: Sequence[Task]) -> Recipe:
    tiers = [task.data for task in tasks if task.data.tier is not None]
    if model == "sandbox" and len(tiers) > 1:
        raise UserError(
            "--model sandbox is the base model of one tier, and the data name several; give sandbox:TIER."
        )
    return Recipe(model=model, data=tiers[0] if tiers else tasks[0].data)


def _folders(models: Sequence[str], settings: Settings) -> list[Path | None]:
    """Return where each model's samples go: --out itself, or a folder in it where there are several."""
    if settings.out is None:
        return [None] * len(models)
    if len(models) == 1:
        folders = [settings.out]
    else:
        plain = [
            "".join(c if c.isalnum() or c in "-_." else "-" for c in model).strip("-.") for model in models
        ]
        folders = [settings.out / f"{number}-{name[-60:]}" for number, name in enumerate(plain)]
    for folder in folders:
        if not settings.resume and (folder / FILE_NAME).exists():
            raise UserError(
                f"{folder} already holds samples; continue them with --resume, or choose another --out."
            )
    return list(folders)
