"""Commands `control …`: collect segments, label pairs, train, evaluate, compare methods, draw episodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from entropilot.cli.common import JsonOption, counted, print_json, say
from entropilot.errors import UserError, need
from entropilot.files import check_output

if TYPE_CHECKING:
    from entropilot.control.segments.policies import NumpyPolicy

app = typer.Typer(
    help="Learn control tasks of MetaWorld from preferences, with PPL, CPL, DPO, SFT or P-IQL.",
    no_args_is_help=True,
)

OutOption = Annotated[Path, typer.Option(help="File to write; it must not exist yet.")]
TaskOption = Annotated[str, typer.Option(help="A MetaWorld task, such as drawer-open.")]
ProcessesOption = Annotated[
    int, typer.Option(min=1, help="Number of worker processes, at most one per core.")
]
SeedOption = Annotated[int, typer.Option(min=0, max=20_000, help="Random seed.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="Values that replace those of the recipe, such as train.steps=300.")
]


@app.command()
def collect(
    task: TaskOption,
    out: OutOption,
    success: Annotated[
        list[float] | None,
        typer.Option(
            help="Success rate of an author, 0 to 1, who is searched for. Repeat it for several authors. Default: 0.5."
        ),
    ] = None,
    policy: Annotated[
        list[Path] | None, typer.Option(help="Policy file of an author, instead of --success. Repeatable.")
    ] = None,
    segments: Annotated[int, typer.Option(min=2, help="Number of segments, of all authors together.")] = 600,
    length: Annotated[int, typer.Option(min=2, max=250, help="Number of steps in a segment.")] = 64,
    returns: Annotated[
        int,
        typer.Option(
            min=0,
            max=250,
            help="Number of steps to go on after a segment to record the author's return; `label --by behaviour` needs it.",
        ),
    ] = 0,
    seed: SeedOption = 0,
    processes: ProcessesOption = 1,
) -> None:
    """Collect segments of episodes, and the mean and std of the policy that acted at every step."""
    from entropilot.control.segments.envs import ACTION_SIZE, HORIZON, STATE_SIZE, check_task

    task = check_task(task)
    if policy and success:
        raise UserError("--policy and --success both name the authors; give one of them.")
    if any(not 0 <= rate <= 1 for rate in success or []):
        raise UserError("--success is a share between 0 and 1, such as 0.5.")
    count = len(policy or success or (0.5,))
    if segments < count:
        raise UserError(f"{segments} segments are too few for {count} authors; set --segments to more.")
    check_output(out)
    kept = [] if policy else [out.with_name(f"{out.stem}.author{i}.npz") for i in range(count)]
    for path in kept:
        check_output(path, remedy=f"choose another --out, or collect by it with --policy {path}")
    need("torch", extra="control")
    from entropilot.control.segments.behaviour import NOISE, find_behaviours
    from entropilot.control.segments.collect import CollectSettings
    from entropilot.control.segments.collect import collect as run
    from entropilot.control.segments.policies import load_policy
    from entropilot.control.segments.segments import concatenate, save

    # Two segments of an episode where they fit: the value between them is computed once.
    cuts = CollectSettings(
        length=length,
        per_episode=2 if 2 * length <= HORIZON else 1,
        returns=returns,
        mark_every=16 if returns else 0,
    )
    authors: list[NumpyPolicy]
    if policy:
        authors = [load_policy(path, (STATE_SIZE, ACTION_SIZE)) for path in policy]
        # What control train writes acts by its mean; an author explores.
        authors = [author if author.std else author.with_std(NOISE) for author in authors]
    else:
        found = find_behaviours(task, tuple(success or (0.5,)), processes=processes, report=say)
        for i, (author, rate) in enumerate(found):
            author.save(kept[i])
            say(f"author {i}: {author.name}, {100 * rate:.0f} % success (100 episodes): {kept[i]}")
        authors = [author for author, _ in found]
    share = [segments // len(authors) + (i < segments % len(authors)) for i in range(len(authors))]
    parts = [
        run(task, author, count, 10 + 10 * seed + i, cuts, processes)
        for i, (author, count) in enumerate(zip(authors, share, strict=True))
    ]
    joined = concatenate(parts)
    save(joined, out)
    say(f"{len(joined)} segments of {task}, {joined.success.mean():.2f} from solved episodes: {out}")


@app.command()
def label(
    data: Annotated[Path, typer.Argument(help="Segments that `control collect` wrote.")],
    out: OutOption,
    by: Annotated[
        str,
        typer.Option(
            help="How segments are compared: script (regret, scripted expert), behaviour (regret, author), return or sac."
        ),
    ] = "script",
    pairs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of pairs, each segment in at most one. Default: all pairs."),
    ] = None,
    flip: Annotated[float, typer.Option(min=0, max=1, help="Probability that an answer is wrong.")] = 0.0,
    tie: Annotated[
        float, typer.Option(min=0, help="Largest difference of scores that counts as a tie.")
    ] = 0.0,
    critic: Annotated[
        Path | None, typer.Option(help="SAC model of Stable-Baselines3 (.zip), for --by sac.")
    ] = None,
    reward_scale: Annotated[
        float,
        typer.Option(
            help="Factor that gives the rewards the critic learned from; 0.1 for reward/10. For --by sac."
        ),
    ] = 1.0,
    ensemble: Annotated[
        str,
        typer.Option(
            help="How the Q of several critics are joined: mean, as in CPL's code, or min. For --by sac."
        ),
    ] = "mean",
    fit: Annotated[
        Path | None,
        typer.Option(help="File for the segments with the mean and std of authors that are fitted to them."),
    ] = None,
    seed: SeedOption = 0,
    processes: ProcessesOption = 1,
) -> None:
    """Label pairs of segments by regret (scripted expert or author), by return, or by a SAC critic."""
    import numpy as np

    from entropilot.control.segments.labels import (
        check_labelling,
        compare,
        fixed_pairs,
        save_pairs,
        scores,
        script_values,
    )
    from entropilot.control.segments.segments import load, save

    if by not in ("script", "behaviour", "return", "sac"):
        raise UserError(f"--by is {by!r}; choose script, behaviour or return, or sac with --critic.")
    if (by == "sac") != (critic is not None):
        raise UserError("--by sac and --critic go together; give both, such as --by sac --critic model.zip.")
    if ensemble not in ("min", "mean"):
        raise UserError(f"--ensemble is {ensemble!r}; choose mean or min.")
    check_output(out)
    if fit is not None:
        check_output(fit, data, option="--fit")
        if fit.absolute() == out.absolute():
            raise UserError(f"--out and --fit are both {fit}; give two files.")
    segments = load(data)
    check_labelling(segments, by, pairs)  # type: ignore[arg-type]  # just checked
    if critic is not None:
        need("torch", extra="control")
        from entropilot.control.segments.critic import critic_scores, load_critic

        judge = load_critic(critic)
        score = critic_scores(segments, judge, seed=seed, ensemble=ensemble, reward_scale=reward_scale)  # type: ignore[arg-type]  # just checked
    else:
        values = None if by == "return" else script_values(segments, processes=processes)
        score = scores(segments, by, values)  # type: ignore[arg-type]  # just checked
    rng = np.random.default_rng([7, seed])
    rows = np.triu_indices(len(segments), 1) if pairs is None else fixed_pairs(len(segments), pairs, rng)
    answers = compare(score, rows[0], rows[1], flip, tie, rng)
    if fit is not None:
        from entropilot.control.segments.authors import fit_authors, with_labels

        authors = fit_authors(segments, seed=seed)
        save(with_labels(segments, authors), fit)
        held = ", ".join(f"{count}: {value:.3f}" for count, value in authors.heldout.items())
        say(f"{counted(authors.count, 'author')} fitted (held-out nats a step by number, {held}): {fit}")
    save_pairs(answers, out, segments, by)
    say(f"{len(answers)} pairs by {by}, {(answers.preferred == 0.5).mean():.2f} ties: {out}")


@app.command()
def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="Recipe with task, data, pairs and train: a YAML file, or a name such as control/train_drawer_open."
        ),
    ],
    overrides: OverridesArgument = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in --out.")] = False,
    processes: ProcessesOption = 1,
) -> None:
    """Train a policy: first imitate all segments, then learn from the pairs."""
    need("torch", extra="control")
    from entropilot.control.learning.recipes import TrainRecipe
    from entropilot.control.learning.recipes import load as load_recipe
    from entropilot.control.learning.registry import settings_from
    from entropilot.control.learning.run import run
    from entropilot.control.segments.envs import check_task
    from entropilot.control.segments.labels import load_pairs
    from entropilot.control.segments.segments import load

    loaded = load_recipe(recipe, TrainRecipe, overrides)
    settings, task = settings_from(loaded.train), check_task(loaded.task)
    segments = load(loaded.data, task)
    pairs = load_pairs(Path(loaded.pairs), segments) if loaded.pairs else None

    def report(step: int, row: dict[str, Any]) -> None:
        solved = f", success {row['success']:.2f} of {row['episodes']}" if "success" in row else ""
        say(f"step {step} ({row['phase']}): loss {row['loss']:.3f}{solved}, {row['seconds']:.0f} s")

    folder = out or Path("runs") / loaded.name
    try:
        policy = run(task, segments, pairs, settings, folder, resume, processes, report)
    except KeyboardInterrupt:
        say(f"interrupted; --resume continues from the last checkpoint in {folder}, if there is one.")
        raise typer.Exit(130) from None
    say(f"policy: {policy}")


@app.command()
def evaluate(
    policy: Annotated[str, typer.Argument(help="A policy file, or `script` for the scripted expert.")],
    task: TaskOption,
    episodes: Annotated[int, typer.Option(min=1)] = 100,
    noise: Annotated[
        float, typer.Option(min=0, help="Standard deviation of the noise on the policy's actions.")
    ] = 0.0,
    first_seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first episode; the next ones count up.")
    ] = 0,
    processes: ProcessesOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Measure the success rate of a policy, with a 95 % interval."""
    from scipy import stats

    from entropilot.control.segments.envs import ACTION_SIZE, STATE_SIZE, check_task
    from entropilot.control.segments.policies import load_policy
    from entropilot.control.segments.workers import in_processes, run_episodes

    task = check_task(task)
    if policy == "script" and noise:
        raise UserError(
            f"--noise {noise:g} is for policy files; the script acts as it is: leave out --noise."
        )
    actor = None if policy == "script" else load_policy(policy, (STATE_SIZE, ACTION_SIZE)).with_std(noise)
    seeds = list(range(first_seed, first_seed + episodes))
    outcomes = in_processes(run_episodes, seeds, processes, task, actor, 0, False)
    solved = sum(outcome.success for outcome in outcomes)
    interval = stats.binomtest(solved, episodes).proportion_ci(method="wilson")
    result = {
        "task": task,
        "policy": policy,
        "episodes": episodes,
        "success": solved / episodes,
        "low": float(interval.low),
        "high": float(interval.high),
        "success_at_end": sum(outcome.at_end for outcome in outcomes) / episodes,
        "return": sum(outcome.total for outcome in outcomes) / episodes,
    }
    if as_json:
        print_json(result)
        return
    typer.echo(
        f"{task}: {result['success']:.2f} ({result['low']:.2f} to {result['high']:.2f}) of {episodes} episodes solved at "
        f"any step, {result['success_at_end']:.2f} at the last; mean return {result['return']:.0f}"
    )


