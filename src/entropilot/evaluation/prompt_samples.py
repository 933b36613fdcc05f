"""k samples of every problem of a data source, with what a ranking of prompts needs: `entropilot prompts rank`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from entropilot.answers.extraction.extract import extract
from entropilot.answers.judge import Judge
from entropilot.answers.judged_rows import Judged, judge_rows
from entropilot.evaluation.problems import chosen_of, fitted
from entropilot.evaluation.sampling.sampler import Transformers
from entropilot.inputs.completions import Sampled, gold_of, question_of
from entropilot.inputs.models import context_room, load_model, quiet
from entropilot.recipes.schema import Data, Recipe
from entropilot.rewards.named import build_reward
from entropilot.sandbox.tasks import get_tier, tier_of


def sample_problems(
    model_name: str,
    data: Data,
    *,
    samples: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    on_start: Callable[[int], None] | None = None,
    report: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield every problem's row in its source, from 1, and its columns with samples.

    The columns are `completions`, `token_entropy` and, of the sandbox, `correct`.

    `token_entropy` holds the mean of each completion, at T = 1 over the full vocabulary, nats. `correct` comes from the
    task's own reward; other data are graded by a judge later.

    Args:
        model_name: sandbox, a folder, or a Hub id.
        data: the problems.
        samples: k, per problem.
        temperature, top_p, max_new_tokens, batch_size, seed: of the sampling.
        on_start: is called with the number of completions to come.
        report: is called with the number of completions so far.

    Raises:
        UserError: model or data can't be used.
    """
    quiet()
    recipe = Recipe(model=model_name, data=data)
    whole, chosen = chosen_of(data)
    model, tokenizer = load_model(recipe)
    kept = fitted(whole.select(chosen)["prompt"], tokenizer, data, context_room(model, max_new_tokens))
    places = [chosen[place] for place in kept]
    rows = whole.select(places).to_list()
    reward = build_reward(data.kind, recipe.tier) if data.kind != "rows" else None
    if on_start is not None:
        on_start(len(rows) * samples)
    drawn = Transformers(model, tokenizer, batch_size).draw(
        [row["prompt"] for row in rows],
        range(len(rows)),
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        seed=seed,
        report=report,
    )
    for indices, groups in drawn:
        for index, group in zip(indices, groups, strict=True):
            row, texts = rows[index], [sample.text for sample in group]
            found = {**row, "completions": texts, "token_entropy": [sample.entropy for sample in group]}
            if reward is not None:
                columns = {name: [value] * len(texts) for name, value in row.items() if name != "prompt"}
                given = reward(completions=texts, **columns)
                found["correct"] = [(score or 0.0) > 0.5 for score in given]
            yield places[index] + 1, found


def judged_samples(
    model: str,
    source: str,
    judge: Judge,
    rule: str | None,
    graded: str,
    *,
    split: str = "train",
    problems: int | None = None,
    text: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Judged]:
    """Yield problems sampled from a model, with clusters and grades.

    Args:
        model, source, split, problems: what is sampled from what; without a number 256 of the sandbox, else all.
        text: fields of `Data` that say how problems become text: template, prefix, suffix, stop_strings.
        judge: of equivalence.
        rule: of extraction; None is the sandbox's own, "auto" of other data.
        graded: "correct" takes the verdicts of the task's own reward, "judge" those of the judge.
        settings: of `sample_problems`.
    """
    tier = tier_of(source)
    limit = problems or (None if tier is None else 256)
    data = Data(source=source, split=split, limit=limit, **(text or {}))
    drawn = sample_problems(model, data, **settings)
    rows = (Sampled(number, row, row["completions"], question_of(row), gold_of(row)) for number, row in drawn)
    if tier is not None and rule is None:
        read: Callable[[str], str | None] = get_tier(tier).answer_of
    else:
        read = lambda text: extract(text, rule or "auto")  # noqa: E731
    yield from judge_rows(rows, judge, read, graded, Path(source))
