"""Methods that act together: one of each kind, by object or by name; who is driven; what is remembered."""

from __future__ import annotations

import pytest

from entropilot.errors import UserError
from entropilot.methods import ClipCov, KLCov
from entropilot.methods.adaptive import Reading
from entropilot.methods.entrocraft import Entrocraft
from entropilot.methods.entropy_target import EntropyTarget
from entropilot.methods.qae import QAE
from entropilot.methods.repo import REPO
from entropilot.methods.stack import Stack
from entropilot.methods.stare import STARE


def test_none_one_and_several():
    assert Stack.of(None) == Stack() and Stack().methods is None
    assert Stack.of(KLCov()).methods == KLCov()
    both = Stack.of([ClipCov(), QAE()])
    assert (both.advantage, both.token) == (QAE(), ClipCov())
    assert both.methods == (QAE(), ClipCov()) and Stack.of(both.methods) == both
    assert Stack.of(["qae", "clip_cov"]) == both, "a name is the paper's settings"


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ([KLCov(), ClipCov()], "KLCov and ClipCov are both token methods; give one of them."),
        (["qae", "repo"], "QAE and REPO are both advantage methods"),
        ([QAE], "method=QAE is a class; write method=QAE()."),
        ([0.2], "method=0.2 is no token method"),
        (
            "empo",
            "method='empo' chooses no tokens and gives no advantages; choose one of clip_cov, kl_cov, ",
        ),
        (
            EntropyTarget(),
            "there is no method that it could drive; give one of clip_cov, kl_cov, stare, entrocraft",
        ),
        ([EntropyTarget(), QAE()], "there is no method that it could drive"),
        ([EntropyTarget(), Entrocraft(), ClipCov()], "two of its methods can be driven"),
    ],
)
def test_what_cannot_act_together_is_refused(method, said):
    with pytest.raises(UserError) as error:
        Stack.of(method)
    assert said in str(error.value)


def test_who_reads_the_rollout():
    assert not Stack.of(ClipCov()).reads_rollout
    assert Stack.of(QAE()).reads_rollout and not Stack.of(QAE()).adapts
    assert Stack.of(STARE()).adapts and not Stack.of(STARE(target=None)).adapts
    assert Stack.of(REPO()).adapts and not Stack.of(REPO(adaptive=False)).adapts
    assert Stack.of([EntropyTarget(), ClipCov()]).adapts


def test_every_kind_remembers_for_itself():
    """H = 0.2 below STARE's 0.3 and, first of all, equal to REPO's start; then 0.1 doubles ζ."""
    stack = Stack.of([STARE(), REPO()])
    acting, memory = stack.adapt({}, Reading(0.2, 0, 10))
    assert memory == {
        "advantage": {"zeta": 0.01, "target": 0.2},
        "token": {"weight_up": 1.1, "weight_down": 0.9, "on": 1.0},
    }
    acting, memory = stack.adapt(memory, Reading(0.1, 4, 10))
    assert acting.advantage.zeta == 0.02 and acting.token.weight_up == 1.1
    assert stack.advantage.zeta == 0.01, "what was given stays"


def test_the_controller_drives_one_and_leaves_the_other():
    """H* = 0.4, H = 0.3: e = ln 4/3, near enough for the integral to count, and u = 1.1·e."""
    stack = Stack.of([EntropyTarget(target=0.4), QAE(), KLCov(coef=3.0)])
    acting, memory = stack.adapt({}, Reading(0.3, 0, 10))
    assert acting.advantage == QAE() and acting.token.coef == pytest.approx(3 * (4 / 3) ** 1.1)
    assert set(memory) == {"controller"}


def test_a_driven_rule_with_a_band_adapts_to_the_rollout_as_well():
    acting, memory = Stack.of([EntropyTarget(target=0.4), Entrocraft()]).adapt({}, Reading(0.2, 0, 10))
    assert acting.advantage.sign == -1 and memory["advantage"]["band_low"] == pytest.approx(0.38)