@app.command()
def bench(
    recipe: Annotated[
        Path, typer.Argument(help="Recipe of the benchmark: a YAML file, or a name such as control/smoke.")
    ],
    overrides: OverridesArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; finished runs in it are kept. Default: runs/NAME."),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Print the tables of the finished runs; train nothing.")
    ] = False,
    against: Annotated[str, typer.Option(help="Method that the others are compared with.")] = "cpl",
    processes: ProcessesOption = 1,
) -> None:
    """Compare methods over tasks, data sets and seeds. Resumable: finished runs are skipped."""
    need("torch", extra="control")
    from entropilot.control.bench.runs import read_results, run_bench
    from entropilot.control.bench.settings import BenchSettings
    from entropilot.control.bench.tables import data_table, paired_table, success_table, write_curves
    from entropilot.control.learning.recipes import load as load_recipe

    settings = load_recipe(recipe, BenchSettings, overrides)
    folder = out or Path("runs") / settings.name
    if table:
        rows = read_results(folder)
    else:
        from entropilot.control.segments.envs import check_task

        settings.tasks = [check_task(task) for task in settings.tasks]
        try:
            rows = run_bench(settings, folder, processes, say)
        except KeyboardInterrupt:
            say(f"interrupted; the same command continues in {folder}.")
            raise typer.Exit(130) from None
    if not rows:
        raise UserError(f"{folder} holds no finished run yet; leave out --table.")
    typer.echo(
        "The data; KL is that between its two authors. Where more than a tenth of the segments beat the script by its own "
        "score, its label is unreliable.\n"
    )
    typer.echo(data_table(rows))
    typer.echo("\nSuccess in percent, last step, mean ± half of the 95 % t interval over seeds (seeds)\n")
    typer.echo(success_table(rows))
    typer.echo("\nThe same at the best step of each mean curve\n")
    typer.echo(success_table(rows, best=True))
    chosen_on = f"; settings were chosen on {' and '.join(settings.tuned_on)}" if settings.tuned_on else ""
    typer.echo(f"\nDifference to {against} in points, paired by seed{chosen_on}\n")
    typer.echo(paired_table(rows, against, settings.tuned_on))
    try:
        say(f"curves: {write_curves(rows, folder / 'curves.html', settings.name)}")
    except UserError as error:
        say(f"no curves: {error}")


