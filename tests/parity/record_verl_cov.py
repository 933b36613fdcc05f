"""Record verl's Clip-Cov and KL-Cov losses on random cases: values, gradients and the tokens they chose.

Run in an environment of its own (Python 3.11 or 3.12, no GPU, no Ray cluster):

    pip install torch==2.13.0 "transformers>=5.5.3,<5.11" ray tensordict codetiming omegaconf orjson
    pip install --no-deps verl==0.9.1
    python tests/parity/record_verl_cov.py

It writes verl_cov.npz beside itself. Nothing of entropilot is imported here: whatever our code and these numbers
agree on, they agree on independently. Inputs are multiples of 2⁻²⁰ and therefore exact in float32; verl computes on
them in float64.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

SEED = 2505_22617
CASES = 80
OUTPUT = Path(__file__).with_name("verl_cov.npz")

SHAPES = [(1, 1), (1, 7), (2, 3), (3, 5), (4, 8), (8, 4), (5, 16), (6, 11), (2, 40), (12, 9)]
MASKS = ["full", "right", "left", "holes", "one row"]
DRIFTS = [0.0, 0.05, 0.3, 0.3, 1.0, 1.0]
CLIPS = [(0.2, 0.2), (0.2, 0.28), (1.0, 1.0), (0.05, 0.4)]
WINDOWS = [(1.0, 5.0), (0.2, 3.0), (-0.5, 0.8), (0.0, 100.0), (50.0, 60.0)]
FRACTIONS = [2e-4, 2e-3, 0.02, 0.1, 0.3, 1.0]
COEFS = [0.0, 0.1, 0.5, 1.0, 1.0, 2.5]


def exact(x: torch.Tensor) -> torch.Tensor:
    return (x * 2**20).round().double() / 2**20


def draw_batch(rng: random.Random, generator: torch.Generator, drift: float) -> dict[str, torch.Tensor]:
    rows, length = rng.choice(SHAPES)
    kind = rng.choice(MASKS)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    columns = torch.arange(length)
    mask = {
        "full": torch.ones(rows, length, dtype=torch.bool),
        "right": columns < lengths,
        "left": columns >= length - lengths,
        "holes": torch.rand(rows, length, generator=generator) < 0.7,
        "one row": (columns < lengths) & (torch.arange(rows)[:, None] == 0),
    }[kind]
    mask[0, length // 2] = True  # verl divides by the number of tokens
    logp = exact(torch.randn(rows, length, generator=generator).abs().clamp(max=6) * -1.5)
    old = exact(logp + drift * torch.randn(rows, length, generator=generator))
    per_token = rng.random() < 0.4
    advantages = exact(1.2 * torch.randn(rows, length if per_token else 1, generator=generator))
    # A token of advantage 0 has no gradient, and could not be told from a chosen one.
    advantages = torch.where(advantages.abs() < 0.01, 0.25, advantages).expand(rows, length).clone()
    return {"old": old, "logp": logp, "advantages": advantages, "mask": mask}


def is_ppo_clipped(batch: dict[str, torch.Tensor], low: float, high: float) -> torch.Tensor:
    ratio = (batch["logp"] - batch["old"]).exp()
    plain = -batch["advantages"] * ratio
    return (-batch["advantages"] * ratio.clamp(1 - low, 1 + high) > plain) & batch["mask"]


def margin_is_safe(batch: dict[str, torch.Tensor], case: dict) -> bool:
    """Leave out cases that rounding could decide: a covariance on a threshold, or a tie at the cut of the top k."""
    mask = batch["mask"]
    a, p = batch["advantages"][mask], batch["logp"][mask]
    covariance = (a - a.mean()) * (p - p.mean())
    if case["loss"] == "clip_cov":
        return all((covariance - case[bound]).abs().min() > 1e-6 for bound in ("low", "high"))
    ranked = covariance.sort(descending=True).values
    count = max(1, int(len(ranked) * case["fraction"]))
    return count == len(ranked) or (ranked[count - 1] - ranked[count]) > 1e-6


def run_verl(batch: dict[str, torch.Tensor], case: dict) -> tuple[float, torch.Tensor, float]:
    from verl.trainer.ppo.core_algos import get_policy_loss_fn

    config = SimpleNamespace(
        clip_ratio=0.2,
        clip_ratio_low=case.get("clip_low"),
        clip_ratio_high=case.get("clip_high"),
        global_batch_info={},
        policy_loss=SimpleNamespace(
            clip_cov_ratio=case["fraction"],
            clip_cov_lb=case.get("low"),
            clip_cov_ub=case.get("high"),
            kl_cov_ratio=case["fraction"],
            ppo_kl_coef=case.get("coef"),
        ),
    )
    logp = batch["logp"].clone().requires_grad_()
    loss, metrics = get_policy_loss_fn(case["loss"])(
        batch["old"],
        logp,
        batch["advantages"],
        batch["mask"].long(),
        loss_agg_mode="token-mean",
        config=config,
    )
    assert loss.dtype is torch.float64
    (gradient,) = torch.autograd.grad(loss, logp)
    return loss.item(), gradient, metrics.get("actor/pg_clipfrac", 0.0)


def recover_choice(batch: dict[str, torch.Tensor], case: dict, gradient: torch.Tensor, clipfrac: float):
    """Read from the gradients which tokens verl chose; None where the gradient can't tell."""
    mask, tokens = batch["mask"], batch["mask"].sum()
    drift = batch["logp"] - batch["old"]
    if case["loss"] == "clip_cov":
        # No gradient: chosen, or clipped by PPO; verl never chooses the latter.
        chosen = (gradient == 0) & mask & ~is_ppo_clipped(batch, case["clip_low"], case["clip_high"])
        assert chosen.sum() == round(clipfrac * tokens.item()), "verl counts other chosen tokens"
        return chosen
    surplus = gradient * tokens + batch["advantages"] * drift.exp()  # β·sign(log-ratio) where chosen, else 0
    if case["coef"] == 0 or (drift[mask] == 0).any():
        return None
    chosen = (surplus.abs() > case["coef"] / 2) & mask
    assert chosen.sum() == max(1, int(tokens * case["fraction"])), "verl counts other chosen tokens"
    return chosen


