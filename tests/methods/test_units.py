"""The settings of the methods: the paper's defaults, and refusals in the reader's words."""

from __future__ import annotations

import dataclasses
import math
import typing

import jaxtyping
import pytest
import torch

from entropilot.maths.tokens import TokenBatch
from entropilot.methods import ClipCov, KLCov, Scope, Steering
from entropilot.methods.policy_loss import policy_loss
from entropilot.methods.registry import REGISTRY

PAPER = {
    KLCov: {"fraction": 2e-3, "restrain": None, "coef": 1.0, "clip_low": None, "clip_high": None},
    ClipCov: {
        "fraction": 2e-4,
        "restrain": None,
        "cov_low": 1.0,
        "cov_high": 5.0,
        "clip_low": 1.0,
        "clip_high": 1.0,
    },
}
BOTH = pytest.mark.parametrize("cls", [KLCov, ClipCov])


@BOTH
def test_defaults_are_the_papers(cls):
    ours = {"scope": "rollout", "count_zero_groups": False, "allow_large_fraction": False}
    assert dataclasses.asdict(cls()) == {**PAPER[cls], **ours}, (
        f"{cls.__name__}() must be the published method"
    )
    assert cls.needs_stale_logp is (cls is KLCov), "only KL-Cov is inert at log-ratio 0"


def test_names_that_a_recipe_writes():
    assert (REGISTRY["clip_cov"].load(), REGISTRY["kl_cov"].load()) == (ClipCov, KLCov)


def test_scopes():
    assert typing.get_args(Scope) == ("rollout", "update", "microbatch")
    for cls in (KLCov, ClipCov):
        assert [cls(scope=scope).scope for scope in typing.get_args(Scope)] == list(typing.get_args(Scope))


