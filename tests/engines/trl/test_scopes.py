"""Over which tokens a method chooses: the three scopes against a naive recomputation, and who is eligible.

The recomputation takes full logits in float64 and NumPy; of entropilot it imports only the names of two columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from trl_helpers import Gradients, Recorded, Spied, chosen_of, distance, make_trainer

from entropilot.engines.trl.trainer import ELIGIBLE, SELECTED
from entropilot.maths.tokens import TokenBatch
from entropilot.methods import ClipCov, KLCov

FRACTION = 0.04
LOW, HIGH = 0.1, 2.0  # a window that holds more candidates than the quota


def naive_logp(model: Any, inputs: dict[str, Tensor]) -> np.ndarray:
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=attention).logits.double()
    width = inputs["completion_ids"].shape[1]
    table = logits[:, -width - 1 : -1].log_softmax(-1)
    return table.gather(2, inputs["completion_ids"].unsqueeze(2)).squeeze(2).numpy()


class Recomputed(Spied):
    """Keeps, beside every rollout and every pass, its log-probs by a plain forward pass at the weights of the moment."""

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        kept = {name: x.clone() for name, x in output.items()} | {"naive": naive_logp(self.model, output)}
        self.__dict__.setdefault("rollouts", []).append(kept)
        return output

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        naive = naive_logp(self.model, inputs)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.passes[-1]["naive"] = naive
        return loss


def signal(recorded: Recorded, calls: int, count: int) -> dict[tuple[int, ...], bool]:
    """Return, by completion, whether the rewards of its group differ."""
    found = {}
    for call in range(calls):
        ids, scores = recorded.rows(call, count)
        for row, text in enumerate(ids):
            group = scores[row // 4 * 4 : row // 4 * 4 + 4]
            found[tuple(text)] = len(set(group)) > 1
    return found


class Batch:
    """The passes of one choice side by side, and their covariance."""

    def __init__(self, parts: list[dict[str, Any]], differs: dict[tuple[int, ...], bool]) -> None:
        mask = np.concatenate([part["completion_mask"].bool().numpy() for part in parts])
        ids = [row.tolist() for part in parts for row in part["completion_ids"]]
        rows = [
            differs[tuple(t for t, here in zip(row, m, strict=True) if here)]
            for row, m in zip(ids, mask, strict=True)
        ]
        self.eligible = mask & np.array(rows)[:, None]
        self.logp = np.concatenate([part["naive"] for part in parts])
        advantages = np.concatenate([part["advantages"].double().numpy() for part in parts])
        self.advantages = np.broadcast_to(advantages[:, None], mask.shape)
        self.old = np.concatenate([part["old_per_token_logps"].double().numpy() for part in parts])
        self.chosen = np.concatenate([part[SELECTED].numpy() for part in parts])
        x, a = self.logp, self.advantages
        e = self.eligible
        self.covariance = np.zeros(mask.shape)
        if e.any():
            self.covariance = (x - x[e].mean()) * (a - a[e].mean())

    @property
    def quota(self) -> int:
        count = int(self.eligible.sum())
        return max(1, int(FRACTION * count)) if count else 0

    def top(self) -> np.ndarray:
        order = np.argsort(-np.where(self.eligible, self.covariance, -np.inf), axis=None)[: self.quota]
        found = np.zeros(self.eligible.size, dtype=bool)
        found[order] = True
        return found.reshape(self.eligible.shape)

    def candidates(self, clip: float) -> np.ndarray:
        ratio = np.exp(self.logp - self.old)
        clipped = ((ratio > 1 + clip) & (self.advantages > 0)) | ((ratio < 1 - clip) & (self.advantages < 0))
        return self.eligible & (self.covariance > LOW) & (self.covariance < HIGH) & ~clipped


def choices(trainer: Any, scope: str) -> list[list[dict[str, Any]]]:
    """Return the parts of every choice that a training made."""
    if scope == "rollout":
        return [[rollout] for rollout in trainer.rollouts]
    if scope == "microbatch":
        return [[seen] for seen in trainer.passes]
    updates = sorted({seen["update"] for seen in trainer.passes})
    return [[seen for seen in trainer.passes if seen["update"] == update] for update in updates]


def trained(out: Any, method: Any) -> tuple[Any, list[Batch]]:
    settings = {
        "gradient_accumulation_steps": 2,
        "num_iterations": 2,
        "max_steps": 6,
        "learning_rate": 0.05,
        "per_device_train_batch_size": 8,
    }
    trainer = make_trainer(out, cls=Recomputed, recorded=Recorded(), method=method, settings=settings)
    if method.scope == "microbatch":  # its choice leaves no trace in the inputs: take it where it is made
        choose = trainer._choose

        def kept(*args: Any) -> Tensor:
            trainer.last = choose(*args)
            return trainer.last

        trainer._choose = kept
        loss = trainer.compute_loss

        def with_choice(*args: Any, **kwargs: Any) -> Tensor:
            value = loss(*args, **kwargs)
            trainer.passes[-1][SELECTED] = trainer.last
            return value

        trainer.compute_loss = with_choice
    trainer.train()
    differs = signal(Recorded(), len(trainer.rollouts), 32)
    return trainer, [Batch(parts, differs) for parts in choices(trainer, method.scope)]


COUNTS = {"rollout": 2, "update": 6, "microbatch": 12}


@pytest.mark.parametrize("scope", COUNTS)
def test_kl_cov_takes_the_top_of_its_scope(tmp_path, scope):
    trainer, batches = trained(tmp_path, KLCov(fraction=FRACTION, scope=scope))
    assert len(batches) == COUNTS[scope]
    for batch in batches:
        assert np.array_equal(batch.chosen, batch.top())
    logged = [row["chosen/tokens"] for row in trainer.state.log_history if "chosen/tokens" in row]
    assert sum(logged) == pytest.approx(
        sum(batch.chosen.sum() for batch in batches) / (2 if scope == "microbatch" else 1)
    ), "without an observer TRL logs the number of chosen tokens, the mean over the passes of a step"


@pytest.mark.parametrize("scope", COUNTS)
def test_clip_cov_draws_from_the_window_of_its_scope(tmp_path, scope):
    clip = 0.1
    method = ClipCov(
        fraction=FRACTION, cov_low=LOW, cov_high=HIGH, clip_low=clip, clip_high=clip, scope=scope
    )
    _, batches = trained(tmp_path, method)
    drawn = 0
    for batch in batches:
        candidates = batch.candidates(clip)
        assert not (batch.chosen & ~candidates).any(), (
            "outside of the window, or clipped by PPO, or not eligible"
        )
        assert batch.chosen.sum() == min(batch.quota, candidates.sum())
        drawn += 0 < batch.chosen.sum() < candidates.sum()
    assert drawn, "there is something to draw"
    if scope != "rollout":
        barred = sum((batch.candidates(np.inf) & ~batch.candidates(clip)).sum() for batch in batches)
        assert barred, "the clip bars something"


@pytest.mark.parametrize(
    "method",
    [
        KLCov(fraction=FRACTION, scope="update"),
        ClipCov(fraction=FRACTION, cov_low=LOW, cov_high=HIGH, scope="update"),
        KLCov(restrain=2.0, scope="update"),
    ],
)
def test_scope_update_does_not_depend_on_the_size_of_a_pass(tmp_path, method):
    """Two updates of 16 rows from a rollout of 32, twice over; in passes of 16 rows and of one."""
    found = []
    for size in (16, 1):
        gradients = Gradients()
        settings = {
            "per_device_train_batch_size": size,
            "steps_per_generation": 32 // size,
            "gradient_accumulation_steps": 16 // size,
            "num_iterations": 2,
            "max_steps": 4,
            "optim": "sgd",
            "learning_rate": 0.1,
        }
        recorded = Recorded()
        trainer = make_trainer(
            tmp_path, cls=Spied, recorded=recorded, method=method, callbacks=[gradients], settings=settings
        )
        trainer.train()
        found.append((chosen_of(trainer.passes), gradients.updates))
    (whole, updates), *cuts = found
    assert len(whole) >= 4
    for chosen, gradients in cuts:
        assert chosen == whole
        assert max(distance(a, b) for a, b in zip(gradients, updates, strict=True)) <= 1e-6


def everything(**settings: Any) -> KLCov:
    """Return a method that chooses every token that it may choose."""
    return KLCov(fraction=1.0, allow_large_fraction=True, **settings)


@pytest.mark.parametrize("count_zero_groups", [False, True])
@pytest.mark.parametrize("scope", COUNTS)
def test_who_is_eligible(tmp_path, scope, count_zero_groups):
    """Completion × tool mask, in groups whose rewards differ, or in all groups."""
    hidden = Recorded(
        env_mask=lambda ids: [[int(place % 3 != 1) for place in range(len(row))] for row in ids]
    )
    trainer = make_trainer(
        tmp_path,
        cls=Spied,
        recorded=hidden,
        method=everything(scope=scope, count_zero_groups=count_zero_groups),
        settings={"max_steps": 4},
    )
    kept: list[Tensor] = []
    choose = trainer._choose
    trainer._choose = lambda candidates, *salt: kept.append(candidates.mask) or choose(candidates, *salt)
    trainer.train()
    differs = signal(hidden, 1, 16)
    total = 0
    for seen in trainer.passes:
        for ids, mask, tools, eligible in zip(
            seen["completion_ids"], seen["completion_mask"], seen["tool_mask"], seen[ELIGIBLE], strict=True
        ):
            name = tuple(ids[mask.bool()].tolist())
            assert eligible.item() == (count_zero_groups or differs[name])
            places = [place for place in range(len(name)) if place % 3 != 1]
            assert (mask * tools).nonzero().flatten().tolist() == places
            total += len(places) * eligible.item()
    assert sum(mask.sum().item() for mask in kept) == total
    if scope != "microbatch":
        chosen = chosen_of(trainer.passes)
        assert len(chosen) == total and not any(place % 3 == 1 for _, _, place in chosen)
    assert not all(differs.values()), "one group is without signal, or nothing is tested"


def test_the_draw_depends_on_the_seed_and_the_step_only(tmp_path):
    """A run that is resumed draws as if it had not stopped; another seed draws otherwise."""
    method = ClipCov(fraction=FRACTION, cov_low=LOW, cov_high=HIGH, scope="microbatch")
    trainer = make_trainer(tmp_path, recorded=Recorded(), method=method)
    generator = torch.Generator().manual_seed(0)
    logp = -3 * torch.rand(8, 40, generator=generator)
    batch = TokenBatch(logp, logp, torch.randn(8, generator=generator), torch.ones(8, 40))
    state = torch.get_rng_state()
    first = trainer._choose(batch, 3, 0, 1)
    assert first.any() and torch.equal(trainer._choose(batch, 3, 0, 1), first)
    for other in ((4, 0, 1), (3, 1, 1), (3, 0, 0)):
        assert not torch.equal(trainer._choose(batch, *other), first)
    trainer.args.seed += 1
    assert not torch.equal(trainer._choose(batch, 3, 0, 1), first)
    assert torch.equal(torch.get_rng_state(), state), "global random state was consumed"
