"""Functions for a person at a prompt, each for one common case; the modules below them take every option."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entropilot.answers import clusters
from entropilot.answers.judge import Judge
from entropilot.answers.judges import build_judge
from entropilot.errors import TRAINING, need
from entropilot.law.forecast import SHARE, Forecast, forecast_run
from entropilot.readers import read
from entropilot.readers.reading import Reading
from entropilot.records import Run

if TYPE_CHECKING:
    from entropilot.recipes.schema import Recipe


def cluster(
    groups: Sequence[Sequence[str | None]],
    judge: str | Judge = "math",
    questions: Sequence[str | None] | None = None,
    **options: Any,
) -> list[clusters.Clusters]:
    """Group the answers of each prompt by meaning, with the sizes and the semantic entropy (nats) of the groups.

    >>> (one,) = cluster([["4", " 4", "5", None]], judge="exact")
    >>> one.labels, one.sizes
    ([0, 0, 1, 2], [2, 1, 1])

    Args:
        groups: answers_P_G, a list per prompt; None where a completion gives no answer.
        judge: exact, math, entailment, embedding, verifier, a dotted path, or a judge.
        questions: a question per prompt, for judges that read them.
        **options: of the judge.

    Raises:
        UserError: there is no such judge or option, or a package that it needs is not installed.
    """
    asked = build_judge(judge, **options) if isinstance(judge, str) else judge
    return clusters.cluster(groups, asked, questions)


def forecast(
    log: str | Path | Run | Reading,
    last_step: float | None = None,
    *,
    prefix: float | None = None,
    seed: int = 0,
) -> Forecast:
    """Forecast how a run will end, with intervals and a verdict on the forecast.

        entropilot.forecast("runs/mine", last_step=400).performance

    Args:
        log: a run folder or the log of any framework that `read` knows; or what `read` or `read_run` returned.
        last_step: the step to forecast. Without it, the end of a finished run is forecast from its first steps.
        prefix: the share of the steps that is used; default: all of them with `last_step`, else the first 15 %.
        seed: of the draws behind the interval.

    Raises:
        UserError: the log can't be read, or does not hold what a forecast needs.
    """
    if prefix is None:
        prefix = SHARE if last_step is None else 1.0
    if isinstance(log, Run):
        return forecast_run(log, prefix, last_step, seed=seed)
    reading = log if isinstance(log, Reading) else read(log)
    return forecast_run(
        reading.run,
        prefix,
        last_step,
        reading.entropy,
        default=reading.performance,
        training_reward=reading.training_reward,
        seed=seed,
    )


def evaluate(
    model: str | Path | Sequence[str | Path],
    data: str = "sandbox",
    *,
    split: str = "test",
    problems: int | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_tokens: int = 256,
    reward: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Measure models on problems with a verifiable answer: accuracy, pass@k, majority, entropies, with intervals.

        entropilot.evaluate("runs/mine/model", problems=64)["results"][0]["accuracy"]

    Args:
        model: sandbox, a folder or a Hub id; of several, the first is what the others are compared with.
        data: sandbox[:TIER], a JSONL, Parquet or CSV file, or a Hub id.
        split: of the data.
        problems: number of problems; default: 256 of the sandbox, else all.
        samples: completions per problem.
        temperature: of the sampling; 0 is greedy.
        top_p: nucleus.
        max_tokens: length limit of a completion.
        reward: math, exact, sandbox, none or a dotted path; default: by the data.
        seed: of the sampling and of the intervals.
        out: folder that keeps the samples; None keeps nothing.

    Returns:
        results (a dictionary per model), means, comparisons and notes, as `entropilot evaluate --json` prints them.

    Raises:
        UserError: model, data or reward can't be used, or torch is not installed.
    """
    need(*TRAINING, what="entropilot.evaluate")
    from entropilot.evaluation.evaluate import assess
    from entropilot.evaluation.one_model import Settings, Task
    from entropilot.evaluation.protocols import Sampling
    from entropilot.recipes.schema import Data

    source = Data(source=data, split=split)
    limit = problems or (256 if source.kind == "sandbox" else None)
    task = Task(
        source.model_copy(update={"limit": limit}), (Sampling(samples, temperature, top_p, max_tokens),)
    )
    models = [model] if isinstance(model, str | Path) else model
    settings = Settings(reward=reward, seed=seed, out=None if out is None else Path(out))
    return assess([str(name) for name in models], [task], settings)


def train(recipe: Recipe | str | Path, out: str | Path | None = None, **options: Any) -> Path:
    """Train what a recipe says; returns the folder of the trained model, which `transformers` loads.

        entropilot.train("kl_cov", "runs/mine", overrides=["grpo.max_steps=20"])

    Args:
        recipe: a file, the name of one in the package, or from `load_recipe`.
        out: folder that receives run.jsonl, tokens/, checkpoints/ and model/; default: runs/NAME.
        **options: overrides, resume, on_start, on_row, on_alarm, as `training.stages.train`.

    Raises:
        UserError: the recipe cannot work, the folder is taken, the loss is not finite, or torch is not installed.
    """
    need(*TRAINING, what="entropilot.train")
    from entropilot.training import stages

    return stages.train(recipe, out, **options)
