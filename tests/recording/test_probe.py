"""The probe: every number of a row against a recomputation from full logits and NumPy, and when it is measured.

Two trainings on recorded completions, at T = 1 and at T = 0.7: two rollouts of 16 rows, four updates each.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from trl_helpers import Recorded, Spied, letters, make_trainer, problems, tiny_model

from entropilot.engines.trl.trainer import SELECTED
from entropilot.evaluation.sampling.sampler import sample
from entropilot.methods import KLCov
from entropilot.metrics import METRICS, definitions
from entropilot.recording.fixed_prompts import STREAM
from entropilot.recording.observer import Rollout
from entropilot.recording.probe import Probe, Validation
from entropilot.records import RunWriter, read_run

CLIP, COEF, FRACTION = 0.05, 0.5, 0.04
SHARES = ("0.0002", "0.002", "0.02", "0.2", "0.5", "1")
QUADRANTS = ("likely_good", "likely_bad", "rare_good", "rare_bad")
PROMPTS = ("1+2=", "30+4=", "7+7=")


def naive(model: Any, inputs: dict[str, Tensor], temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (logp, entropy) of the completion tokens from the full logits of a plain forward pass."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=attention).logits.double() / temperature
    width = inputs["completion_ids"].shape[1]
    table = logits[:, -width - 1 : -1].log_softmax(-1)
    logp = table.gather(2, inputs["completion_ids"].unsqueeze(2)).squeeze(2)
    return logp.numpy(), -(table.exp() * table).sum(-1).numpy()


class Recomputed(Spied):
    """Keeps plain forward passes beside every rollout and every training pass."""

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        for earlier in self.__dict__.get("rollouts", []):
            earlier["later"] = naive(self.model, earlier, self.temperature)[0]
        output = super()._generate_and_score_completions(inputs)
        kept = {name: x.clone() for name, x in output.items()}
        kept |= {"naive": naive(self.model, output, self.temperature), "T1": naive(self.model, output, 1.0)}
        self.__dict__.setdefault("rollouts", []).append(kept)
        return output

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        before = naive(self.model, inputs, self.temperature)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.passes[-1]["naive"] = before
        return loss


class Watch(Probe):
    """A probe that remembers what it was shown."""

    shown: list[Any]

    def on_rollout(self, trainer: Any, rollout: Any) -> None:
        self.__dict__.setdefault("shown", []).append(rollout)
        super().on_rollout(trainer, rollout)

    def on_micro_batch(self, trainer: Any, seen: Any) -> None:
        self.shown.append(seen)
        super().on_micro_batch(trainer, seen)


@pytest.fixture(scope="module", params=[1.0, 0.7], ids=["T = 1", "T = 0.7"])
def run(request, tmp_path_factory) -> SimpleNamespace:
    out = tmp_path_factory.mktemp("probe")
    called: list[tuple[int, dict[str, Any]]] = []
    held_out = [{"prompt": prompt} for prompt in PROMPTS]
    probe = Watch(
        writer=RunWriter(out, {"metrics": definitions()}),
        folder=out,
        validation=Validation(held_out, letters, every=2, temperature=0.0, max_new_tokens=6),
        tokens_every=5,
        tokens_rows=6,
        on_row=lambda step, row: called.append((step, row)),
    )
    trainer = make_trainer(
        out,
        cls=Recomputed,
        recorded=Recorded(),
        method=KLCov(fraction=FRACTION, coef=COEF, clip_low=CLIP, clip_high=CLIP),
        observer=probe,
        callbacks=[probe],
        # 4 prompts of 6 per epoch: at an epoch's end accelerate takes the last batch for a remainder.
        dataset=problems(6),
        settings={
            "temperature": request.param,
            "gradient_accumulation_steps": 2,
            "num_iterations": 2,
            "max_steps": 8,
        },
    )
    trainer.train()
    probe.writer.close()
    rows = {row["step"]: row for row in read_run(out).rows}
    return SimpleNamespace(out=out, probe=probe, trainer=trainer, rows=rows, called=called)


def valid(part: dict[str, Any]) -> np.ndarray:
    return part["completion_mask"].bool().numpy()


def differs(call: int) -> np.ndarray:
    """Return, per row of a rollout, whether the rewards of its group of four differ."""
    groups = np.reshape(Recorded().rows(call, 16)[1], (4, 4))
    return np.repeat(np.ptp(groups, axis=1) > 0, 4)


def test_every_definition_is_measured_and_nothing_else(run):
    seen = {name for row in run.rows.values() for name in row} - {"step"}
    starred = {name[:-1]: 0 for name in METRICS if name.endswith("*")}
    for name in seen:
        family = [prefix for prefix in starred if name.startswith(prefix)]
        assert family or name in METRICS, f"{name} has no definition"
        starred |= {prefix: starred[prefix] + 1 for prefix in family}
    # The law begins with the fifth measurement (test_live_law.py); test_prefixes.py, test_group_rewards.py,
    # test_findings.py; answers are masked where a run asks for it.
    elsewhere = (
        "law/",
        "dynamics/",
        "semantic/",
        "stop/",
        "findings/",
        "answer/",
        "seconds/teacher",
        "teacher/",
    )
    due = {name for name in METRICS if not name.endswith("*") and not name.startswith(elsewhere)}
    missing = due - seen
    assert not missing, f"defined, but in no row: {missing}"
    assert starred == {"covariance/top_": len(SHARES), "covariance/quadrant_": 4, "adapted/": 0}
    assert read_run(run.out).header["metrics"] == {
        name: {"unit": unit, "definition": text} for name, (unit, text) in METRICS.items()
    }


def test_what_is_measured_when(run):
    """A rollout's numbers stand in the row of its first update only; validation every second rollout and at the end."""
    assert list(run.rows) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    for name in ("entropy/policy_T1", "covariance/mean", "reward/mean", "chosen/tokens", "rollout"):
        assert [step for step, row in run.rows.items() if name in row] == [1, 5], name
    assert [run.rows[step]["rollout"] for step in (1, 5)] == [0, 1]
    assert [step for step, row in run.rows.items() if "validation/accuracy" in row] == [1, 9]
    for name in ("entropy/train_token_mean", "penalty", "log_ratio/p99", "seconds/step"):
        assert [step for step, row in run.rows.items() if name in row] == [1, 2, 3, 4, 5, 6, 7, 8], name
    assert [(step, sorted(row)) for step, row in run.called] == [
        (step, sorted(row.keys() - {"step"})) for step, row in run.rows.items()
    ]


