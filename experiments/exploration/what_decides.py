"""Which of Clip-Cov's tokens matter on the pool: python -m experiments.exploration.what_decides --out runs/exploration

Clip-Cov with restrain 1 stops the gradient of the tokens that hold the whole net covariance. Here it stops only
  rare_bad   those of them with A < 0 and a log-prob below the mean: rare tokens of failed completions
  others     the rest of them
  random     as many tokens as all of them, drawn anywhere
Everything else is the study's arm `clip_cov_restrain_1`; runs of that arm and of `wide_clip` in --out are compared with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from entropilot.analysis.seeds import cell, differences
from entropilot.cli import main as cli
from entropilot.maths.surrogate import is_ppo_clipped
from entropilot.methods.clip_cov import ClipCov
from entropilot.records import read_run
from entropilot.reports.text import aligned
from experiments.exploration.arms import recipe_of
from experiments.exploration.study import measure, one, probabilities
from experiments.runs import command, keep, make, once, out_folder, side_by_side

KINDS = ("rare_bad", "others", "random")


def child(kind: str, recipe: str, out: Path) -> None:
    """Train with a choice of tokens that is not the method's own."""

    own = ClipCov.select

    def select(self: ClipCov, batch, generator: torch.Generator):
        chosen = own(self, batch, generator)
        if kind == "random":
            eligible = batch.mask & ~is_ppo_clipped(batch, self.clip_low, self.clip_high)
            places = eligible.flatten().nonzero()[:, 0]
            order = torch.randperm(len(places), generator=generator)[: int(chosen.sum())]
            drawn = torch.zeros_like(chosen).flatten()
            drawn[places[order.to(places.device)]] = True
            return drawn.view_as(chosen)
        rare_bad = (batch.logp < batch.logp[batch.mask].mean()) & (batch.advantages < 0)
        return chosen & (rare_bad if kind == "rare_bad" else ~rare_bad)

    ClipCov.select = select
    sys.argv = ["entropilot", "train", recipe, "--out", str(out)]
    cli.main()


def made(out: Path, kind: str, seed: int) -> Path:
    """Train a run with one choice of tokens unless that is done; return its folder."""
    folder = out / f"only_{kind}-{seed}"
    recipe = recipe_of("clip_cov_restrain_1", seed) | {"name": f"only_{kind}"}
    return make(folder, recipe, train=("-m", "experiments.exploration.what_decides", "--child", kind)).parent


def measured(folder: Path, seed: int) -> dict:
    found = once(folder / "probabilities.json", lambda: probabilities(folder / "model", seed))
    p = torch.tensor(found["pool"]["p"])
    lost = (p < 1e-3).float().mean().item()
    return measure(read_run(folder)) | {"pool pass@1": found["pool"]["pass"]["1"], "lost": lost}


def table(found: Mapping[str, Sequence[dict[str, Any]]]) -> list[list[str]]:
    """Return the rows of the table: where the gradient is stopped, and what that gives."""
    rows = [
        [
            "gradient stopped at",
            "accuracy",
            "less wide_clip",
            "H",
            "p < 0.001",
            "tokens",
            "share of net covariance",
        ]
    ]
    for name, runs in found.items():
        columns = [
            [run[key] for run in runs] for key in ("pool pass@1", "entropy", "lost", "chosen", "restrained")
        ]
        gains = differences(columns[0], [run["pool pass@1"] for run in found["wide_clip"]])
        against = "–" if name == "wide_clip" else cell(gains, sign=True)
        rows.append([name, cell(columns[0]), against, *(cell(c) for c in columns[1:3])])
        rows[-1] += [cell(columns[3], ".0f"), cell(columns[4], ".2f")]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/exploration"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--store", type=Path, help="keep a row of every run here (docs/results/exploration.json)"
    )
    parser.add_argument("--child", nargs=2, metavar=("KIND", "RECIPE"), help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.child:
        child(*settings.child, settings.out)
        return
    out = out_folder(settings.out)
    found = {
        arm: [{"seed": seed} | one(out, arm, seed) for seed in settings.seeds]
        for arm in ("wide_clip", "clip_cov_restrain_1")
    }
    jobs = [(kind, seed) for seed in settings.seeds for kind in KINDS]
    folders = dict(zip(jobs, side_by_side(lambda job: made(out, *job), jobs, settings.jobs), strict=True))
    for kind in KINDS:
        found[f"only {kind}"] = [
            {"seed": seed} | measured(folders[kind, seed], seed) for seed in settings.seeds
        ]
    keep(settings.store, "what decides", found)
    print(aligned(table(found)))
    print(f"seeds {settings.seeds}; ± is half of the 95 % t interval over seeds")


if __name__ == "__main__":
    command(main)
