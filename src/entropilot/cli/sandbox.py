"""Commands of `entropilot sandbox`: the tiny model in the package, and its tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from entropilot.cli.common import need_training_extra, say
from entropilot.errors import UserError
from entropilot.sandbox.tasks import DEFAULT_TIER

sandbox_app = typer.Typer(help="Work with the tiny model in the package and its tasks.", no_args_is_help=True)


@sandbox_app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder that receives the base model.")],
    tier: Annotated[
        str, typer.Option(help="Tier whose problems the model learns: chains, pool or long.")
    ] = DEFAULT_TIER,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 4500,
    batch_size: Annotated[int, typer.Option(min=1, help="Problems per step.")] = 96,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak of the one-cycle schedule.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the text.")] = 0,
    start: Annotated[
        str | None,
        typer.Option(
            help="Model to start from: a sandbox model's folder, or sandbox:TIER; default: random weights."
        ),
    ] = None,
    hidden_size: Annotated[
        int | None, typer.Option(min=8, help="Hidden size, default 128; the MLP is three times as wide.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Number of layers, default 3.")] = None,
    heads: Annotated[
        int | None,
        typer.Option(min=1, help="Number of attention heads, default 4; half as many for keys and values."),
    ] = None,
) -> None:
    """Train a tier's base model from scratch or from another one (chains: about 12 minutes on two cores).

    The pool's model was made with --tier pool --start sandbox:chains --steps 300 --batch-size 128 --learning-rate 5e-4,
    that of long with --tier long --start sandbox:chains --steps 340 --batch-size 96 --learning-rate 1e-3.
    """
    need_training_extra()
    from entropilot.cli.progress import Progress
    from entropilot.files import claim, unclaim
    from entropilot.inputs.models import quiet
    from entropilot.sandbox.pretrain import pretrain as run
    from entropilot.sandbox.tasks import get_tier

    chosen = get_tier(tier)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give a new folder with --out.")
    origin, architecture = _origin(start, hidden_size, layers, heads)
    new = claim(out)
    quiet()
    progress = Progress(f"pretrain {tier}")
    progress.start(steps)
    try:
        run(
            chosen,
            out,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            start=origin,
            report=lambda step, loss: progress.row(step + 1, {"loss": loss}),
            **architecture,
        )
    finally:
        progress.close()
        unclaim(out, new)
    say(f"model: {out}")


def _origin(
    start: str | None, hidden_size: int | None, layers: int | None, heads: int | None
) -> tuple[Path | None, dict[str, int]]:
    """Return the folder to go on from, and what is changed in the architecture; both at once make no sense."""
    architecture: dict[str, int] = {}
    if hidden_size is not None:
        architecture |= {"hidden_size": hidden_size, "intermediate_size": 3 * hidden_size}
    if layers is not None:
        architecture["num_hidden_layers"] = layers
    if heads is not None:
        architecture |= {"num_attention_heads": heads, "num_key_value_heads": max(1, heads // 2)}
    width, count = hidden_size or 128, heads or 4
    if width % count or width // count % 2:
        raise UserError(
            f"--hidden-size {width} and --heads {count} give no even size per head; choose a multiple."
        )
    if heads is not None and heads > 1 and heads % 2:
        raise UserError(
            f"--heads {heads} is odd, and keys and values have half as many; choose an even number."
        )
    if start is None:
        return None, architecture
    if architecture:
        raise UserError("--start brings its own architecture; remove --hidden-size, --layers and --heads.")
    from entropilot.inputs.models import resolve_model
    from entropilot.recipes.schema import Recipe

    folder = Path(resolve_model(Recipe(model=start)))
    if not folder.is_dir():
        raise UserError(f"--start {start} is no folder; give a sandbox model's folder or sandbox:TIER.")
    return folder, architecture


@sandbox_app.command()
def properties(
    tier: Annotated[str, typer.Option(help="Tier: chains, pool or long.")] = "pool",
    model: Annotated[
        str | None, typer.Option(help="Model to measure; default: the tier's own base model.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of problems.")] = 128,
    samples: Annotated[int, typer.Option(min=1, help="Completions per problem.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed that the problems are drawn from.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of supervised training.")] = 100,
) -> None:
    """Measure pass@k and maj@k of a tier's base model, and its accuracy after supervised training on right solutions."""
    need_training_extra()
    from entropilot.evaluation.tier_properties import attempts, capacity, majority_at
    from entropilot.inputs.models import load_model, quiet
    from entropilot.recipes.schema import Recipe
    from entropilot.sandbox.tasks import get_tier

    chosen = get_tier(tier)
    drawn = chosen.problems("train", count, seed)
    quiet()
    loaded, tokenizer = load_model(Recipe(model=model or f"sandbox:{tier}"))
    tried = attempts(loaded, tokenizer, chosen, drawn, samples)
    typer.echo(f"pass@1    {tried.accuracy:.3f}")
    for k in (8, 64, 256):
        if k <= samples:
            typer.echo(f"pass@{k:<4} {tried.pass_at(k):.3f}")
            typer.echo(f"maj@{k:<5} {majority_at(tried, chosen, k):.3f}")
    typer.echo(f"greedy    {attempts(loaded, tokenizer, chosen, drawn, 1, 0.0).accuracy:.3f}")
    learned = capacity(loaded, tokenizer, chosen, drawn, steps=steps)
    typer.echo(f"supervised, greedy on the same problems, {steps} steps: {learned:.3f}")


@sandbox_app.command()
def problems(
    tier: Annotated[str, typer.Option(help="Tier: chains, pool or long.")] = DEFAULT_TIER,
    split: Annotated[str, typer.Option(help="Split: train, validation or test.")] = "train",
    count: Annotated[int, typer.Option(min=1, help="Number of problems.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed that the problems are drawn from.")] = 0,
) -> None:
    """Print problems of a tier as JSONL with the columns prompt and answer.

    From a file of them, completions are graded by --reward sandbox:TIER, in a recipe by reward: sandbox:TIER.
    """
    from entropilot.sandbox.tasks import SPLITS, get_tier

    if split not in SPLITS:
        raise UserError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    for problem in get_tier(tier).problems(split, count, seed):  # type: ignore[arg-type]  # just checked
        typer.echo(json.dumps({"prompt": problem.prompt, "answer": problem.answer}))