def test_the_policy_entropy(run):
    """Eq. 5: at T = 1 whatever the training samples at; the mean of each sequence, then the mean over sequences."""
    for step, rollout in zip((1, 5), run.trainer.rollouts, strict=True):
        _, entropy = rollout["T1"]
        per_row = [row[mask].mean() for row, mask in zip(entropy, valid(rollout), strict=True)]
        assert run.rows[step]["entropy/policy_T1"] == pytest.approx(np.mean(per_row), rel=1e-5)
        token_mean = entropy[valid(rollout)].mean()
        assert abs(np.mean(per_row) - token_mean) > 1e-4, "both means are equal, or nothing is tested"


def test_covariance_and_choice_of_a_rollout(run):
    positive = []
    for call, (step, rollout) in enumerate(zip((1, 5), run.trainer.rollouts, strict=True)):
        row, (logp, _) = run.rows[step], rollout["naive"]
        eligible = valid(rollout) & differs(call)[:, None]
        advantages = np.broadcast_to(rollout["advantages"].double().numpy()[:, None], eligible.shape)
        x, a = logp[eligible], advantages[eligible]
        covariance = (x - x.mean()) * (a - a.mean())
        assert row["covariance/mean"] == pytest.approx(covariance.mean(), rel=1e-3, abs=1e-6)
        positive.append(covariance.mean() > 0)
        assert row["covariance/positive_share"] == np.mean(positive)
        down = np.sort(covariance)[::-1]
        for share in SHARES:
            top = down[: max(1, int(float(share) * len(down)))].mean()
            assert row[f"covariance/top_{share}"] == pytest.approx(top, rel=1e-3, abs=1e-6)
        likely, good = x > x.mean(), a > a.mean()
        for name, member in zip(
            QUADRANTS, (likely & good, likely & ~good, ~likely & good, ~likely & ~good), strict=True
        ):
            expected = covariance[member].sum() / len(covariance)
            assert row[f"covariance/quadrant_{name}"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        quadrants = sum(row[f"covariance/quadrant_{name}"] for name in QUADRANTS)
        assert quadrants == pytest.approx(row["covariance/mean"], rel=1e-3, abs=1e-6)
        count = max(1, int(FRACTION * len(covariance)))
        held = down[:count].sum()
        assert (row["chosen/tokens"], row["chosen/eligible"]) == (count, len(covariance))
        assert row["chosen/net_share"] == pytest.approx(held / covariance.sum(), rel=1e-3)
        share = held / covariance[covariance > 0].sum()
        assert row["chosen/positive_share"] == pytest.approx(share, rel=1e-3)


def test_rewards_and_lengths_of_a_rollout(run):
    for call, step in enumerate((1, 5)):
        ids, scores = Recorded().rows(call, 16)
        row, lengths = run.rows[step], [len(text) for text in ids]
        assert row["reward/mean"] == pytest.approx(np.mean(scores))
        assert row["reward/std"] == pytest.approx(np.std(scores))
        assert row["completion/length"] == np.mean(lengths)
        assert row["completion/longest"] == max(lengths)
        assert row["completion/truncated"] == np.mean([text[-1] != 2 for text in ids]) == 0.5
        groups = np.reshape(scores, (4, 4))
        flat = np.ptp(groups, axis=1) == 0
        assert row["groups/all_wrong"] == (flat & (groups[:, 0] < 1)).mean() >= 0.25
        assert row["groups/all_right"] == (flat & (groups[:, 0] == 1)).mean()


def test_the_numbers_of_an_update(run):
    clipped = 0.0
    for step in range(1, 9):
        row, parts = run.rows[step], [seen for seen in run.trainer.passes if seen["update"] == step - 1]
        assert len(parts) == 2
        masks = [valid(part) for part in parts]
        entropy = np.concatenate([part["naive"][1][mask] for part, mask in zip(parts, masks, strict=True)])
        assert row["entropy/train_token_mean"] == pytest.approx(entropy.mean(), rel=1e-4)
        drift, advantages, chosen = [], [], []
        for part, mask in zip(parts, masks, strict=True):
            old = part["old_per_token_logps"].double().numpy()
            moved = part["naive"][0] - old if step not in (1, 5) else np.zeros_like(old)
            drift.append(moved[mask])
            advantages.append(np.broadcast_to(part["advantages"].numpy()[:, None], mask.shape)[mask])
            chosen.append(part[SELECTED].numpy()[mask])
        x, a, c = np.concatenate(drift), np.concatenate(advantages), np.concatenate(chosen)
        for name, q in (("log_ratio/median", 0.5), ("log_ratio/p99", 0.99)):
            expected = np.quantile(np.abs(x), q, method="inverted_cdf")
            assert row[name] == pytest.approx(expected, rel=1e-4, abs=2e-6), name
        low, high = (np.exp(x) < 1 - CLIP) & (a < 0), (np.exp(x) > 1 + CLIP) & (a > 0)
        assert row["clip/low"] == pytest.approx(low.mean(), abs=1e-6)
        assert row["clip/high"] == pytest.approx(high.mean(), abs=1e-6)
        clipped += low.sum() + high.sum()
        assert row["penalty"] == pytest.approx(COEF * (np.abs(x) * c).mean(), rel=1e-4, abs=1e-6)
        assert row["penalty"] == 0.0 or step not in (1, 5)
        assert row["learning_rate"] == 1e-2
    assert clipped > 0 and run.rows[8]["penalty"] > 0


def greedy(model: Any, tokenizer: Any, prompt: str, limit: int) -> list[int]:
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    found: list[int] = []
    while len(found) < limit and 2 not in found:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + found])).logits[0, -1]
        found.append(int(logits.argmax()))
    return found