def record(count: int, seed: int) -> list[dict]:
    """Return `count` cases of each loss, with inputs, settings, value, gradient and choice."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # verl draws with torch.randperm, without a generator
    cases: list[dict] = []
    while len(cases) < 2 * count:
        case = {"loss": "clip_cov" if len(cases) < count else "kl_cov", "fraction": rng.choice(FRACTIONS)}
        if case["loss"] == "clip_cov":
            case["low"], case["high"] = rng.choice(WINDOWS)
            case["clip_low"], case["clip_high"] = rng.choice(CLIPS)
        else:
            case["coef"] = rng.choice(COEFS)
        batch = draw_batch(rng, generator, rng.choice(DRIFTS))
        if not margin_is_safe(batch, case):
            continue
        value, gradient, clipfrac = run_verl(batch, case)
        chosen = recover_choice(batch, case, gradient, clipfrac)
        cases.append({**case, **batch, "value": value, "gradient": gradient, "chosen": chosen})
    return cases


def save(cases: list[dict], path: Path, header: dict) -> None:
    """Write header and settings as JSON, every tensor as one flat array over all cases in order."""
    tensors = {"old": "f4", "logp": "f4", "advantages": "f4", "mask": "?", "gradient": "f8", "chosen": "?"}
    settings, flat = [], {name: [] for name in tensors}
    for case in cases:
        kept = {k: v for k, v in case.items() if k not in tensors}
        settings.append({**kept, "shape": list(case["mask"].shape), "recovered": case["chosen"] is not None})
        for name, kind in tensors.items():
            values = torch.zeros_like(case["mask"]) if case[name] is None else case[name]
            array = values.numpy().astype(kind)
            assert (array == values.numpy()).all(), f"{name} is not exact in {kind}"
            flat[name].append(array.ravel())
    arrays = {name: np.concatenate(parts) for name, parts in flat.items()}
    np.savez_compressed(path, header=json.dumps(header), settings=json.dumps(settings), **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=CASES, help="cases of each loss")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    from verl import __version__ as verl_version

    header = {
        "script": "tests/parity/record_verl_cov.py",
        "verl": verl_version,
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "seed": args.seed,
        "cases_of_each_loss": args.cases,
    }
    cases = record(args.cases, args.seed)
    save(cases, args.output, header)
    known = sum(case["chosen"] is not None for case in cases)
    print(f"{len(cases)} cases, choice known in {known}, {args.output.stat().st_size:,} bytes: {header}")


if __name__ == "__main__":
    main()
