"""Which rows a token sample takes, how often, how much, and that training does not notice."""

from __future__ import annotations

import math
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from trl_helpers import letters, make_trainer, parameters, tiny_model

from entropilot.evaluation.sampling.sampler import sample
from entropilot.metrics import TOKEN_COLUMNS
from entropilot.recording import token_samples
from entropilot.recording.fixed_prompts import STREAM, FixedPrompts
from entropilot.recording.probe import Probe, Validation
from entropilot.recording.sample_rows import choose_rows
from entropilot.recording.token_samples import TokenSamples

NAN = math.nan


@pytest.mark.parametrize(
    ("rewards", "count", "expected"),
    [
        # Groups of three: the second is mixed and is taken whole; then the lowest reward, then the highest.
        ([1, 1, 1, 0, 1, 0, 0, 0, 0], 5, [0, 3, 4, 5, 6]),
        # Both are mixed, the second by more.
        ([0.4, 0.5, 0.4, 0, 1, 0], 3, [3, 4, 5]),
        # The mixed group is larger than the sample: both its rewards are in it.
        ([1, 1, 0], 2, [0, 2]),
        # No group is mixed: from every reward one, then the first again, from groups that have none yet.
        ([0, 0, 0, 1, 1, 1, 0, 0, 0], 3, [0, 3, 6]),
        # More rewards than rows: lowest, middle, highest of the five that are left.
        ([0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3, 0.4, 0.4, 0.4, 0.5, 0.5, 0.5], 3, [0, 6, 12]),
        ([NAN] * 6, 2, [0, 3]),
        ([1, 0, NAN], 2, [0, 1]),  # a group with a reward that is unknown is not mixed
        ([1, 0], 9, [0, 1]),
    ],
)
def test_the_rows_by_hand(rewards, count, expected):
    assert choose_rows(rewards, [row // 3 for row in range(len(rewards))], count) == expected


def trained(out, every, **settings):
    """Train a tiny model on its own samples; return rows without the clock, weights, and the random states after."""
    rows = []
    probe = Probe(
        folder=out,
        tokens_every=every,
        on_row=lambda step, row: rows.append((step, {k: v for k, v in row.items() if "seconds/" not in k})),
    )

    def restless(completions, **_):
        random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
        return letters(completions)

    held_out = [{"prompt": prompt} for prompt in ("1+2=", "30+4=", "7+7=", "1+1=", "2+2=")]
    probe.validation = Validation(held_out, restless, every=50, max_new_tokens=6)
    trainer = make_trainer(out, observer=probe, settings={"max_steps": 12} | settings)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    trainer.train()
    states = random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002
    return SimpleNamespace(rows=rows, weights=parameters(trainer), states=states, trainer=trainer)


def test_training_does_not_notice(tmp_path):
    without, with_samples = trained(tmp_path / "a", 0), trained(tmp_path / "b", 1)
    assert not (tmp_path / "a" / "tokens").exists()
    assert len(list((tmp_path / "b" / "tokens").iterdir())) == 3, "12 updates are 3 rollouts"
    assert repr(without.rows) == repr(with_samples.rows)  # NaN equals itself as text
    assert torch.equal(without.weights, with_samples.weights)
    assert without.states == with_samples.states


def test_the_same_prompts_at_every_sample_and_a_bound_on_size(tmp_path, monkeypatch):
    monkeypatch.setattr(token_samples, "MOST_TOKENS", 25)
    trained(tmp_path, 1)
    prompts = []
    for path in sorted((tmp_path / "tokens").iterdir()):
        table = pq.read_table(path).to_pydict()
        assert set(TOKEN_COLUMNS) - {"cluster", "answer"} == set(table), (
            "columns without a definition, or never there"
        )
        lengths = [len(row) for row in table["tokens"]]
        held = [role == "held_out" for role in table["role"]]
        prompts.append([p for p, here in zip(table["prompt"], held, strict=True) if here][0])
        for role in (True, False):
            assert 0 < sum(n for n, here in zip(lengths, held, strict=True) if here == role) <= 25
        assert all(
            len(table[name][row]) == lengths[row] for name in ("logp", "drift") for row in range(len(held))
        )
    assert prompts == ["1+2="] * 3


@pytest.mark.parametrize(
    ("given", "steps", "interval"),
    [(None, 240, 12), (None, 20, 1), (None, 3, 1), (None, 1000, 50), (7, 1000, 7), (None, None, 50)],
)
def test_about_twenty_samples_where_nothing_is_set(given, steps, interval):
    assert TokenSamples(every=given, steps=steps).interval == interval


def taken_at(monkeypatch, steps: int, validate: int | None, **fields) -> list[int]:
    """Go through a run of four updates a rollout, and return the steps at which samples are taken."""
    taken = []
    monkeypatch.setattr(TokenSamples, "_take", lambda self, engine, rollout, step: taken.append(step))
    validation = None if validate is None else Validation([{"prompt": "1+2="}], letters, every=validate)
    tokens = TokenSamples(Path("run"), validation=validation, steps=steps, **({"every": None} | fields))
    for step in range(0, steps, 4):
        engine = SimpleNamespace(step=step, rollout=step // 4)
        if validate is not None and engine.rollout % validate == 0:
            tokens.drawn([None] * len(tokens.with_validation(engine)))
        tokens.on_rollout(engine, None)
    return taken


def test_samples_wait_for_a_validation(monkeypatch):
    # One in every 12 steps; rollouts begin at 1, 5, 9, 13, …, and 1, 9, 17, 25, … are validated.
    steps = taken_at(monkeypatch, 240, 2)
    assert steps[:6] == [1, 17, 25, 41, 49, 65] and len(steps) == 20
    # Validated at 1, 41, 81: too rare to wait for.
    assert taken_at(monkeypatch, 120, 10, every=12) == [1, 13, 25, 37, 49, 61, 73, 85, 97, 109]
    assert taken_at(monkeypatch, 120, None, every=12) == [1, 13, 25, 37, 49, 61, 73, 85, 97, 109]
    # Resumed behind step 24 in the run of the first line: 25 is due.
    assert taken_at(monkeypatch, 48, 2, every=12, last=24)[0] == 25


def test_drawn_with_a_validation(tmp_path):
    """The completions are those of the fixed streams, and the accuracy is that of a validation by itself."""
    trainer = trained(tmp_path / "a", 1).trainer
    table = pq.read_table(tmp_path / "a" / "tokens" / "step_000001.parquet").to_pydict()
    prompts = [prompt for prompt in ("1+2=", "30+4=", "7+7=", "1+1=") for _ in range(4)]
    streams = [STREAM + row for row in range(16)]
    drawn = sample(
        tiny_model(), trainer.processing_class, prompts, temperature=1.0, max_new_tokens=6, indices=streams
    )
    texts = [trainer.processing_class.decode(one.ids) for (one,) in drawn]
    held_out = [place for place, role in enumerate(table["role"]) if role == "held_out"]
    assert [table["completion"][place] for place in held_out] == texts
    assert [table["reward"][place] for place in held_out] == letters([one.text for (one,) in drawn])


def test_own_generations_are_spared(tmp_path, monkeypatch):
    monkeypatch.setattr(token_samples, "PER_RUN", 5)  # every 4 of 20 steps, and 4 updates a rollout
    probe = Probe(folder=tmp_path, tokens_every=None, fixed_prompts=FixedPrompts([{"prompt": "1+2="}]))
    make_trainer(tmp_path, observer=probe, settings={"max_steps": 20}).train()
    roles = {
        int(path.stem[5:]): "held_out" in pq.read_table(path)["role"].to_pylist()
        for path in (tmp_path / "tokens").iterdir()
    }
    assert roles == {1: True, 5: False, 9: True, 13: False, 17: True}


def test_a_batch_takes_the_other_rows_in():
    validation = Validation([], letters, batch_size=256)
    assert [validation._batch_size(rows, more) for rows, more in ((256, 16), (250, 6), (512, 16), (3, 16))] == [
        272, 256, 264, 256,
    ]  # fmt: skip
    twice = Validation([], letters, batch_size=256, samples=2)  # 128 problems a batch
    assert twice._batch_size(128, 16) == 288
