"""Dropout in the model: the choice does not depend on how a rollout is cut, and that is said at start."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from trl_helpers import Recorded, Spied, chosen_of, make_trainer, tiny_model

from entropilot.engines.trl.scoring import dropout_of, without_dropout
from entropilot.methods import KLCov


def dropping(probability: float = 0.2) -> Any:
    """Return the tiny model with dropout in its attention and before its head, where it moves log-probs most."""
    model = tiny_model()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = probability
    model.model.norm = torch.nn.Sequential(model.model.norm, torch.nn.Dropout(probability))
    return model


def first_choice(out: Any, size: int, model: Any) -> set[tuple[Any, ...]]:
    settings = {
        "per_device_train_batch_size": size,
        "steps_per_generation": 16 // size,
        "gradient_accumulation_steps": 8 // size,
        "max_steps": 2,
    }
    method = KLCov(fraction=0.3, allow_large_fraction=True)
    trainer = make_trainer(out, cls=Spied, model=model, recorded=Recorded(), method=method, settings=settings)
    trainer.train()
    return {(ids, place) for _, ids, place in chosen_of(trainer.passes)}


def test_the_choice_does_not_depend_on_the_cut(tmp_path):
    """Chosen over one rollout before any update, in passes of 8, 2 and 1 rows, and as without dropout."""
    found = [first_choice(tmp_path, size, dropping()) for size in (8, 2, 1)]
    assert len(found[0]) >= 4
    assert found[0] == found[1] == found[2]
    assert found[0] == first_choice(tmp_path, 8, tiny_model())


def test_the_score_is_without_dropout_and_the_modes_come_back(tmp_path):
    trainer = make_trainer(tmp_path, model=dropping(), recorded=Recorded(), method=KLCov())
    trainer.model.train()
    trainer.model.model.layers[0].mlp.eval()  # as a frozen part may be
    modes = [module.training for module in trainer.model.modules()]
    ones = torch.ones(2, 3, dtype=torch.long)
    inputs = {
        "prompt_ids": 6 * ones,
        "prompt_mask": ones,
        "completion_ids": 7 * ones,
        "completion_mask": ones,
    }
    first = trainer.score(inputs)
    torch.manual_seed(1)  # `score` forks the random state, so one seed would give one mask
    assert torch.equal(first[0], trainer.score(inputs)[0]), "with dropout two scores differ"
    with trainer.at_temperature(1.0):
        assert torch.equal(trainer.score(inputs)[0], first[0])
    assert [module.training for module in trainer.model.modules()] == modes


def test_where_dropout_is_found():
    assert dropout_of(tiny_model()) == 0
    assert dropout_of(dropping(0.05)) == 0.05
    assert dropout_of(torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Dropout(0.0))) == 0.1
    model = torch.nn.Sequential(torch.nn.Dropout(0.5))
    with without_dropout(model):
        assert torch.equal(model(torch.ones(99)), torch.ones(99))
    assert (model(torch.ones(99)) == 0).any()


@pytest.mark.parametrize(("model", "said"), [(dropping, 1), (tiny_model, 0)])
def test_dropout_is_said_at_start(tmp_path, caplog, model, said):
    with caplog.at_level(logging.WARNING, logger="entropilot"):
        make_trainer(tmp_path, model=model(), method=KLCov())
    lines = [record.message for record in caplog.records if "dropout" in record.message]
    assert len(lines) == said
    assert all("The model has dropout (up to 0.2)" in line for line in lines)
