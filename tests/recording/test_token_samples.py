"""Which rows a token sample takes, how often, how much, and that training does not notice."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from trl_helpers import letters, make_trainer, parameters

from entropilot.recording import token_samples
from entropilot.recording.probe import Probe, Validation
from entropilot.recording.token_samples import choose_rows

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
        lengths = [len(row) for row in table["tokens"]]
        held = [role == "held_out" for role in table["role"]]
        prompts.append([p for p, here in zip(table["prompt"], held, strict=True) if here][0])
        for role in (True, False):
            assert 0 < sum(n for n, here in zip(lengths, held, strict=True) if here == role) <= 25
        assert all(
            len(table[name][row]) == lengths[row] for name in ("logp", "drift") for row in range(len(held))
        )
    assert prompts == ["1+2="] * 3


@pytest.mark.parametrize(("steps", "every"), [(240, 12), (20, 1), (3, 1), (1000, 50)])
def test_about_twenty_samples_where_nothing_is_set(steps, every):
    probe = Probe(folder=None, tokens_every=None)
    probe.on_train_begin(None, SimpleNamespace(max_steps=steps), None)
    assert probe.samples_every == every
    assert Probe(tokens_every=None).samples_every == 50, "an engine that does not say how long it trains"
    probe.tokens_every = 7
    assert probe.samples_every == 7
