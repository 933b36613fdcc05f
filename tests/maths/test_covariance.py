"""Token covariance, the selectors and the tables: T1 by hand, brute force, layout, chance."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from entropilot.maths import covariance
from entropilot.maths.covariance import (
    QUADRANTS,
    TABLE_SHARES,
    covariance_table,
    quadrant_covariance,
    quota,
    response_covariance,
    select_restrain,
    select_top,
    select_window,
    token_covariance,
)
from entropilot.maths.tokens import TokenBatch
from entropilot.methods import ClipCov, KLCov

F64 = torch.float64
T1 = [1.32, -0.96, -0.16, -0.80, 1.20]  # the five valid tokens of T1, in row order (tests/conftest.py)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(values) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of one row without padding."""
    covariance = torch.as_tensor(values, dtype=F64)[None]
    return covariance, torch.ones_like(covariance, dtype=torch.bool)


def chosen(selected: torch.Tensor) -> list[int]:
    return selected.flatten().nonzero().squeeze(1).tolist()


@pytest.mark.parametrize("padding", [None, math.nan, math.inf])
def test_covariance_of_t1(t1, near, padding):
    batch = t1(padding)
    covariance = token_covariance(batch.logp, batch.advantages, batch.mask)
    expected = [[1.32, -0.96, 0.0], [-0.16, -0.80, 1.20]]
    near(covariance, expected, "Cov = (log π − mean)·(A − mean) over the five valid tokens, 0 in the padding")
    near(covariance.sum(), 0.60, "Σ Cov of T1", rtol=1e-9)
    near(covariance.clamp(min=0).sum(), 2.52, "Σ of the positive part of T1")
    assert not covariance.requires_grad, "the covariance only chooses; it must not carry a graph"


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 3)])
@pytest.mark.parametrize("mask", [torch.bool, torch.int64, torch.float32])
def test_covariance_takes_advantages_per_row_and_any_mask(t1, near, shape, mask):
    batch = t1()
    advantages = batch.advantages if shape == (2, 3) else batch.advantages[:, 0].reshape(shape)
    covariance = token_covariance(batch.logp, advantages, batch.mask.to(mask))
    near(covariance[batch.mask], T1, f"advantages of shape {shape}, mask of {mask}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_covariance_of_half_precision_is_float32(t1, dtype):
    batch = t1()
    args = batch.logp.to(dtype), batch.advantages.to(dtype), batch.mask
    covariance = token_covariance(*args)
    assert covariance.dtype is torch.float32, "half precision must be raised before the means are taken"
    torch.testing.assert_close(covariance, token_covariance(args[0].float(), args[1].float(), batch.mask))


@pytest.mark.parametrize(
    ("fraction", "tokens", "expected"),
    [
        (2e-4, 1, 1),
        (2e-4, 8192, 1),
        (2e-4, 10_000, 2),
        (2e-3, 4000, 8),
        (2e-3, 1499, 2),
        (0.999, 10, 9),
        (1.0, 10, 10),
        (1.0, 0, 0),
    ],
)
def test_quota_is_the_floor_and_at_least_one(fraction, tokens, expected):
    assert quota(fraction, tokens) == expected, "quota = max(1, ⌊fraction·N⌋), and 0 of nothing"


@pytest.mark.parametrize(
    ("fraction", "tokens"),
    [(2e-3, [0]), (0.4, [0, 4]), (0.79, [0, 2, 4]), (0.8, [0, 2, 3, 4]), (1.0, [0, 1, 2, 3, 4])],
)
def test_select_top_takes_the_largest_signed_covariances(fraction, tokens):
    assert chosen(select_top(*flat(T1), fraction)) == tokens, "top k·N of the signed covariance, descending"


def test_select_top_chooses_one_even_where_all_are_negative():
    assert chosen(select_top(*flat([-3.0, -1.0, -2.0]), 2e-3)) == [1]


def test_select_window_is_strict_and_takes_at_most_the_quota():
    values = [0.5, 0.6, 4.0, 5.0, 6.0, -2.0, 1.0, 0.7]
    args = (0.5, 5.0)
    for seed in range(20):
        everything = select_window(*flat(values), 1.0, *args, seeded(seed))
        assert chosen(everything) == [1, 2, 6, 7], "both bounds of the window are exclusive"
        few = chosen(select_window(*flat(values), 0.3, *args, seeded(seed)))
        assert len(few) == 2 and set(few) <= {1, 2, 6, 7}, "⌊0.3·8⌋ = 2: N counts all tokens, not candidates"
    assert not select_window(*flat(values), 1.0, 10.0, 11.0, seeded()).any(), (
        "an empty window chooses nothing"
    )


def test_select_window_never_takes_an_excluded_token():
    covariance, mask = flat(T1)
    excluded = torch.tensor([[False, False, False, False, True]])
    for seed in range(20):
        selected = select_window(covariance, mask, 0.2, 0.5, 5.0, seeded(seed), excluded)
        assert chosen(selected) == [0], "a token that PPO clips can't be drawn"


def test_select_window_draws_uniformly():
    """2 of 6 candidates: 15 pairs, 3,000 generators; chi-square with 14 degrees, 99.9 % quantile 36.1."""
    covariance, mask = flat([0.9, 2.0, 1.1, 9.0, 4.9, 1.5, -1.0, 3.0, 0.0, 1.2])
    candidates = [1, 2, 4, 5, 7, 9]
    draws = 3000
    pairs = Counter(
        tuple(chosen(select_window(covariance, mask, 0.2, 1.0, 5.0, seeded(s)))) for s in range(draws)
    )
    assert set(pairs) == set(itertools.combinations(candidates, 2)), "every pair of candidates can be drawn"
    statistic = sum((n - draws / 15) ** 2 / (draws / 15) for n in pairs.values())
    assert statistic < 36.1, f"the draw is not uniform: {pairs}"


SELECTORS = {
    "top": lambda c, m: select_top(c, m, 0.15),
    "window": lambda c, m: select_window(c, m, 0.1, 0.1, 3.0, seeded(7)),
    "restrain": lambda c, m: select_restrain(c, m, 0.7),
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", SELECTORS)
def test_choice_does_not_depend_on_the_layout(name, ties):
    select = SELECTORS[name]
    values = torch.randn(60, dtype=F64, generator=seeded(1)) + 0.3
    if ties:
        values = (values * 2).round() / 2  # a handful of distinct values
    reference = select(*flat(values))[0]
    assert 1 < reference.sum() < 60, "the test needs a choice to compare"
    layouts = {
        "6×10": torch.ones(6, 10, dtype=torch.bool),
        "60×1": torch.ones(60, 1, dtype=torch.bool),
        "padding right": torch.arange(25) < torch.tensor([[10], [5], [25], [0], [20]]),
        "padding left": torch.arange(25) >= torch.tensor([[15], [20], [0], [25], [5]]),
        "holes": torch.arange(12) % 2 == torch.tensor([[0], [1]] * 5),
    }
    for layout, mask in layouts.items():
        for rubbish in (0.0, 99.0, math.nan):
            covariance = torch.full(mask.shape, rubbish, dtype=F64).masked_scatter(mask, values)
            selected = select(covariance, mask)
            assert not (selected & ~mask).any(), f"{name} chose padding ({layout})"
            assert torch.equal(selected[mask], reference), f"{name} depends on the layout ({layout})"


@pytest.mark.parametrize("name", SELECTORS)
def test_nothing_is_chosen_from_nothing(name):
    covariance = torch.full((2, 3), 1.0)
    assert not SELECTORS[name](covariance, torch.zeros(2, 3, dtype=torch.bool)).any()


def smallest_reaching(values: list[float], target: float) -> int | None:
    """Size of the smallest subset whose sum reaches the target, over all subsets."""
    for size in range(1, len(values) + 1):
        if any(math.fsum(subset) >= target for subset in itertools.combinations(values, size)):
            return size
    return None


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0, 1.5, 4.0])
def test_restrain_is_the_smallest_set_by_brute_force(share):
    rng, cases = np.random.default_rng(int(share * 100)), Counter()
    for _ in range(400):
        # Multiples of 1/64, so that every sum is exact and a tie is a tie.
        values = (np.round(rng.normal(0.1, 1, int(rng.integers(1, 9))) * 64) / 64).tolist()
        picked = chosen(select_restrain(*flat(values), share))
        positive = [i for i, v in enumerate(values) if v > 0]
        if sum(values) <= 0:
            cases["no net covariance"] += 1
            assert picked == [], f"Σ = {sum(values)} ≤ 0: there is nothing to restrain in {values}"
            continue
        size = smallest_reaching(values, share * sum(values))
        if size is None:
            cases["out of reach"] += 1
            assert picked == positive, f"share {share} of {values} is out of reach: take all positive tokens"
            continue
        cases["reached"] += 1
        taken = [values[i] for i in picked]
        assert len(picked) == size, f"share {share} of {values}: {size} tokens are enough, got {taken}"
        assert sum(taken) >= share * sum(values), f"share {share} of {values} is not reached by {taken}"
        assert sorted(taken) == sorted(values)[-size:], f"{taken} are not the largest of {values}"
    assert min(cases["reached"], cases["no net covariance"]) >= 15, f"too few cases of a kind: {cases}"


