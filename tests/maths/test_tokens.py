"""The batch and its averages: by hand, by gradient, cut into micro-batches, and with rubbish in the padding."""

from __future__ import annotations

import dataclasses
import math

import jaxtyping
import pytest
import torch

from entropilot.maths.tokens import (
    TokenBatch,
    full_precision,
    masked_mean,
    masked_sum,
    reduce_tokens,
    token_weights,
)

F64 = torch.float64
MASK = torch.tensor([[True, True, False], [True, True, True]])
VALUES = [[2.0, -3.0, 7.0], [5.0, -1.0, 4.0]]  # the 7 is padding; the rows sum to −1 and 8

REDUCTIONS = {
    "token_mean": ((-1 + 8) / 5, [1 / 5, 1 / 5]),
    "sequence_mean": ((-1 / 2 + 8 / 3) / 2, [1 / 4, 1 / 6]),  # 1/(2 tokens·2 rows), 1/(3·2)
    "sequence_sum": ((-1 + 8) / 2, [1 / 2, 1 / 2]),
    "constant": ((-1 + 8) / (2 * 4), [1 / 8, 1 / 8]),  # max_length = 4
}


def ragged(rows: int = 6, length: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    lengths[2] = 0  # a row without a token
    return torch.randn(rows, length, dtype=F64, generator=generator), torch.arange(length) < lengths


def test_the_suite_checks_shapes():
    """torch would broadcast a (2, 1) mask silently; the checker must not."""
    with pytest.raises(jaxtyping.TypeCheckError):
        masked_sum(torch.zeros(2, 3), torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(jaxtyping.TypeCheckError):
        masked_mean(torch.zeros(2, 3), torch.ones(2, 3))  # a float mask


def test_masked_sum_and_mean_by_hand(near):
    total, count = masked_sum(torch.tensor(VALUES, dtype=F64), MASK)
    near(total, 7.0, "the masked sum is 2 − 3 + 5 − 1 + 4")
    assert count.item() == 5, "the masked count is the number of valid tokens"
    near(masked_mean(torch.tensor(VALUES, dtype=F64), MASK), 1.4, "the masked mean is 7/5")
    assert masked_mean(torch.tensor(VALUES), torch.zeros_like(MASK)).item() == 0, "an empty mask has mean 0"


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reduction_by_hand(reduction, near):
    value, row_weights = REDUCTIONS[reduction]
    values = torch.tensor(VALUES, dtype=F64, requires_grad=True)
    near(reduce_tokens(values, MASK, reduction, max_length=4), value, f"{reduction} of the ragged 2×3 batch")
    weights = token_weights(MASK, reduction, max_length=4, dtype=F64)
    expected = torch.tensor(row_weights, dtype=F64)[:, None] * MASK
    near(weights, expected, f"{reduction}: the weight of one token")
    (gradient,) = torch.autograd.grad(reduce_tokens(values, MASK, reduction, max_length=4), values)
    near(gradient, expected, f"{reduction}: the gradient of a token is its weight, and 0 in the padding")
    assert torch.autograd.gradcheck(lambda v: reduce_tokens(v, MASK, reduction, max_length=4), values)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("cut", [[1] * 6, [2, 4], [3, 1, 2], [6]])
def test_whole_is_the_sum_of_its_micro_batches(reduction, cut, near):
    values, mask = ragged()
    whole = reduce_tokens(values, mask, reduction, max_length=11)
    tokens, rows = mask.sum(), mask.shape[0]
    parts = [
        reduce_tokens(v, m, reduction, tokens=tokens, rows=rows, max_length=11)
        for v, m in zip(values.split(cut), mask.split(cut), strict=True)
    ]
    near(sum(parts), whole, f"{reduction}: with the counts of the whole batch the parts must add up to it")
    weights = [
        token_weights(m, reduction, tokens=tokens, rows=rows, max_length=11, dtype=F64)
        for m in mask.split(cut)
    ]
    near(
        torch.cat(weights),
        token_weights(mask, reduction, max_length=11, dtype=F64),
        f"{reduction}: a token weighs the same in a micro-batch as in the whole",
    )


def test_counts_default_to_the_mask_alone():
    """Without explicit counts a part is its own whole: the trap that the counts exist for."""
    values, mask = ragged()
    whole = reduce_tokens(values, mask)
    halves = [reduce_tokens(v, m) for v, m in zip(values.split(3), mask.split(3), strict=True)]
    assert abs(sum(halves).item() / 2 - whole.item()) > 1e-3, "the mean of means is not the mean"


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("rubbish", [math.nan, math.inf, -math.inf])
def test_padding_leaks_neither_value_nor_gradient(reduction, rubbish, near):
    clean, mask = ragged()
    dirty = clean.masked_fill(~mask, rubbish).requires_grad_()
    loss = reduce_tokens(dirty, mask, reduction, max_length=11)
    near(
        loss,
        reduce_tokens(clean, mask, reduction, max_length=11),
        f"{rubbish} in the padding moved the value",
    )
    (gradient,) = torch.autograd.grad(loss, dirty)
    near(
        gradient,
        token_weights(mask, reduction, max_length=11, dtype=F64),
        f"{rubbish} in the padding moved the gradient",
    )
    near(masked_mean(dirty, mask), masked_mean(clean, mask), f"{rubbish} in the padding moved the mean")


def test_bad_reductions_are_refused(unchecked):
    with pytest.raises(ValueError, match="give max_length"):
        token_weights(MASK, "constant")
    with pytest.raises(ValueError, match="Unknown reduction 'mean'; choose token_mean"):
        unchecked("entropilot.maths.tokens").token_weights(MASK, "mean")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (F64, F64),
    ],
)
def test_half_precision_is_raised_and_float64_is_kept(given, kept):
    assert full_precision(torch.zeros(2, 3, dtype=given)).dtype is kept
    x = torch.zeros(2, 3, dtype=given)
    batch = TokenBatch(old_logp=x, logp=x, advantages=x[:, 0], mask=MASK, entropy=x)
    for name in ("old_logp", "logp", "advantages", "entropy"):
        assert getattr(batch, name).dtype is kept, f"{name} given in {given} must be held in {kept}"


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 3)])
def test_advantages_per_row_are_spread_over_the_row(shape, near):
    """b = t = 3 on purpose: spread over rows, not over columns."""
    advantages = torch.tensor([1.0, -2.0, 4.0], dtype=F64)
    expected = advantages[:, None].expand(3, 3)
    given = expected if shape == (3, 3) else advantages.reshape(shape)
    x = torch.zeros(3, 3, dtype=F64)
    batch = TokenBatch(old_logp=x, logp=x, advantages=given, mask=torch.ones(3, 3))
    near(batch.advantages, expected, f"advantages of shape {shape} belong to rows")


