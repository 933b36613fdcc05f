"""What an update adds up: logged without a probe, read from the device once, and stopped where it is not finite."""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from trl import GRPOTrainer
from trl_helpers import Recorded, Spied, make_trainer

from entropilot.engines.trl.tally import NonFiniteLossError
from entropilot.engines.trl.trainer import SELECTED, EntropyGRPOTrainer
from entropilot.methods import ClipCov, KLCov
from entropilot.recording.probe import Probe

SETTINGS = {"gradient_accumulation_steps": 2, "num_iterations": 2, "max_steps": 4}


class Scored(Spied):
    """Keeps the log-probs of every training pass."""

    def _steer(self, current: Any, logps: Tensor, entropies: Any) -> Tensor:
        self.__dict__.setdefault("logps", []).append(logps.detach().clone())
        return super()._steer(current, logps, entropies)


def test_without_a_probe_the_penalty_and_the_log_ratio_are_logged(tmp_path):
    """An inert KL-Cov shows: both are 0 in a rollout's first update, and not in the later ones."""
    coef = 0.7
    method = KLCov(fraction=0.3, coef=coef, allow_large_fraction=True)
    trainer = make_trainer(tmp_path, cls=Scored, recorded=Recorded(), method=method, settings=SETTINGS)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 4 and [row["step"] for row in rows if "chosen/tokens" in row] == [1], (
        "once per rollout"
    )
    for step, row in enumerate(rows):
        drift, penalty, tokens = 0.0, 0.0, 0
        for part, logps in zip(trainer.passes, trainer.logps, strict=True):
            if part["update"] != step:
                continue
            mask = part["completion_mask"].bool()
            moved = (logps - part["old_per_token_logps"]).abs() * (step > 0)
            drift += moved[mask].sum().item()
            penalty += coef * moved[mask & part[SELECTED]].sum().item()
            tokens += int(mask.sum())
        assert row["log_ratio/mean"] == pytest.approx(drift / tokens, rel=1e-5)
        assert row["penalty"] == pytest.approx(penalty / tokens, rel=1e-5)
        assert (row["log_ratio/mean"] > 0) == (row["penalty"] > 0) == (step > 0)


def test_clip_cov_has_no_penalty_to_log(tmp_path):
    trainer = make_trainer(tmp_path, recorded=Recorded(), method=ClipCov(), settings=SETTINGS)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert all("penalty" not in row and "log_ratio/mean" in row for row in rows)


def reads(monkeypatch: Any, train: Any) -> Counter[str]:
    """Return how often a training read a number from a tensor: each such read waits for a GPU."""
    counts: Counter[str] = Counter()
    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__bool__", "__float__"):
            original = getattr(Tensor, name)

            def counted(self: Tensor, *args: Any, name: str = name, original: Any = original) -> Any:
                counts[name] += 1
                return original(self, *args)

            patch.setattr(Tensor, name, counted)
        train()
    return counts


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("method", [KLCov(fraction=0.04), ClipCov(fraction=0.04, cov_low=0.1)])
def test_one_read_per_update_beside_trls_own(tmp_path, monkeypatch, method, accumulation):
    """Chosen over the rollout: whatever the number of passes, an update reads one vector more than TRL's."""
    settings = SETTINGS | {"gradient_accumulation_steps": accumulation, "max_steps": 8 // accumulation}
    totals = []
    for cls, extra in ((GRPOTrainer, {}), (EntropyGRPOTrainer, {"method": method})):
        trainer = make_trainer(tmp_path, cls=cls, recorded=Recorded(), settings=settings, **extra)
        totals.append(reads(monkeypatch, trainer.train))
    plain, ours = totals
    assert plain.total() > 8, "TRL's own reads are counted"
    more = Counter({name: ours[name] - plain[name] for name in ours | plain})
    assert +more == Counter(tolist=8 // accumulation) and not -more, "one vector per optimiser step"


def test_a_probe_reads_few_numbers_more(tmp_path, monkeypatch):
    """Its rows cost the same number of reads whether an update has one pass or four."""
    totals = []
    for size in (16, 4):
        probe = Probe()
        settings = {
            "per_device_train_batch_size": size,
            "steps_per_generation": 16 // size,
            "gradient_accumulation_steps": 16 // size,
            "num_iterations": 2,
            "max_steps": 4,
        }
        per_cls = []
        for cls, extra in (
            (GRPOTrainer, {}),
            (EntropyGRPOTrainer, {"method": KLCov(fraction=0.04), "observer": probe}),
        ):
            trainer = make_trainer(tmp_path, cls=cls, recorded=Recorded(), settings=settings, **extra)
            per_cls.append(reads(monkeypatch, trainer.train).total())
        totals.append(per_cls[1] - per_cls[0])
    assert totals[0] == totals[1]


# --- what is not finite -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("observed", [False, True])
def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path, monkeypatch, observed, accumulation):
    """Found at the end of the update, whichever pass it was in; the optimiser has not stepped on it."""
    extra = {"observer": Probe()} if observed else {}
    settings = SETTINGS | {"gradient_accumulation_steps": accumulation}
    trainer = make_trainer(tmp_path, recorded=Recorded(), method=KLCov(), settings=settings, **extra)
    weights = [p.detach().clone() for p in trainer.model.parameters()]
    steer = trainer._steer

    def spoiled(current: Any, logps: Tensor, entropies: Any) -> Tensor:
        steered = steer(current, logps, entropies)
        return steered * math.nan if trainer._step == 0 else steered  # the first pass of the first update

    trainer._steer = spoiled
    with pytest.raises(NonFiniteLossError, match="The loss of step 1 is not finite"):
        trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(trainer.model.parameters(), weights, strict=True))


def test_a_token_without_probability_is_left_out_and_said(tmp_path, caplog):
    """log π = −inf for one token: the others are chosen as without it, and a sentence counts it."""
    method = KLCov(fraction=0.04)
    trainer = make_trainer(tmp_path, recorded=Recorded(), method=method)
    generator = torch.Generator().manual_seed(0)
    logp = -3 * torch.rand(8, 40, generator=generator)
    mask = torch.ones(8, 40)
    mask[3, 5] = 0
    from entropilot.maths.tokens import TokenBatch

    advantages = torch.randn(8, generator=generator)
    without = trainer._choose(TokenBatch(logp, logp, advantages, mask), 0)
    logp[3, 5] = -torch.inf
    chosen = trainer._choose(TokenBatch(logp, logp, advantages, torch.ones(8, 40)), 0)
    assert int(chosen.sum()) == int(0.04 * 319) == 12 and torch.equal(chosen, without)
    finite = TokenBatch(advantages.view(2, 4), advantages.view(2, 4), torch.ones(2), torch.ones(2, 4))
    with caplog.at_level(logging.WARNING, logger="entropilot"):
        for _ in range(2):
            trainer._tally.add_pass(torch.tensor(0.0), finite, None)
            trainer._close_update()
            trainer._choose(TokenBatch(logp, logp, advantages, torch.ones(8, 40)), 0)
    said = [record.message for record in caplog.records if "not finite" in record.message]
    assert len(said) == 1 and "Step 1: 1 tokens have a log-prob that is not finite" in said[0]
    logged = trainer._metrics["train"]
    assert logged["chosen/eligible"][:2] == [319.0, 320.0]
    assert all(np.isfinite(value) for value in logged["covariance/mean"])
