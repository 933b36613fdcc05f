"""The protocol between engines and recording: a small engine of its own, without TRL, is enough for a whole record.

The loop below is the one that an adapter for another engine writes: sample, show the rollout, show the passes, step.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from trl_helpers import make_trainer, tiny_model

from entropilot.engine_view import EngineView
from entropilot.maths.advantages import estimate_advantages, groups_with_signal
from entropilot.maths.tokens import TokenBatch
from entropilot.methods import KLCov
from entropilot.methods.empo import EMPO
from entropilot.metrics import METRICS, definitions
from entropilot.recording.observer import MicroBatch, Rollout
from entropilot.recording.prefixes import Prefixes
from entropilot.recording.probe import Probe, Validation
from entropilot.records import RunWriter, read_run
from entropilot.rewards.groups import GroupReward
from entropilot.sandbox.tokenizer import build_tokenizer

GROUP, ROWS, WIDTH = 4, 8, 6


class SmallEngine:
    """One process, plain SGD on the policy gradient; it has the members of `EngineView` and no other public ones."""

    def __init__(self) -> None:
        self._model = tiny_model()
        self._temperature = 1.0
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.05)
        self._logged: list[tuple[str, float]] = []
        self._reported: list[tuple[int, dict[str, float]]] = []
        self.tokenizer = build_tokenizer()
        self.step, self.rollout = 0, 0
        self.num_generations, self.temperature = GROUP, 1.0
        self.rewards = [
            GroupReward(EMPO(), judge="exact", extract=lambda text: str(ord(text[0]) % 2), name="empo")
        ]
        self.clip: Mapping[str, Any] = {"low": None, "high": None, "source": "this engine has none"}
        self.scope: str | None = "rollout"
        self.device = torch.device("cpu")
        self.rank, self.world_size, self.is_main = 0, 1, True
        self._lengths: dict[str, float] = {}

    def reduce(self, values: Tensor) -> Tensor:
        return values

    def gather(self, values: Tensor, padding: float = 0) -> Tensor:
        return values

    def gather_objects(self, value: Any) -> list[Any]:
        return [value]

    def score(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self._forward(inputs)

    @contextmanager
    def at_temperature(self, temperature: float) -> Iterator[None]:
        before, self._temperature = self._temperature, temperature
        yield
        self._temperature = before

    @contextmanager
    def generating_model(self) -> Iterator[Any]:
        yield self._model

    def completion_metrics(self) -> Mapping[str, float]:
        return self._lengths

    def log(self, name: str, value: float) -> None:
        self._logged.append((name, value))

    def report(self, step: int, values: Mapping[str, float]) -> None:
        self._reported.append((step, dict(values)))

    # --- the engine's own business ---

    def _forward(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        width = inputs["completion_ids"].shape[1]
        logits = self._model(input_ids=ids, attention_mask=mask).logits[:, -width - 1 : -1]
        table = (logits.float() / self._temperature).log_softmax(-1)
        logp = table.gather(2, inputs["completion_ids"].unsqueeze(2)).squeeze(2)
        return logp, -(table.exp() * table).sum(-1)

    def _sample(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.rollout)
        prompts = torch.randint(6, 100, (ROWS // GROUP, 3), generator=generator).repeat_interleave(GROUP, 0)
        completions = torch.randint(6, 100, (ROWS, WIDTH), generator=generator)
        lengths = torch.randint(2, WIDTH + 1, (ROWS, 1), generator=generator)
        mask = (torch.arange(WIDTH) < lengths).long()
        self._lengths = {
            "completion/length": lengths.float().mean().item(),
            "completion/longest": float(lengths.max()),
            "completion/truncated": 0.0,
        }
        ones = torch.ones_like(prompts)
        return {
            "prompt_ids": prompts,
            "prompt_mask": ones,
            "completion_ids": completions,
            "completion_mask": mask,
        }

    def train(self, probe: Probe, method: Any, rollouts: int, updates: int = 2) -> list[Rollout]:
        shown = []
        for _ in range(rollouts):
            probe.before_rollout(self)
            inputs = self._sample()
            logp, entropy = self.score(inputs)
            texts = self.tokenizer.batch_decode(inputs["completion_ids"])
            prompts = self.tokenizer.batch_decode(inputs["prompt_ids"])
            rewards = torch.tensor(self.rewards[0](prompts, texts, num_generations=GROUP))
            advantages = estimate_advantages(rewards, GROUP, "grpo")
            whole = TokenBatch(logp, logp, advantages, inputs["completion_mask"], entropy)
            eligible = whole.mask & groups_with_signal(advantages, GROUP).unsqueeze(1)
            candidates = TokenBatch(logp, logp, advantages, eligible)
            chosen = method.select(candidates, torch.Generator())
            shown.append(Rollout(whole, eligible, chosen, rewards, dict(inputs), 0, 0.1))
            probe.on_rollout(self, shown[-1])
            self.rollout += 1
            for _ in range(updates):
                probe.begin_update()
                new, entropies = self._forward(inputs)
                batch = TokenBatch(logp, new, advantages, inputs["completion_mask"], entropies.detach())
                extra = method.steer(batch, chosen).extra
                loss = -(new - logp).exp() * batch.advantages + extra
                (loss * batch.mask).sum().backward()
                part = MicroBatch(batch.detach(), eligible, chosen, extra.detach(), 0.1)
                probe.on_micro_batch(self, part)
                self._optimizer.step()
                self._optimizer.zero_grad()
                self.step += 1
                probe.end_update(self, learning_rate=0.05)
        probe.end_training(self)
        return shown


def score(score: list[float], **_: Any) -> list[float]:
    return score


def test_another_engine_writes_a_whole_record(tmp_path):
    held_out = [{"prompt": "1+2=", "score": 1.0}, {"prompt": "7+7=", "score": 0.0}]
    validation = Validation(held_out, score, temperature=0.0, max_new_tokens=4)
    writer = RunWriter(tmp_path, {"metrics": definitions()})
    prefixes = Prefixes(held_out, max_new_tokens=4)
    probe = Probe(
        writer=writer,
        folder=tmp_path,
        validation=validation,
        tokens_every=1,
        tokens_rows=2,
        prefixes=prefixes,
    )
    engine = SmallEngine()
    view: EngineView = engine  # the type checker sees that it fits
    assert view.step == 0
    shown = engine.train(probe, KLCov(fraction=0.3, allow_large_fraction=True), rollouts=2)
    writer.close()
    rows = read_run(tmp_path).rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    ((last, values),) = engine._reported
    assert last == 5 and values["validation/accuracy"] == rows[-1]["validation/accuracy"]
    for row, rollout in ((rows[0], shown[0]), (rows[2], shown[1])):
        mask = rollout.batch.mask
        entropy = rollout.batch.entropy
        assert entropy is not None
        means = [line[here].mean() for line, here in zip(entropy, mask, strict=True)]
        assert row["entropy/policy_T1"] == pytest.approx(float(torch.stack(means).mean()))
        assert row["chosen/eligible"] == int(rollout.eligible.sum())
        assert row["reward/mean"] == pytest.approx(float(rollout.rewards.mean()))
        assert row["completion/length"] == pytest.approx(mask.sum(1).float().mean())
        assert row["penalty"] == 0.0 and rows[row["step"]]["penalty"] > 0, "the second update drifts"
    assert [row.get("validation/accuracy") for row in rows] == [0.5, None, 0.5, None, 0.5]
    assert [row["dynamics/entropy_after"] for row in rows[:3]] == [
        row["dynamics/entropy_before"] for row in rows[1:4]
    ]
    names = {name for row in rows for name in row} - {"step"}
    starred = tuple(name[:-1] for name in METRICS if name.endswith("*"))
    assert all(name in METRICS or name.startswith(starred) for name in names)
    # What needs labels, prompts that come again, masked answers, five measurements, a finding or a stop is not there.
    rare = (
        "law/",
        "stop/",
        "findings/",
        "semantic/label",
        "semantic/majority_accuracy",
        "semantic/flip_rate",
        "semantic/unlabelled",
        "semantic/used",
        "answer/",
        "seconds/teacher",
        "teacher/",
    )
    assert {name for name in METRICS if not name.startswith(rare) and not name.endswith("*")} <= names
    assert ("penalty", rows[1]["penalty"]) in engine._logged
    assert len(list((tmp_path / "tokens").iterdir())) == 2


def test_trls_view_and_the_small_engine_have_the_members_of_the_protocol(tmp_path):
    members = {name for name in vars(EngineView) if not name.startswith("_")}
    assert {name for name in dir(SmallEngine()) if not name.startswith("_")} - {"train"} == members
    view = make_trainer(tmp_path).view
    assert {name for name in dir(view) if not name.startswith("_")} - {"trainer"} == members
    assert (view.step, view.rollout, view.scope, view.rank, view.world_size, view.is_main) == (
        0,
        0,
        None,
        0,
        1,
        True,
    )


def test_recording_and_group_rewards_import_no_engine():
    code = (
        "import sys, entropilot.recording.probe, entropilot.rewards.groups\n"
        "print([name for name in ('trl', 'verl', 'ray') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
