"""Entropy around every update on completions that stay the same, and the covariance of responses beside it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from trl_helpers import Recorded, letters, make_trainer, parameters, tiny_model

from entropilot.recording.prefixes import FILE_NAME, Prefixes, response_metrics
from entropilot.recording.probe import Probe
from entropilot.records import RunWriter, read_run

PROMPTS = ("1+2=", "30+4=", "7+7=")


def held_out(out: Path | None, seed: int = 4) -> Prefixes:
    return Prefixes([{"prompt": prompt} for prompt in PROMPTS], max_new_tokens=6, seed=seed, folder=out)


class Witness(Probe):
    """Measures the entropy on the fixed completions itself, from full logits, before the first and after every update."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.seen: list[float] = []
        self.shown: list[Any] = []

    def _measure(self, model: Any) -> None:
        kept = json.loads((self.folder / FILE_NAME).read_text())
        means = []
        for prompt, completion in zip(kept["prompt_ids"], kept["completion_ids"], strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + completion])).logits[0].double()
            table = logits[len(prompt) - 1 : -1].log_softmax(-1)
            means.append(-(table.exp() * table).sum(-1).mean().item())
        self.seen.append(float(np.mean(means)))

    def on_rollout(self, engine: Any, rollout: Any) -> None:
        super().on_rollout(engine, rollout)
        self.shown.append(rollout)
        if not self.seen:
            self._measure(engine.trainer.model)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_step_end(args, state, control, **kwargs)
        self._measure(kwargs["model"])


@pytest.fixture(scope="module", params=[1.0, 0.7], ids=["T = 1", "T = 0.7"])
def run(request, tmp_path_factory) -> SimpleNamespace:
    out = tmp_path_factory.mktemp("prefixes")
    probe = Witness(writer=RunWriter(out, {}), folder=out, prefixes=held_out(out))
    settings = {"temperature": request.param, "learning_rate": 1e-3}
    trainer = make_trainer(out, observer=probe, callbacks=[probe], settings=settings, recorded=Recorded())
    trainer.train()
    assert probe.writer is not None
    probe.writer.close()
    return SimpleNamespace(out=out, probe=probe, trainer=trainer, rows=read_run(out).rows)


def test_entropy_around_an_update_is_that_of_the_full_logits_at_temperature_1(run) -> None:
    after = [row["dynamics/entropy_after"] for row in run.rows]
    before = [row["dynamics/entropy_before"] for row in run.rows]
    assert len(after) == 4
    np.testing.assert_allclose([before[0], *after], run.probe.seen, rtol=1e-5)
    assert before[1:] == after[:-1], "an update begins where the last one ended"
    assert len(set(after)) == 4, "the weights moved, and with them the entropy"


def test_covariance_of_responses_is_that_of_numpy(run) -> None:
    assert [("dynamics/covariance_pg" in row) for row in run.rows] == [True, False, False, False], (
        "once a rollout"
    )
    rollout, row = run.probe.shown[0], run.rows[0]
    logp, mask = rollout.batch.logp.double().numpy(), rollout.batch.mask.numpy()
    action = np.array([p[m].mean() for p, m in zip(logp, mask, strict=True)]).reshape(4, 4)
    advantages = rollout.batch.advantages[:, 0].double().numpy().reshape(4, 4)
    pg = [np.cov(a, np.exp(a) * x, bias=True)[0, 1] for a, x in zip(action, advantages, strict=True)]
    npg = [np.cov(a, x, bias=True)[0, 1] for a, x in zip(action, advantages, strict=True)]
    assert row["dynamics/covariance_pg"] == pytest.approx(np.mean(pg), rel=1e-5)
    assert row["dynamics/covariance_npg"] == pytest.approx(np.mean(npg), rel=1e-5)
    right = (rollout.rewards.numpy().reshape(4, 4) > 0.5).mean(1)
    levels = row["dynamics/by_accuracy"]
    assert [level[0] for level in levels] == sorted(set(right))
    for accuracy, count, of_pg, of_npg in levels:
        here = right == accuracy
        assert count == here.sum()
        assert of_pg == pytest.approx(np.mean(np.array(pg)[here]), rel=1e-5, abs=1e-9)
        assert of_npg == pytest.approx(np.mean(np.array(npg)[here]), rel=1e-5, abs=1e-9)


def test_groups_that_nothing_scored_drive_nothing() -> None:
    def metrics(*rewards: float) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        logp = -torch.rand(6, 3, generator=generator)
        advantages = torch.randn(6, 1, generator=generator).expand(6, 3)
        keep = slice(0, len(rewards))
        batch = SimpleNamespace(
            logp=logp[keep], advantages=advantages[keep], mask=torch.ones(6, 3).bool()[keep]
        )
        return response_metrics(SimpleNamespace(batch=batch, rewards=torch.tensor(rewards)), 2)

    nan = float("nan")
    expected = metrics(1.0, 0.0, 1.0, 1.0)
    assert [level[:2] for level in expected["dynamics/by_accuracy"]] == [[0.5, 1], [1.0, 1]]
    for unscored in ((nan, nan), (1.0, nan)):
        assert metrics(1.0, 0.0, 1.0, 1.0, *unscored) == expected
    assert metrics(nan, nan, nan, 1.0) == {}


def test_measuring_changes_nothing_in_the_training(tmp_path: Path) -> None:
    ends = []
    for name, prefixes in (("with", held_out(None)), ("without", None)):
        probe = Probe(prefixes=prefixes)
        trainer = make_trainer(tmp_path / name, reward=letters, observer=probe, callbacks=[probe])
        trainer.train()
        ends.append(parameters(trainer))
    assert torch.equal(*ends), "sampling the fixed completions drew from the training's random numbers"


def test_a_resumed_run_measures_on_the_same_completions(tmp_path: Path) -> None:
    first = held_out(tmp_path)
    trainer = make_trainer(tmp_path / "a")
    entropy = first.entropy(trainer.view)
    other = make_trainer(tmp_path / "b", model=tiny_model(seed=9))
    again, fresh = held_out(tmp_path), held_out(None)
    again.entropy(other.view)
    fresh.entropy(other.view)
    assert torch.equal(again._inputs["completion_ids"], first._inputs["completion_ids"])
    kept, new = again._inputs["completion_ids"], fresh._inputs["completion_ids"]
    assert kept.shape != new.shape or not torch.equal(kept, new), "another policy gives other completions"
    assert held_out(tmp_path).entropy(trainer.view) == entropy