@pytest.mark.parametrize("mask", [[[1, 0]], [[2.5, 0.0]], [[True, False]]])
def test_mask_of_any_kind_is_true_where_it_is_not_zero(mask):
    x = torch.zeros(1, 2)
    batch = TokenBatch(old_logp=x, logp=x, advantages=x, mask=torch.tensor(mask))
    assert batch.mask.dtype is torch.bool and batch.mask.tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("field", "shape", "message"),
    [
        ("logp", (6,), r"log-probs of shape \(b, t\)"),
        ("old_logp", (2, 4), r"old_logp has shape \(2, 4\), but logp has \(2, 3\)"),
        ("advantages", (3,), r"advantages has shape \(3, 1\)"),
        ("mask", (1, 3), r"mask has shape \(1, 3\)"),
        ("entropy", (2, 2), r"entropy has shape \(2, 2\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(field, shape, message, unchecked):
    fields = dict.fromkeys(("old_logp", "logp", "advantages", "mask", "entropy"), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=message):
        unchecked("entropilot.maths.tokens").TokenBatch(**{**fields, field: torch.zeros(shape)})


def test_a_detached_batch_has_the_same_numbers_and_no_graph(near):
    x = torch.randn(2, 3, dtype=F64, requires_grad=True)
    batch = TokenBatch(old_logp=x * 2, logp=x, advantages=x * 3, mask=MASK, entropy=x * 4, clipped=MASK)
    for field in dataclasses.fields(TokenBatch):
        value = getattr(batch.detach(), field.name)
        if value is None:  # optional, and not given here
            continue
        assert not value.requires_grad, f"{field.name} still carries its graph"
        near(value, getattr(batch, field.name), f"{field.name} changed its numbers")
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.logp = x