@pytest.mark.parametrize(
    ("share", "tokens"),
    # Σ = 0.6, sorted 1.32, 1.20, −0.16, −0.80, −0.96: 2·Σ = 1.2 ≤ 1.32; 3·Σ = 1.8 ≤ 2.52; 5·Σ = 3.0 > 2.52.
    [(0.5, [0]), (1.0, [0]), (2.0, [0]), (3.0, [0, 4]), (5.0, [0, 4])],
)
def test_restrain_of_t1(share, tokens):
    assert chosen(select_restrain(*flat(T1), share)) == tokens


def test_restrain_needs_no_more_than_the_peak_of_the_running_sum():
    # Σ = 0.5, target 0.75: the first token is enough, though the running sum 1, 2, 3, 1, 0.5 falls below it again.
    assert select_restrain(*flat([1.0, 1.0, 1.0, -2.0, -0.5]), 1.5).sum() == 1


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([1.0] * 20_000, 1 / 20_000, 1),
        ([1.0] * 20_000, 0.3, 6000),
        ([1.0] * 20_000, 1.0, 20_000),
        ([1.0] * 4096, 0.5, 2048),  # the most that are sorted at once, and one more
        ([1.0] * 4097, 2048 / 4097, 2048),
        ([1.0] * 20_000, 2.0, 20_000),  # out of reach
        ([1.0] * 3000 + [-0.25] * 8000, 1.5, 1500),  # Σ = 1000
        ([1.0] * 3000 + [-0.25] * 8000, 3.5, 3000),  # out of reach: all positive tokens, no other
    ],
)
def test_restrain_where_many_are_equal(values, share, expected):
    values = torch.tensor(values, dtype=F64)[torch.randperm(len(values), generator=seeded(2))]
    selected = select_restrain(*flat(values), share)
    assert selected.sum() == expected, f"share {share} of {len(values)} tokens"
    assert (values[selected[0]] > 0).all(), "a token that raises the entropy was restrained"


