"""STARE: which tokens, which weights and gradients on T1 by hand; the gate and the moving weights; cuts; refusals."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from math import exp

import pytest
import torch

from entropilot.maths.tokens import TokenBatch
from entropilot.methods.adaptive import Reading
from entropilot.methods.policy_loss import policy_loss
from entropilot.methods.stare import STARE

F64 = torch.float64
NONE = torch.Generator()
# On T1 (tests/conftest.py) half of each sign: of A > 0 (log π −0.1, −2.0) the second, of A < 0 (−1.0, −0.2, −2.7) the last.
HALF = STARE(fraction=0.5, weight_up=1.5, weight_down=0.5, target=None)
BOTH = replace(HALF, two_sided=True)


def chosen(method: STARE, batch: TokenBatch) -> list[list[int]]:
    return method.select(batch.detach(), NONE).nonzero().tolist()


@pytest.mark.parametrize("padding", [None, math.nan, -math.inf, -9.0])
def test_the_most_surprising_tokens_of_each_sign(t1, padding):
    batch = t1(padding)
    assert chosen(HALF, batch) == [[0, 1]]
    assert chosen(BOTH, batch) == [[0, 1], [1, 2]]
    # ⌊0.7·2⌋ = 1 of A > 0, ⌊0.7·3⌋ = 2 of A < 0; at least one of each at any fraction.
    assert chosen(replace(BOTH, fraction=0.7), batch) == [[0, 1], [1, 0], [1, 2]]
    assert chosen(replace(BOTH, fraction=1e-3), batch) == [[0, 1], [1, 2]]
    assert chosen(replace(BOTH, fraction=1.0), batch) == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]]


def test_nothing_is_chosen_where_nothing_would_change(t1):
    assert chosen(replace(HALF, weight_up=1.0), t1()) == []
    assert chosen(replace(BOTH, weight_up=1.0), t1()) == [[0, 1], [1, 2]], "M still acts"
    assert chosen(replace(BOTH, weight_up=1.0, weight_down=1.0), t1()) == []


def test_one_sign_alone_has_one_set(t1):
    batch = t1()
    advantages = torch.full((2, 3), -1.0, dtype=F64)
    assert chosen(HALF, replace(batch, advantages=advantages)) == []
    assert chosen(HALF, replace(batch, advantages=0 * advantages)) == []


@pytest.mark.parametrize(("method", "weights"), [(HALF, [1.5, 1.0]), (BOTH, [1.5, 0.5])])
def test_gradients_of_t1_by_hand(t1, near, method, weights):
    """ε = 10 clips nothing; −A·ratio/5 times the weight: ratios e^0.1, 1 | e^0.3, 1, e^−0.4."""
    batch = t1()
    wide = replace(method, clip_low=10.0, clip_high=10.0)
    loss = policy_loss(batch, method=wide)
    up, down = weights
    free = [-1.5 * exp(0.1), -1.5, 0.5 * exp(0.3), 0.5, 0.5 * exp(-0.4)]
    near(loss, sum(free) / 5, "the value of the loss stays")
    expected = torch.zeros(2, 3, dtype=F64)
    expected[batch.mask] = torch.tensor(free, dtype=F64) * torch.tensor([1, up, 1, 1, down], dtype=F64) / 5
    near(torch.autograd.grad(loss, batch.logp)[0], expected, "W on L⁺, M on L⁻, 1 elsewhere")


def test_steer_reweights_and_does_nothing_else(t1):
    batch = t1()
    steering = BOTH.steer(batch, BOTH.select(batch.detach(), NONE))
    assert steering.reweight.tolist() == [[1.0, 1.5, 1.0], [1.0, 1.0, 0.5]]
    assert steering.extra is None and steering.detach is None


@pytest.mark.parametrize(
    ("entropy", "up", "down", "on"), [(0.29, 1.1, 0.9, 1), (0.3, 1.0, 1.0, 0), (0.31, 1.0, 1.0, 0)]
)
def test_it_acts_only_while_entropy_is_below_the_target(entropy, up, down, on):
    acting, memory = STARE(two_sided=True).adapt({}, Reading(entropy, 5, 100))
    assert (acting.weight_up, acting.weight_down, memory["on"]) == (up, down, on)
    assert (memory["weight_up"], memory["weight_down"]) == (1.1, 0.9)


def test_adaptive_weights_move_by_one_step_each_rollout():
    """α = 0.1 from W = 1.2, M = 0.7: three below the target, one at it, five above (where they stop at 1)."""
    method = STARE(adaptive=True, two_sided=True, step=0.1, weight_up=1.2, weight_down=0.7)
    memory, seen = {}, []
    for entropy in [0.2, 0.2, 0.2, 0.2, 0.3, *[0.4] * 6, 0.2]:
        acting, memory = method.adapt(memory, Reading(entropy, 0, 100))
        seen.append((round(memory["weight_up"], 9), round(memory["weight_down"], 9), acting.weight_up))
    ups, downs, acting_ups = zip(*seen, strict=True)
    assert ups == (1.3, 1.4, 1.5, 1.5, 1.5, 1.4, 1.3, 1.2, 1.1, 1.0, 1.0, 1.1)
    assert downs == (0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 0.9)
    assert acting_ups[4:11] == (1.0,) * 7, "at and above the target nothing is reweighted"
    assert acting_ups[11] == pytest.approx(1.1)


def test_a_controller_sets_both_weights(t1):
    up = STARE().driven(math.log(2.0), 0.5)
    assert (up.weight_up, up.weight_down, up.two_sided, up.adapts) == (
        pytest.approx(2.0),
        pytest.approx(0.5),
        True,
        False,
    )
    down = STARE().driven(-math.log(2.0), 0.5)
    assert (down.weight_up, down.weight_down) == (pytest.approx(0.5), pytest.approx(2.0))
    assert chosen(STARE().driven(0.0, 0.5), t1()) == [], "a strength of 0 changes nothing"


def test_the_choice_does_not_depend_on_padding_and_only_whole_batches_choose(t1):
    batch = t1()
    wide = [torch.nn.functional.pad(x.detach(), (1, 3), value=math.nan) for x in (batch.old_logp, batch.logp)]
    padded = TokenBatch(
        *wide,
        torch.nn.functional.pad(batch.advantages, (1, 3), value=math.nan),
        torch.nn.functional.pad(batch.mask, (1, 3)),
    )
    assert [[row, token - 1] for row, token in chosen(BOTH, padded)] == chosen(BOTH, batch)


def test_defaults_are_the_authors():
    settings = asdict(STARE())
    settings.pop("count_zero_groups")
    assert settings == {
        "fraction": 0.1,
        "weight_up": 1.1,
        "weight_down": 0.9,
        "two_sided": False,
        "target": 0.3,
        "adaptive": False,
        "step": 0.01,
        "highest": 1.5,
        "lowest": 0.5,
        "clip_low": 0.2,
        "clip_high": 0.28,
        "scope": "rollout",
    }


def test_a_target_that_nobody_follows_is_refused(t1):
    with pytest.raises(
        ValueError, match="in a loop of your own call adapt before, elsewhere set target to none"
    ):
        STARE().select(t1().detach(), NONE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fraction": 0.0}, r"STARE: fraction=0\.0 must lie in \(0, 1\]"),
        ({"fraction": 10.0}, r"STARE: fraction=10\.0 must lie in"),
        ({"weight_up": -1.0}, r"STARE: weight_up=-1\.0 must be a number of at least 0"),
        ({"weight_down": math.nan}, r"STARE: weight_down=nan must be"),
        ({"target": -0.1}, r"STARE: target=-0\.1 must be an entropy in nats"),
        ({"adaptive": True, "target": None}, r"STARE: adaptive follows a target; set target"),
        ({"adaptive": True, "weight_up": 2.0}, r"adaptive moves weight_up in \[1, 1\.5\]"),
        ({"scope": "batch"}, r"STARE: scope 'batch' does not exist"),
        ({"clip_low": -0.1}, r"STARE: clip_low=-0\.1 must be at least 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message, unchecked):
    with pytest.raises(ValueError, match=message):
        unchecked("entropilot.methods.stare").STARE(**settings)
