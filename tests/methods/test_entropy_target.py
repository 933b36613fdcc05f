"""The controller by hand: error, integral, bounds, no wind-up, dead band, targets and schedules, and what it drives."""

from __future__ import annotations

import math
from math import e, exp

import pytest

from entropilot.methods import ClipCov, KLCov
from entropilot.methods.adaptive import Reading
from entropilot.methods.entropy_target import EntropyTarget


def strengths(controller: EntropyTarget, entropies: list[float], start: int = 0) -> list[float]:
    memory, seen = {}, []
    for step, entropy in enumerate(entropies, start):
        strength, _, memory = controller.steer_to(memory, Reading(entropy, step, 100))
        assert memory["strength"] == strength
        seen.append(strength)
    return seen


def plain(**settings) -> EntropyTarget:
    """Return a controller that looks at where entropy is, and not at where it goes."""
    return EntropyTarget(derivative=0.0, **settings)


def test_proportional_and_integral_by_hand():
    """H* = 1. ln(1/e^−0.5) = 0.5: I = 0.05, u = 2·0.5 + 0.05. Then e = −1: I = −0.05, u = −2.05. Then 0: u = I."""
    controller = plain(target=1.0, proportional=2.0, integrate_within=1.0, low=-9.0, high=9.0)
    assert strengths(controller, [exp(-0.5), e, 1.0]) == pytest.approx([1.05, -2.05, -0.05])


def test_below_the_target_it_strengthens_and_above_it_weakens():
    controller = plain(target=0.5)
    assert strengths(controller, [0.25])[0] > 0 > strengths(controller, [1.0])[0]


def test_nothing_moves_inside_the_dead_band():
    controller = plain(target=1.0, dead_band=0.1, gain=0.5, proportional=1.0)
    assert strengths(controller, [exp(0.09), exp(-0.09)]) == [0.0, 0.0]
    assert strengths(controller, [exp(-0.11)]) == pytest.approx([0.165])
    # What the integral holds stays: it is what keeps entropy there.
    assert strengths(controller, [exp(-0.2), 1.0]) == pytest.approx([0.3, 0.1])


def test_the_integral_does_not_wind_up_at_a_bound():
    """Far below for 50 rollouts: u stands at 2. The integral stops once it does, and one rollout above brings u down."""
    controller = plain(target=1.0, gain=0.1, proportional=1.0, integrate_within=9.0, high=2.0)
    memory: dict[str, float] = {}
    for step in range(50):
        strength, _, memory = controller.steer_to(memory, Reading(exp(-3), step, 100))
    # In the first rollout u = 3 + 0.3 is cut to 2; from the second on the integral waits.
    assert strength == 2.0 and memory["integral"] == pytest.approx(0.3)
    strength, _, memory = controller.steer_to(memory, Reading(exp(1), 50, 100))
    assert strength == pytest.approx(-1 + 0.2)


def test_far_from_the_target_the_integral_waits():
    """ln(1/e^2) = −2 is farther than 0.5 for ten rollouts; then −0.4: I = 0.1·(−0.4), u = −0.4 − 0.04.

    An integral that does not wait stands at −2 by then, with u at its bound of −4, and waits for that: u = −0.4 − 2.
    """
    entropies = [exp(2)] * 10 + [exp(0.4)]
    assert strengths(plain(target=1.0), entropies) == pytest.approx([-2.0] * 10 + [-0.44])
    assert strengths(plain(target=1.0, integrate_within=2.0), entropies)[-1] == pytest.approx(-2.4)


def test_the_lower_bound_holds_too():
    controller = plain(target=1.0, integrate_within=9.0, low=-2.0)
    assert strengths(controller, [exp(3)] * 9 + [exp(-1)])[-2:] == pytest.approx([-2.0, 1 - 0.2])


def test_an_entropy_of_0_has_a_bounded_answer():
    assert strengths(plain(target=0.5), [0.0]) == [2.0]


def test_a_fall_is_met_before_it_has_gone_too_far():
    """ln H = 1, 0, 0 and H* = 1. Means of ln H: fast 1, 0.5, 0.25; slow 1, 0.9, 0.81. e = −1, 0.4, 0.56; u = e."""
    looking_ahead = EntropyTarget(target=1.0, gain=0.0)
    assert strengths(looking_ahead, [e, 1.0, 1.0]) == pytest.approx([-1.0, 0.4, 0.56])
    assert strengths(plain(target=1.0, gain=0.0), [e, 1.0, 1.0]) == pytest.approx([-1.0, 0.0, 0.0])


def test_on_a_ramp_it_looks_eight_rollouts_ahead():
    """ln H falls by 0.01 a rollout: the means lag by 0.01·(1 − w)/w, 0.01 and 0.09, so they are 0.08 apart."""
    falling = [exp(-0.01 * rollout) for rollout in range(200)]
    ahead = strengths(EntropyTarget(target=1.0, gain=0.0, dead_band=0.0, high=9.0), falling)
    here = strengths(plain(target=1.0, gain=0.0, dead_band=0.0, high=9.0), falling)
    assert ahead[-1] - here[-1] == pytest.approx(0.08, abs=1e-6)


@pytest.mark.parametrize("text", ["0.6×start", "0.6x start", " 0.6 * start ", "0.6*start"])
def test_a_share_of_the_start_is_of_the_first_rollout(text):
    controller, memory = EntropyTarget(target=text), {}
    for step, entropy in enumerate([0.7, 0.1, 2.0]):
        _, target, memory = controller.steer_to(memory, Reading(entropy, step, 100))
        assert target == pytest.approx(0.42) and memory["entropy_target"] == target


@pytest.mark.parametrize(
    ("step", "target"), [(0, 0.8), (9, 0.8), (10, 0.8), (15, 0.6), (20, 0.4), (30, 0.4), (31, 1.0), (99, 1.0)]
)
def test_a_schedule_is_linear_between_its_steps(step, target):
    """0.5×start of 0.8 is 0.4; a step of the target is two entries side by side."""
    controller = EntropyTarget(target={10: 0.8, 20: "0.5×start", 30: 0.4, 31: 1.0})
    assert controller.at(step, 0.8) == pytest.approx(target)


def test_what_it_drives():
    assert KLCov(coef=3.0).driven(math.log(2), 0.1).coef == pytest.approx(6.0)
    assert ClipCov(restrain=0.5).driven(math.log(2), 0.1).restrain == pytest.approx(1.0)
    by_fraction = ClipCov(fraction=0.01).driven(math.log(4), 0.1)
    assert by_fraction.fraction == pytest.approx(0.04) and by_fraction.restrain is None
    assert ClipCov(fraction=0.5, allow_large_fraction=True).driven(3.0, 0.1).fraction == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "half"}, r"target='half' is no entropy; write nats, such as 0\.3, or a share"),
        ({"target": 0.0}, r"target=0\.0 must be above 0"),
        ({"target": "0×start"}, r"target='0×start' must be above 0"),
        ({"target": math.nan}, r"target=nan must be above 0"),
        ({"target": {}}, r"target has no step"),
        ({"target": {-1: 0.3}}, r"step -1 of target must be at least 0"),
        ({"derivative": math.nan}, r"derivative=nan must be a number of at least 0"),
        ({"gain": -0.1}, r"gain=-0\.1 must be a number of at least 0"),
        ({"dead_band": math.inf}, r"dead_band=inf must be"),
        ({"low": 0.5}, r"low=0\.5 and high=2\.0 must lie on both sides of 0"),
        ({"high": -1.0}, r"high=-1\.0 must lie on both sides of 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match="entropy_target: .*" + message):
        EntropyTarget(**settings)