# Every fourth of 20,000 is in the sample that says where the edge should lie: it misleads in the last three.
MANY = {
    "normal": lambda draw, n: draw.normal(0.1, 1, n),
    "heavy tail": lambda draw, n: draw.standard_t(3, n) + 0.3,
    "a few hold nearly all": lambda draw, n: np.exp(draw.normal(0, 4, n)),
    "many equal": lambda draw, n: draw.integers(-3, 5, n) / 4,
    "the sample holds the small ones": lambda draw, n: np.where(np.arange(n) % 4, 8.0, 1) + draw.random(n),
    "the sample holds the large ones": lambda draw, n: np.where(np.arange(n) % 4, 1.0, 8) + draw.random(n),
    "the sample holds equal ones": lambda draw, n: np.where(np.arange(n) % 4, draw.random(n), 0.5),
}


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 1.0, 1.5])
@pytest.mark.parametrize("kind", MANY)
def test_restrain_of_many_meets_a_full_sort(kind, share):
    # Multiples of 2^−20, so that every sum is exact.
    values = np.round(MANY[kind](np.random.default_rng(3), 20_000) * 2**20) / 2**20
    target, total, expected = share * math.fsum(values), 0.0, []
    for place in np.argsort(-values, kind="stable"):  # of equals the first
        if total >= target or values[place] <= 0:
            break
        total += values[place]
        expected.append(place)
    assert target > 0
    assert chosen(select_restrain(*flat(values), share)) == sorted(expected), "the largest ones, no others"