def test_validation_is_measured_on_the_weights_before_and_after(run):
    tokenizer = run.trainer.processing_class
    for step, model in ((1, tiny_model()), (9, run.trainer.model)):
        model.eval()
        ids = [greedy(model, tokenizer, prompt, 6) for prompt in PROMPTS]
        rewards = letters([tokenizer.decode(row, skip_special_tokens=True) for row in ids])
        row = run.rows[step]
        assert row["validation/accuracy"] == pytest.approx(np.mean(rewards))
        assert row["validation/length"] == pytest.approx(np.mean([len(found) for found in ids]))
        assert row["validation/truncated"] == pytest.approx(np.mean([2 not in found for found in ids]))
        assert row["validation/samples"] == 3
        assert row["seconds/validation"] > 0


def test_seconds(run):
    for step in range(1, 9):
        row = run.rows[step]
        parts = [
            row[f"seconds/{name}"] for name in ("rollout", "probe", "update") if f"seconds/{name}" in row
        ]
        assert all(part > 0 for part in parts)
        assert row["seconds/step"] >= row["seconds/update"]
        if step not in (1, 5):
            assert not {"seconds/rollout", "seconds/probe"} & row.keys()


def test_scalars_reach_the_trackers(run):
    """Through TRL's own log, so that `report_to` shows them; learning_rate is already there."""
    for logged, step in zip(run.trainer.state.log_history, range(1, 9), strict=False):
        row = run.rows[step]
        for name in row.keys() - {"step", "rollout"}:
            assert logged[name] == row[name], name
    assert run.trainer.state.log_history[0]["loss"] is not None
    last, row = run.trainer.state.log_history[-1], run.rows[9]
    assert last["step"] == 9 and run.trainer.state.global_step == 8
    assert run.trainer.callback_handler.callbacks[0] is run.probe, "a tracker closes in its own on_train_end"
    assert {name: last[name] for name in row.keys() - {"step"}} == {n: row[n] for n in row.keys() - {"step"}}