@BOTH
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        # A percentage: SkyRL's 0.2 is 100 times the authors' 0.2 %.
        (
            {"fraction": 0.2},
            r"fraction=0\.2 chooses 20% of all tokens.*write 0\.002, or set allow_large_fraction",
        ),
        ({"fraction": 0.05}, r"fraction=0\.05.*looks like a percentage; write 0\.0005"),
        ({"fraction": 2.0}, r"fraction=2\.0 must lie in \(0, 1\].*not a percentage"),
        ({"fraction": 2.0, "allow_large_fraction": True}, r"fraction=2\.0 must lie in \(0, 1\]"),
        ({"fraction": 0.0}, r"fraction=0\.0 must lie in"),
        ({"fraction": -0.1}, r"fraction=-0\.1 must lie in"),
        ({"fraction": math.nan}, r"fraction=nan must lie in"),
        (
            {"fraction": None},
            r"neither fraction nor restrain is set; set one, the paper's is fraction=0\.000?2",
        ),
        ({"fraction": 0.01, "restrain": 1.0}, r"fraction=0\.01 and restrain=1\.0 both say how many.*set one"),
        ({"restrain": 0.0}, r"restrain=0\.0 must be a positive share"),
        ({"restrain": -1.0}, r"restrain=-1\.0 must be a positive share"),
        ({"restrain": math.nan}, r"restrain=nan must be a positive share"),
        ({"restrain": math.inf}, r"restrain=inf must be a positive share"),
        ({"scope": "batch"}, r"scope 'batch' does not exist; choose rollout, update or microbatch"),
        ({"clip_low": -0.2}, r"clip_low=-0\.2 must be at least 0, or none for no clip"),
        ({"clip_high": -0.1}, r"clip_high=-0\.1 must be at least 0"),
        ({"clip_high": math.nan}, r"clip_high=nan must be at least 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(cls, settings, message, unchecked):
    refuse(unchecked, cls, settings, {KLCov: "KL-Cov: ", ClipCov: "Clip-Cov: "}[cls] + message)


@pytest.mark.parametrize("coef", [-1.0, -1e-9, math.nan, math.inf])
def test_a_coefficient_that_cannot_work_is_refused(coef, unchecked):
    refuse(
        unchecked,
        KLCov,
        {"coef": coef},
        rf"KL-Cov: coef={coef} must be a number of at least 0; the paper's is 1",
    )


@pytest.mark.parametrize(("low", "high"), [(5.0, 1.0), (1.0, 1.0), (math.nan, 5.0), (1.0, math.nan)])
def test_an_empty_window_is_refused(low, high, unchecked):
    message = rf"Clip-Cov: the window \(cov_low={low}, cov_high={high}\) is empty; the paper's is \(1, 5\)"
    refuse(unchecked, ClipCov, {"cov_low": low, "cov_high": high}, message)


def refuse(unchecked, cls, settings: dict, message: str) -> None:
    # Without the suite's type checks, so that it is our own message that arrives.
    plain = getattr(unchecked(cls.__module__), cls.__name__)
    with pytest.raises(ValueError, match=message):
        plain(**settings)


@BOTH
@pytest.mark.parametrize("fraction", [1e-6, 2e-4, 2e-3, 0.0499])
def test_small_fractions_pass(cls, fraction):
    assert cls(fraction=fraction).fraction == fraction


@BOTH
def test_a_large_fraction_passes_where_it_is_meant(cls):
    assert cls(fraction=0.2, allow_large_fraction=True).fraction == 0.2
    assert cls(fraction=1.0, allow_large_fraction=True).fraction == 1.0


@BOTH
def test_restrain_takes_the_place_of_the_fraction(cls):
    method = cls(restrain=1.0)
    assert (method.fraction, method.restrain) == (None, 1.0), "one of the two is in force, and one is shown"
    assert dataclasses.replace(method, restrain=0.5) == cls(restrain=0.5), "it can be varied"
    assert cls(fraction=None, restrain=1.0) == method


@BOTH
def test_the_papers_fraction_written_out_is_a_setting_like_any_other(cls):
    """`fraction` beside `restrain` is refused also where it equals the default; it was dropped in silence."""
    default = PAPER[cls]["fraction"]
    written = float(repr(default))
    with pytest.raises(ValueError, match=f"fraction={default} and restrain=1.0 both say how many"):
        cls(fraction=written, restrain=1.0)
    assert cls(fraction=written) == cls() and repr(cls(fraction=written)) == repr(cls())
    assert f"fraction={default}" in repr(cls()), "the default shows as the number that it is"
    assert dataclasses.replace(cls(), restrain=1.0) == cls(restrain=1.0), "a default is no setting"


@BOTH
def test_a_method_is_a_value(cls):
    assert cls() == cls() and hash(cls()) == hash(cls()), "equal settings, equal methods"
    assert cls() != cls(scope="update") and len({cls(), cls(), cls(restrain=1.0)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls().fraction = 0.01
    with pytest.raises(dataclasses.FrozenInstanceError):
        Steering().extra = None
    assert KLCov(restrain=1.0) != ClipCov(restrain=1.0)


@BOTH
def test_the_suite_checks_shapes_of_methods(cls, t1):
    with pytest.raises(jaxtyping.TypeCheckError):
        cls().steer(t1(), torch.ones(2, 3))  # a float where a choice is expected


# --- the effects on a token's gradient --------------------------------------------------------------------------


def test_reweight_and_detach_by_hand():
    """Σ 3·log π with w = 2, 0, 1, 0.5 on four tokens and the last one stopped: gradients 6, 0, 3, 0."""
    logp = torch.tensor([[-1.0, -0.1, -3.3, -7.0]], dtype=torch.float64, requires_grad=True)
    stopped = torch.tensor([[False, False, False, True]])
    weight = torch.tensor([[2.0, 0.0, 1.0, 0.5]], dtype=torch.float64)
    steered = Steering(detach=stopped, reweight=weight).applied(logp)
    assert torch.equal(steered, logp), "values stay to the last digit"
    (gradient,) = torch.autograd.grad(3 * steered.sum(), logp)
    assert gradient.tolist() == [[6.0, 0.0, 3.0, 0.0]]


def test_a_weight_of_0_is_detach():
    logp = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    selected = torch.tensor([[True, False, True], [False, True, False]])
    gradients = [
        torch.autograd.grad((steering.applied(logp) ** 3).sum(), logp)[0]
        for steering in (Steering(detach=selected), Steering(reweight=(~selected).double()))
    ]
    assert torch.equal(*gradients) and (gradients[0][selected] == 0).all()


def test_a_log_prob_that_is_not_finite_survives_a_weight():
    logp = torch.tensor([[-math.inf, -1.0]], requires_grad=True)
    steered = Steering(reweight=torch.full((1, 2), 0.5)).applied(logp)
    assert steered.tolist() == [[-math.inf, -1.0]]
    (gradient,) = torch.autograd.grad(steered[:, 1].sum(), logp)
    assert gradient.tolist() == [[0.0, 0.5]]


def test_the_loss_without_an_engine_reweights_too():
    """ratio 1, A = 1, 4 tokens: the gradient of −mean(ratio·A) is −w/4."""
    logp = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[0.0, 0.5, 1.0, 3.0]], dtype=torch.float64)

    class Weighted(KLCov):
        def steer(self, batch, selected):
            return Steering(reweight=weight)

    batch = TokenBatch(logp.detach(), logp, torch.ones(1, dtype=torch.float64), torch.ones(1, 4))
    loss = policy_loss(batch, method=Weighted())
    (gradient,) = torch.autograd.grad(loss, logp)
    assert loss.item() == -1.0 and gradient.tolist() == [[0.0, -0.125, -0.25, -0.75]]