def test_restrain_where_a_part_reaches_its_target_exactly():
    # None of the large ones is in the sample: 64·85 = 5,440 is a quarter of 5,440 + 16,320.
    values = [1.0] * 16_384
    values[1:256:4] = [85.0] * 64
    assert chosen(select_restrain(*flat(values), 0.25)) == [*range(1, 256, 4)]


def test_restrain_sorts_all_where_every_sample_misleads(monkeypatch):
    monkeypatch.setattr(covariance, "_ROUNDS", 0)
    values = [1.0] * 5000 + [2.0] * 5000
    assert chosen(select_restrain(*flat(values), 0.75)) == [*range(1250), *range(5000, 10_000)]


def test_table_of_shares_by_hand(near):
    # 0.2·5 = 1 token: 1.32; 2 tokens: 2.52/2; 3: (2.52 − 0.16)/3; all: 0.6/5; 2e-4 is still one token.
    table = covariance_table(*flat(T1), (2e-4, 0.2, 0.4, 0.6, 1.0))
    near(list(table.values()), [1.32, 1.32, 1.26, 2.36 / 3, 0.12], "mean covariance of the top share")


def test_table_of_shares_against_a_full_sort(near):
    values = np.random.default_rng(4).normal(size=20_011)
    covariance = torch.zeros(20_011, 2, dtype=F64)
    covariance[:, 1] = torch.tensor(values)
    mask = torch.tensor([False, True]).expand(20_011, 2)
    table = covariance_table(covariance, mask)
    assert tuple(table) == TABLE_SHARES == (2e-4, 2e-3, 2e-2, 2e-1, 5e-1, 1.0), "the shares of Table 1"
    ranked = np.sort(values)[::-1]
    witness = [math.fsum(ranked[: int(share * 20_011)]) / int(share * 20_011) for share in table]
    near(list(table.values()), witness, "mean covariance of the top share", rtol=1e-8)
    nothing = covariance_table(covariance, torch.zeros_like(mask))
    assert set(nothing.values()) == {0.0}, "an empty batch has a table of zeros"


def test_quadrants_of_t1(t1, near):
    # likely: (0,0), (1,0), (1,1); good: the first row. 1.32; −0.16 − 0.80; −0.96; 1.20; each over N = 5.
    quadrants = quadrant_covariance(t1(math.nan).logp.detach(), t1(math.nan).advantages, t1().mask)
    assert tuple(quadrants) == QUADRANTS == ("likely_good", "likely_bad", "rare_good", "rare_bad")
    near(torch.stack(list(quadrants.values())), [0.264, -0.192, -0.192, 0.24], "likely × good")


def test_quadrants_by_hand(near):
    # mean log π = −14/4 = −3.5, mean A = 2/4 = 0.5: one token in each quadrant, all four different.
    # 2.5·4.5 = 11.25, 1.5·−2.5 = −3.75, −3.5·1.5 = −5.25, −0.5·−3.5 = 1.75; each over N = 4.
    logp = torch.tensor([[-1.0, -2.0], [-7.0, -4.0]], dtype=F64)
    advantages = torch.tensor([[5.0, -2.0], [2.0, -3.0]], dtype=F64)
    quadrants = quadrant_covariance(logp, advantages, torch.ones(2, 2, dtype=torch.bool))
    expected = {"likely_good": 2.8125, "likely_bad": -0.9375, "rare_good": -1.3125, "rare_bad": 0.4375}
    for name, value in expected.items():
        near(quadrants[name], value, f"the covariance of the quadrant {name}")