def test_nothing_that_is_kept_carries_a_graph(run):
    tensors = 0
    for shown in run.probe.shown:
        parts = [getattr(shown, field.name) for field in fields(shown)]
        batch = [getattr(shown.batch, field.name) for field in fields(shown.batch)]
        extra = list(shown.output.values()) if isinstance(shown, Rollout) else []
        for x in (*parts, *batch, *extra):
            if isinstance(x, Tensor):
                tensors += 1
                assert x.grad_fn is None and not x.requires_grad
    assert tensors > 100
    assert not run.probe._passes and not run.probe._pending


def test_token_samples(run):
    """Whole rows, token by token; every column is as long as the tokens, in the tokens' order."""
    assert sorted(path.name for path in (run.out / "tokens").iterdir()) == ["step_000001.parquet"], (
        "the second rollout begins at step 5, one too early for tokens_every = 5"
    )
    table = pq.read_table(run.out / "tokens" / "step_000001.parquet").to_pydict()
    rollout, (ids, scores) = run.trainer.rollouts[0], Recorded().rows(0, 16)
    logp, entropy = rollout["naive"]
    decode, mask = run.trainer.processing_class.decode, valid(rollout)
    eligible = mask & differs(0)[:, None]
    advantages = np.broadcast_to(rollout["advantages"].double().numpy()[:, None], mask.shape)
    covariance = (logp - logp[eligible].mean()) * (advantages - advantages[eligible].mean()) * eligible
    assert len(table["step"]) == 6 + 12 and set(table["step"]) == {1}
    assert table["role"] == ["training"] * 6 + ["held_out"] * 12
    texts = [decode(row) for row in ids]
    rows = [texts.index(text) for text in table["completion"][:6]]
    assert rows == sorted(rows) and len(set(rows)) == 6
    assert any({4 * group, 4 * group + 1, 4 * group + 2, 4 * group + 3} <= set(rows) and differs(0)[4 * group]
               for group in range(4)), "a whole group whose rewards differ"  # fmt: skip
    assert {min(scores), max(scores)} <= {scores[row] for row in rows}, "the lowest and the highest reward"
    for place, row in enumerate(rows):
        here = mask[row]
        prompt = decode(rollout["prompt_ids"][row][rollout["prompt_mask"][row].bool()])
        assert table["prompt"][place] == prompt
        assert table["prompt_id"][place] == hashlib.sha256(prompt.encode()).hexdigest()[:12]
        assert table["truncated"][place] == (ids[row][-1] != 2)
        assert table["completion"][place] == "".join(table["tokens"][place])
        assert table["tokens"][place] == [decode([token]) for token in ids[row]]
        assert table["reward"][place] == scores[row]
        for name, values in (
            ("logp", logp),
            ("entropy", entropy),
            ("advantage", advantages),
            ("covariance", covariance),
            ("chosen", rollout[SELECTED].numpy()),
            ("drift", rollout["later"] - logp),  # the weights after the rollout's four updates
        ):
            assert table[name][place] == pytest.approx(values[row][here].tolist(), rel=1e-3, abs=1e-5), name
    assert len(set(table["truncated"][:6])) == 2, "cut and whole completions"
    assert max(abs(x) for row in table["drift"][:6] for x in row) > 1e-3, (
        "nothing moved, or nothing is tested"
    )


