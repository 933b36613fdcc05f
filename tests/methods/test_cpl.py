"""CPL, CPL-KL, DPO on segments, SFT and P-IQL: by hand, gradients, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from entropilot.methods.cpl import CPL, cpl_kl, dpo_segment
from entropilot.methods.imitation import imitation_loss
from entropilot.methods.piql import PIQL

F64 = torch.float64


def tensor(*values):
    return torch.tensor(values, dtype=F64)


def test_the_defaults_are_cpls():
    assert (CPL().alpha, CPL().lam) == (0.1, 0.5)
    assert (cpl_kl().alpha, cpl_kl().lam) == (0.2, 0.75)
    assert (dpo_segment().alpha, dpo_segment().lam) == (0.1, 1.0)
    assert (PIQL().expectile, PIQL().beta, PIQL().gamma) == (0.7, 1 / 3, 0.99)


def test_cpl_by_hand(near):
    logp = tensor([-1.0, -2.0, -0.5], [-0.25, -1.0, math.nan])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    score = CPL().score(logp, mask)
    near(score, [-3.5, -1.25], "Σ log π over a segment's own steps")
    loss = CPL(alpha=0.2, lam=0.5).loss(score[:1], score[1:], tensor(1.0))
    near(loss, [math.log1p(math.exp(-0.2 * (-3.5 + 0.625)))], "−log σ(α·(S⁺ − λ·S⁻))")


def test_a_reference_is_subtracted_and_not_trained(near):
    logp, ref = tensor([-1.0, -2.0]).requires_grad_(), tensor([-1.5, -1.0]).requires_grad_()
    score = cpl_kl().score(logp, ref_logp=ref)
    near(score, [-0.5], "Σ log π − log π_ref")
    score.sum().backward()
    assert ref.grad is None and logp.grad is not None


def test_dpo_by_hand(near):
    method = dpo_segment(0.5)
    s = method.score(tensor([-1.0], [-2.0]), ref_logp=tensor([-1.2], [-1.5]))
    near(method.loss(s[:1], s[1:], tensor(1.0)), [math.log1p(math.exp(-0.5 * 0.7))], "β·(0.2 − (−0.5))")


def test_a_bias_of_one_depends_on_the_difference_only(near):
    s = tensor(-3.0), tensor(-1.0)
    near(CPL(lam=1.0).loss(*s, tensor(1.0)), CPL(lam=1.0).loss(s[0] + 7, s[1] + 7, tensor(1.0)), "λ = 1")
    shifted = CPL(lam=0.5).loss(s[0] + 7, s[1] + 7, tensor(1.0))
    assert abs(shifted - CPL(lam=0.5).loss(*s, tensor(1.0))).item() > 0.01, "λ < 1: constants matter"


def test_a_bias_pushes_the_rejected_less(near):
    s = tensor(-3.0, -1.0).requires_grad_()
    (g,) = torch.autograd.grad(CPL(lam=0.25).loss(s[:1], s[1:], tensor(1.0)).sum(), s)
    near(g[1], -0.25 * g[0], "∂ℓ/∂S⁻ = −λ·∂ℓ/∂S⁺")


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_scores_beyond_floating_point(first):
    s = torch.tensor([[-1e30, 1e30]], requires_grad=True)
    loss = CPL().loss(s[:, 0], s[:, 1], torch.tensor([first]))
    loss.sum().backward()
    assert not s.grad.isnan().any() and not loss.isnan().any()


def test_gradcheck():
    first = torch.tensor([1.0, 0.0, 0.5], dtype=F64)
    ref = -torch.rand(6, 4, dtype=F64)

    def loss(logp):
        score = CPL(alpha=0.7, lam=0.6).score(logp, ref_logp=ref)
        return CPL(alpha=0.7, lam=0.6).loss(score[:3], score[3:], first).sum()

    assert torch.autograd.gradcheck(loss, -torch.rand(6, 4, dtype=F64).requires_grad_())


# --- imitation -----------------------------------------------------------------------------------------------


def test_imitation_by_hand(near):
    logp, mask = tensor([-1.0, -2.0], [-4.0, math.nan]), torch.tensor([[1, 1], [1, 0]])
    near(imitation_loss(logp, mask), 7 / 3, "all steps count alike")
    near(imitation_loss(logp, mask, tensor(1.0, 0.0)), 1.5, "SFT: the preferred segment's steps only")
    near(imitation_loss(logp, mask, tensor(0.5, 0.5)), 7 / 3, "a tie counts both by half")
    with pytest.raises(ValueError, match="no step to imitate"):
        imitation_loss(logp, mask, tensor(0.0, 0.0))


# --- P-IQL ---------------------------------------------------------------------------------------------------


def test_piql_by_hand(near):
    method = PIQL(expectile=0.7, beta=0.5, gamma=0.9)
    q, v = tensor(1.0, 1.0), tensor(0.0, 3.0)
    near(method.value_loss(q, v), [0.7, 0.3 * 4], "|τ − 1(Q < V)|·(Q − V)²")
    near(
        method.critic_loss(q, tensor(0.5, 0.5), v, torch.tensor([False, True])),
        [(0.5 - 1) ** 2, (0.5 - 1) ** 2],
        "target r + γ·V(s′); 0 beyond the end, where V = 3 would show",
    )
    near(method.critic_loss(q, tensor(0.5, 0.5), v), [0.25, (0.5 + 2.7 - 1) ** 2], "γ·V(s′)")
    near(method.policy_loss(tensor(-2.0, -2.0), q, v), [2 * math.exp(2), 2 * math.exp(-4)], "exp(A/β)·−log π")
    near(PIQL(limit=3.0, beta=0.5).policy_loss(tensor(-2.0), tensor(9.0), tensor(0.0)), [6.0], "capped")
    rewards = tensor([1.0, 2.0]), tensor([0.5, math.nan])
    loss = method.reward_loss(*rewards, tensor(1.0), None, torch.tensor([[1, 0]]))
    near(loss, [math.log1p(math.exp(-2.5))], "−log σ(Σ r̂⁺ − Σ r̂⁻)")


def test_each_piql_loss_trains_its_own_network():
    method = PIQL()
    parts = {name: torch.randn(5, requires_grad=True) for name in ("q", "v", "r", "logp")}
    for loss, trained in (
        (method.value_loss(parts["q"], parts["v"]), "v"),
        (method.critic_loss(parts["q"], parts["r"], parts["v"]), "q"),
        (method.policy_loss(parts["logp"], parts["q"], parts["v"]), "logp"),
    ):
        found = torch.autograd.grad(loss.sum(), list(parts.values()), allow_unused=True)
        assert [n for n, g in zip(parts, found, strict=True) if g is not None] == [trained]


@pytest.mark.parametrize(
    ("module", "name", "settings", "message"),
    [
        ("cpl", "CPL", {"alpha": -1.0}, r"CPL: alpha=-1\.0 must be a positive"),
        ("cpl", "CPL", {"lam": math.nan}, r"CPL: lam=nan must lie in"),
        ("piql", "PIQL", {"expectile": 2.0}, r"P-IQL: expectile=2\.0 must lie in"),
        ("piql", "PIQL", {"beta": 0.0}, r"P-IQL: beta=0\.0 must be a positive"),
    ],
)
def test_settings_that_cannot_work_are_refused(module, name, settings, message, unchecked):
    with pytest.raises(ValueError, match=message):
        getattr(unchecked(f"entropilot.methods.{module}"), name)(**settings)


@pytest.mark.parametrize("method", [cpl_kl(), dpo_segment()])
def test_a_score_against_a_reference_needs_one(method: CPL) -> None:
    logp = torch.full((1, 2), -1.0)
    with pytest.raises(ValueError, match="compare with a reference; give ref_logp"):
        method.score(logp)
    assert method.score(logp, ref_logp=logp - 0.5).item() == pytest.approx(1.0)
