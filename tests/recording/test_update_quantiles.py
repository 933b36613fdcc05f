"""The percentiles of an update's record: by partition in main memory, by sorting on a device, the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from entropilot.recording.metrics import _partitioned, _quantiles, _sorted

PERCENTS = (1, 50, 99, 100)


def test_by_hand() -> None:
    """Of 1 … 7 and padding, 50 % are at most 4 (3.5 rounded up) and 99 % at most 7."""
    x = torch.tensor([3.0, -1.0, 7.0, 1.0, -1.0, 5.0, 2.0, 6.0, 4.0])
    assert [value.item() for value in _quantiles(x, PERCENTS)] == [1.0, 4.0, 7.0, 7.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_both_ways_give_the_same_bits(dtype: torch.dtype) -> None:
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(int(torch.randint(1, 2_000, (1,), generator=generator)), generator=generator).abs()
        x[
            torch.rand(len(x), generator=generator) < seed % 4 / 3
        ] = -1.0  # from none to all of them are padding
        for value, share in ((torch.inf, 5), (torch.nan, 7)):
            if seed % share == 0:
                x[torch.rand(len(x), generator=generator) < 0.1] = value
        x = x.to(dtype)
        for one, other in zip(_partitioned(x, PERCENTS), _sorted(x, PERCENTS), strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape == ()
            assert torch.equal(one.nan_to_num(-7.0), other.nan_to_num(-7.0)), seed


def test_nothing_but_padding_is_zero() -> None:
    assert [value.item() for value in _quantiles(torch.full((4,), -1.0), PERCENTS)] == [0.0] * 4
    as_numpy = np.quantile(np.arange(1.0, 101.0), 0.99, method="inverted_cdf")
    assert _quantiles(torch.arange(1.0, 101.0), (99,))[0].item() == as_numpy == 99.0