def test_token_samples_of_the_fixed_prompts(run):
    """Drawn anew here with the probe's stream, from the weights before training; scored by a plain forward pass."""
    table = pq.read_table(run.out / "tokens" / "step_000001.parquet").to_pydict()
    tokenizer, model, temperature = run.trainer.processing_class, tiny_model(), run.trainer.temperature
    place, repeated = 6, [prompt for prompt in PROMPTS for _ in range(4)]
    streams = [STREAM + row for row in range(12)]
    rows = sample(model, tokenizer, repeated, temperature=temperature, max_new_tokens=6, indices=streams)
    drawn = [[one for (one,) in rows[start : start + 4]] for start in (0, 4, 8)]
    for prompt, group in zip(PROMPTS, drawn, strict=True):
        assert len({completion.text for completion in group}) > 1, "four different completions"
        for completion in group:
            assert table["prompt"][place] == prompt
            assert table["tokens"][place] == [tokenizer.decode([token]) for token in completion.ids]
            assert table["truncated"][place] == (completion.ids[-1] != 2)
            assert table["reward"][place] == letters([completion.text])[0]
            inputs = {
                "prompt_ids": tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
            }
            inputs["completion_ids"] = torch.tensor([completion.ids])
            inputs |= {
                f"{name}_mask": torch.ones_like(inputs[f"{name}_ids"]) for name in ("prompt", "completion")
            }
            logp, entropy = naive(model, inputs, temperature)
            assert table["logp"][place] == pytest.approx(logp[0].tolist(), rel=1e-4, abs=1e-5)
            assert table["entropy"][place] == pytest.approx(entropy[0].tolist(), rel=1e-4, abs=1e-5)
            for name in ("advantage", "covariance", "drift"):
                assert table[name][place] == [None] * len(completion.ids), name
            place += 1
    assert place == len(table["step"])
