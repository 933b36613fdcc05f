"""Entropy minimisation: the formula and T3 by hand, its gradient, both masks token by token, and when to stop."""

from __future__ import annotations

import math
from math import exp, log

import pytest
import torch

from entropilot.methods.entropy_min import EntropyMin

F64 = torch.float64
T3 = [2.0, 1.0, 0.0, -1.0]
FLAT = [0.0, 0.0, 0.0, 0.0]
EOS, PAD = 9, 0


def by_hand(logits: list[float], temperature: float) -> tuple[float, list[float]]:
    """H and dH/dz with nothing but the standard library."""
    z = [value / temperature for value in logits]
    total = sum(map(exp, z))
    p = [exp(value) / total for value in z]
    h = -sum(q * log(q) for q in p)
    return h, [-q * (log(q) + h) / temperature for q in p]


def test_defaults_are_the_paper():
    method = EntropyMin()
    assert (method.temperature, method.samples, method.learning_rate, method.updates) == (0.5, 64, 2e-5, 10)
    assert not method.official_mask and method.prompts_per_update == 1
    assert (method.top_p, method.repetition_penalty) == (0.95, 1.15)
    assert method.stop_below is None and method.stop_flat is None, "the paper does not stop early"


@pytest.mark.parametrize(("temperature", "rounded"), [(1.0, 0.9475370), (0.5, 0.4554286)])
@pytest.mark.parametrize("padding", [0.0, math.nan, math.inf])
def test_t3_in_a_batch_by_hand(near, temperature, rounded, padding):
    # Row 0: T3, flat, padding. Row 1: flat, T3 times 2, T3. Five tokens count.
    rows = [[T3, FLAT, [padding] * 4], [FLAT, [2 * z for z in T3], T3]]
    logits = torch.tensor(rows, dtype=F64, requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    loss = EntropyMin(temperature=temperature).loss(logits, mask)
    (gradient,) = torch.autograd.grad(loss, logits)
    h, dh = by_hand(T3, temperature)
    twice, dtwice = by_hand([2 * z for z in T3], temperature)
    assert math.isclose(h, rounded, abs_tol=5e-8), "T3 as it is recorded"
    near(loss, (2 * h + 2 * log(4) + twice) / 5, "the mean over the five tokens")
    expected = [[dh, FLAT, FLAT], [FLAT, dtwice, dh]]
    near(
        gradient, torch.tensor(expected, dtype=F64) / 5, "−(1/T) p (log p + H) / 5, 0 on padding", atol=1e-15
    )


def test_gradcheck():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, dtype=F64, generator=generator, requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    assert torch.autograd.gradcheck(lambda z: EntropyMin(temperature=0.7).loss(z, mask), logits)


def test_parts_add_up_to_the_whole(near):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 4, 5, dtype=F64, generator=generator, requires_grad=True)
    mask = torch.arange(4) < torch.tensor([[4], [1], [2], [4], [3], [0]])
    method = EntropyMin()
    whole = method.loss(logits, mask)
    parts = [method.loss(logits[i : i + 2], mask[i : i + 2], tokens=mask.sum()) for i in (0, 2, 4)]
    near(sum(parts), whole, "micro-batches over the count of the update")
    near(
        torch.autograd.grad(sum(parts), logits)[0],
        torch.autograd.grad(whole, logits)[0],
        "their gradient",
        atol=1e-18,
    )


def test_an_empty_batch_is_zero():
    logits = torch.randn(2, 3, 4, dtype=F64, requires_grad=True)
    loss = EntropyMin().loss(logits, torch.zeros(2, 3, dtype=torch.bool))
    assert loss == 0 and torch.autograd.grad(loss, logits)[0].abs().max() == 0


def test_right_mask_is_every_generated_token():
    ids = torch.tensor([[5, EOS, PAD], [5, 6, 7]])
    generated = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    assert torch.equal(EntropyMin().counted(ids, generated, (PAD, EOS)), generated), (
        "the first token and the end token count, whatever the pad token is"
    )


def test_official_mask_is_one_late_and_skips_what_follows_an_end_token():
    ids = torch.tensor([[5, 6, EOS, PAD], [5, 6, 7, 8], [EOS, PAD, PAD, PAD], [5, EOS, 6, EOS]])
    generated = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]]).bool()
    counted = EntropyMin(official_mask=True).counted(ids, generated, (PAD, EOS)).int().tolist()
    assert counted == [
        [0, 1, 1, 0, 0],  # that of 6 and of the end token; not that of 5, nor the one behind the end
        [0, 1, 1, 1, 1],  # cut off: the one behind the last token is in
        [0, 0, 0, 0, 0],  # an immediate end: nothing at all
        [0, 1, 0, 1, 0],  # an end token in the middle is taken for padding, too
    ]


@pytest.mark.parametrize(
    ("entropies", "reason"),
    [
        ([], None),
        ([0.5, 0.3], None),
        ([0.5, 0.09], "below"),
        ([0.05, 0.5], None),  # the last one decides
    ],
)
def test_stop_below(entropies, reason):
    found = EntropyMin(stop_below=0.1).stop_reason(entropies)
    assert (found is None) if reason is None else (reason in found)


@pytest.mark.parametrize(
    ("entropies", "stops"),
    [
        ([1.0, 1.0, 1.0], False),  # too few: two windows of two are needed
        ([1.0, 1.0, 1.0, 1.0], True),
        ([1.0, 1.0, 0.9, 0.91], False),  # fell by 9.5 %
        ([1.0, 1.0, 0.97, 0.95], True),  # fell by 4 %
        ([1.0, 1.0, 1.3, 1.4], True),  # rose
        ([9.0, 9.0, 1.0, 1.0, 1.0, 1.0], True),  # what was long ago does not count
    ],
)
def test_stop_flat(entropies, stops):
    found = EntropyMin(stop_flat=2).stop_reason(entropies)
    assert (found is not None) == stops
    assert found is None or "flat" in found
    assert EntropyMin().stop_reason(entropies) is None


def test_grpo_settings_hold_one_batch_per_update():
    settings = EntropyMin(samples=64, prompts_per_update=16).grpo_settings(micro_batch=6)
    assert settings["num_generations"] == 4
    assert settings["per_device_train_batch_size"] == 2, "the largest part that divides 64 evenly"
    assert settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] == 64
    assert settings["max_steps"] == 10 and settings["temperature"] == 0.5
    assert settings["lr_scheduler_type"] == "constant"


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"learning_rate": -1e-5},
        {"repetition_penalty": 0.0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"updates": 0},
        {"max_new_tokens": 0},
        {"prompts_per_update": 0},
        {"samples": 10, "prompts_per_update": 4},
        {"samples": 1},
        {"samples": 0},
        {"stop_below": 0.0},
        {"stop_flat": 1},
        {"flat_tolerance": 1.0},
        {"flat_tolerance": -0.1},
    ],
)
def test_bad_settings_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=f"Entropy minimisation: {next(iter(bad))} = "):
        EntropyMin(**bad)