def test_quadrants_add_up_to_the_mean_covariance(near):
    generator = seeded(5)
    logp, advantages = torch.randn(2, 9, 14, dtype=F64, generator=generator)
    mask = torch.rand(9, 14, generator=generator) < 0.7
    quadrants = quadrant_covariance(logp, advantages, mask)
    mean = token_covariance(logp, advantages, mask).sum() / mask.sum()
    near(sum(quadrants.values()), mean, "the four quadrants must add up to the mean covariance", rtol=1e-9)
    for name, value in quadrants.items():
        sign = 1 if name in ("likely_good", "rare_bad") else -1
        assert sign * value > 0, f"{name} must {'lower' if sign > 0 else 'raise'} the entropy"


def test_response_covariance_by_hand(near):
    # Two prompts of two responses. Mean log-probs: (−0.2 − 0.6)/2 = −0.4 (its third token is masked), −1.0; −2.0, −0.5.
    # A = 1.5, −0.5; 2.0, 1.0. Around the means of a pair, d = ±half the difference, and a covariance is d_x·d_y:
    # prompt 1: d_lp = 0.3; NPG d_A = 1.0 -> 0.3. PG: (1.5·e^−0.4 + 0.5·e^−1)/2 = 0.5947098965... -> 0.3 times it.
    # prompt 2: d_lp = −0.75; NPG d_A = 0.5 -> −0.375. PG: (2·e^−2 − e^−0.5)/2 = −0.1679300466... -> times −0.75.
    logp = torch.tensor(
        [[-0.2, -0.6, -9.0], [-1.0, -1.0, -1.0], [-2.0, -2.0, -2.0], [-0.5, 7.0, 7.0]], dtype=F64
    )
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    advantages = torch.tensor([1.5, -0.5, 2.0, 1.0], dtype=F64)
    pg, npg = response_covariance(logp, advantages, mask, 2)
    near(npg, [0.3, -0.375], "Cov(log π(y|x), A), the mean over the responses of a prompt")
    first = 0.3 * (1.5 * math.exp(-0.4) + 0.5 * math.exp(-1.0)) / 2
    second = -0.75 * (2 * math.exp(-2.0) - math.exp(-0.5)) / 2
    near(pg, [first, second], "Cov(log π(y|x), π(y|x)·A), π(y|x) the exponential of the mean log-prob")


def test_response_covariance_of_equal_rewards_is_zero_and_ignores_padding():
    generator = seeded(7)
    logp = -torch.rand(8, 5, dtype=F64, generator=generator)
    mask = torch.arange(5) < torch.tensor([5, 4, 3, 2, 1, 5, 0, 2])[:, None]
    same = response_covariance(logp, torch.zeros(8, dtype=F64), mask, 4)
    assert all(not x.any() for x in same), "without an advantage nothing drives the entropy"
    advantages = torch.randn(8, dtype=F64, generator=generator)
    noisy = torch.where(mask, logp, torch.nan)
    for plain, padded in zip(
        response_covariance(logp, advantages, mask, 4),
        response_covariance(noisy, advantages, mask, 4),
        strict=True,
    ):
        assert torch.equal(plain, padded), "what stands outside the mask must not count"


# --- log-probs that are not finite ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_a_token_without_a_finite_log_prob_is_left_out(value):
    """−1, −2, −3 with A = 1, 0, −1 give (1, 0, 1) whether or not a fourth token has log π = −inf."""
    logp = torch.tensor([[-1.0, -2.0, -3.0, value]], dtype=torch.float64)
    advantages = torch.tensor([[1.0, 0.0, -1.0, 50.0]], dtype=torch.float64)
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert token_covariance(logp, advantages, mask).tolist() == [[1.0, 0.0, 1.0, 0.0]]
    assert sum(quadrant_covariance(logp, advantages, mask).values()).item() == pytest.approx(2 / 3)
    batch = TokenBatch(logp, logp, advantages, mask)
    assert batch.finite.tolist() == [[True, True, True, False]]
    generator = torch.Generator().manual_seed(0)
    for method in (
        KLCov(fraction=1.0, allow_large_fraction=True),
        ClipCov(fraction=1.0, cov_low=-9.0, cov_high=9.0, allow_large_fraction=True),
    ):
        chosen = method.select(batch, generator)
        assert chosen.tolist() == [[True, True, True, False]], "all that have a covariance, and no other"
    assert KLCov(restrain=1.0).select(batch, generator).tolist() == [[True, False, True, False]]