@app.command()
def render(
    policy: Annotated[str, typer.Argument(help="A policy file, or `script` for the scripted expert.")],
    task: TaskOption,
    out: Annotated[Path, typer.Option(help="File to write: a .gif, or a .png with a strip of frames.")],
    seed: SeedOption = 0,
    frames: Annotated[int, typer.Option(min=2, help="Number of frames in a strip.")] = 6,
    steps: Annotated[int, typer.Option(min=1, max=500, help="Largest number of steps of the episode.")] = 250,
) -> None:
    """Draw an episode as a film or a strip of frames, on Linux by EGL unless MUJOCO_GL says otherwise, such as osmesa."""
    from entropilot.control.segments.envs import ACTION_SIZE, STATE_SIZE
    from entropilot.control.segments.policies import load_policy
    from entropilot.control.segments.render import frames as draw
    from entropilot.control.segments.render import save_gif, save_strip

    if out.suffix not in (".gif", ".png"):
        raise UserError(f"--out is {out}; name it .gif or .png.")
    check_output(out)
    actor = None if policy == "script" else load_policy(policy, (STATE_SIZE, ACTION_SIZE))
    images, solved = draw(task, actor, seed, steps=steps)
    written = save_gif(images, out) if out.suffix == ".gif" else save_strip(images, out, frames)
    say(f"{len(images)} frames, {'solved' if solved else 'not solved'}: {written}")
