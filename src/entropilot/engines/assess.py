"""Load a model and problems, and evaluate: `entropilot evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from entropilot.engines.data import fit_prompts, load_problems
from entropilot.engines.run import context_room, load_model, need_answers, quiet
from entropilot.engines.trl_rewards import build_reward
from entropilot.evaluate import evaluate
from entropilot.recipes import Data, Recipe


def assess(
    model_name: str,
    data: Data,
    reward: str,
    *,
    max_new_tokens: int,
    samples: int,
    on_start: Callable[[int], None] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Return the measures of a model as plain data: accuracy (avg@k), pass@k for k = 1, 2, 4, …, lengths.

    Args:
        model_name: sandbox, a folder, or a Hub id.
        data: the problems.
        reward: a name or a dotted path.
        max_new_tokens: length limit.
        samples: k.
        on_start: is called with the number of completions to come.
        **settings: of `evaluate`.

    Raises:
        UserError: model, data or reward can't be used.
    """
    quiet()
    recipe = Recipe(model=model_name, data=data)
    scorer = build_reward(reward, recipe.tier)
    problems = load_problems(data)
    need_answers(problems, [reward])
    model, tokenizer = load_model(recipe)
    rows = fit_prompts(problems, tokenizer, data, context_room(model, max_new_tokens)).to_list()
    if on_start is not None:
        on_start(len(rows) * samples)
    result = evaluate(
        model, tokenizer, rows, scorer, max_new_tokens=max_new_tokens, samples=samples, **settings
    )
    powers = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    tokens = [length for row in result.lengths for length in row]
    return {
        "model": model_name,
        "data": data.source,
        "problems": len(rows),
        "samples": samples,
        "accuracy": result.accuracy,
        **{f"pass@{k}": result.pass_at(k) for k in sorted({*powers, samples})},
        "tokens": sum(tokens) / len(tokens),
        "truncated": result.truncated,
    }
