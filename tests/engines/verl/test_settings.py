"""Settings of verl, read as a method's: names, units, the clip in force, and what is refused."""

from __future__ import annotations

import pytest

from entropilot.engines.verl.settings import NO_CLIP, clip_of, method_of, token_methods
from entropilot.errors import UserError
from entropilot.methods import ClipCov, KLCov
from entropilot.methods.stare import STARE

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def configured(monkeypatch):
    """Make verl's own actor configuration."""
    workers = pytest.importorskip("verl.workers.config")
    monkeypatch.delenv("ENTROPILOT_METHOD", raising=False)

    def make(loss_mode: str, section: dict | None = None, **fields):
        loss = workers.PolicyLossConfig(loss_mode=loss_mode, **(section or {}))
        return workers.FSDPActorConfig(
            rollout_n=4, ppo_micro_batch_size_per_gpu=1, policy_loss=loss, **fields
        )

    return make


def test_verls_fields_and_the_environments(configured, monkeypatch) -> None:
    assert token_methods() == ["clip_cov", "kl_cov", "stare"]
    assert method_of(configured("kl_cov")) is None  # verl's own
    assert method_of(configured("entropilot_kl_cov")) == KLCov(fraction=2e-4, coef=0.1)  # verl's defaults
    section = {"clip_cov_ratio": 1e-3, "clip_cov_lb": 0.5, "clip_cov_ub": 4.0}
    assert method_of(configured("entropilot_clip_cov", section)) == ClipCov(
        fraction=1e-3, cov_low=0.5, cov_high=4.0
    )
    monkeypatch.setenv("ENTROPILOT_METHOD", '{"restrain": 1, "scope": "update"}')
    assert method_of(configured("entropilot_kl_cov")) == KLCov(restrain=1.0, coef=0.1, scope="update")


def test_the_clip_is_the_methods_unless_the_user_set_one(configured) -> None:
    assert clip_of(configured("entropilot_kl_cov"), KLCov()) == (NO_CLIP, NO_CLIP, NO_CLIP)
    assert clip_of(configured("entropilot_clip_cov"), ClipCov()) == (1.0, 1.0, NO_CLIP)
    own = configured("entropilot_kl_cov", clip_ratio_low=0.2, clip_ratio_high=0.28)
    assert clip_of(own, KLCov()) == (0.2, 0.28, 3.0)


@pytest.mark.parametrize(
    ("section", "text", "message"),
    [
        (
            {"kl_cov_ratio": 0.2},
            "",
            "looks like a percentage.*fraction is actor_rollout_ref.actor.policy_loss.kl_cov_ratio",
        ),
        ({}, "restrain=1", "ENTROPILOT_METHOD = 'restrain=1' is no JSON; write an object"),
        ({}, "[1]", "is no JSON object"),
        ({}, '{"restrian": 1}', "kl_cov has no field 'restrian'; it has fraction, restrain"),
        ({}, '{"restrain": "much"}', "restrain = 'much' does not fit"),
        ({}, '{"scope": "microbatch"}', "policy_loss.loss_mode=kl_cov for it"),
    ],
)
def test_what_cannot_work_is_refused_in_the_users_words(
    configured, monkeypatch, section, text, message
) -> None:
    monkeypatch.setenv("ENTROPILOT_METHOD", text)
    with pytest.raises(UserError, match=message):
        method_of(configured("entropilot_kl_cov", section))


def test_stare_acts_at_all_times_or_not_at_all(configured, monkeypatch) -> None:
    """verl shows a loss no entropy of the rollout, so a target can't be followed; it is never ignored in silence."""
    with pytest.raises(UserError, match='stare changes with the entropy of every rollout.*"target": null'):
        method_of(configured("entropilot_stare"))
    monkeypatch.setenv("ENTROPILOT_METHOD", '{"target": null, "two_sided": true}')
    assert method_of(configured("entropilot_stare")) == STARE(target=None, two_sided=True)
