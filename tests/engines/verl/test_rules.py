"""Advantage methods in verl: through its own `compute_advantage` and its own losses, worked by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from entropilot.errors import UserError

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")

# Prompt a has four completions, two of them right; b has three, its fourth was lost, and one is right. Rows are mixed.
UIDS = ["a", "b", "a", "a", "b", "a", "b"]
RIGHT = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]


def advantages_of(name: str) -> list[float]:
    pytest.importorskip("verl")
    from verl import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    rewards = torch.zeros(7, 3)
    rewards[:, 1] = torch.tensor(RIGHT)
    mask = torch.tensor([[1, 1, 0]] * 7)
    data = DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": mask},
        non_tensors={"uid": np.array(UIDS, dtype=object)},
    )
    advantages = compute_advantage(data, adv_estimator=name).batch["advantages"]
    assert torch.equal(advantages[:, 0], advantages[:, 1]) and not advantages[:, 2].any()
    return advantages[:, 0].tolist()


def test_a_quantile_of_the_group_is_the_baseline(monkeypatch) -> None:
    # K = 0.4. a: F(0) = 1/2, so Q = 0, std = 1/2: right 2, wrong 0. b: F(0) = 2/3, Q = 0, std = √(2/9).
    b = 1 / (2 / 9) ** 0.5
    assert advantages_of("entropilot_qae") == pytest.approx([2, 0, 0, 2, b, 0, 0], rel=1e-6)
    # K = 0.6. a: Q = 1, right 0, wrong −2. b: Q = 0 still.
    monkeypatch.setenv("ENTROPILOT_ADVANTAGE", '{"quantile": 0.6}')
    assert advantages_of("entropilot_qae") == pytest.approx([0, 0, -2, 0, b, -2, 0], rel=1e-6)


def test_wrong_completions_in_full_and_right_ones_a_little() -> None:
    assert advantages_of("entropilot_w_reinforce") == pytest.approx([0.1, -1, -1, 0.1, 0.1, -1, -1])


def test_rare_tokens_have_larger_advantages(monkeypatch) -> None:
    """REPO-R: A·(1 − ζ log π) where A > 0, A·(1 + ζ log π), at least 0, where A < 0; at ratio 1 the gradient is −A/4."""
    workers = pytest.importorskip("verl.workers.config")
    from verl.trainer.ppo.core_algos import get_policy_loss_fn

    monkeypatch.setenv("ENTROPILOT_METHOD", '{"adaptive": false, "zeta": 0.5}')
    old = torch.tensor([[-1.0, -4.0, 0.0], [-1.0, -4.0, -9.0]])
    logp = old.clone().requires_grad_()
    given = torch.tensor([[2.0, 2.0, 0.0], [-1.0, -1.0, -1.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 0]])
    config = workers.FSDPActorConfig(
        rollout_n=4,
        ppo_micro_batch_size_per_gpu=1,
        policy_loss=workers.PolicyLossConfig(loss_mode="entropilot_repo"),
    )
    loss, metrics = get_policy_loss_fn("entropilot_repo")(
        old_log_prob=old, log_prob=logp, advantages=given, response_mask=mask, config=config
    )
    loss.backward()
    # 2·(1 + 0.5) = 3, 2·(1 + 2) = 6; −1·(1 − 0.5) = −0.5, −1·(1 − 2) stops at 0. Four tokens count.
    assert (-4 * logp.grad).flatten().tolist() == pytest.approx([3, 6, 0, -0.5, 0, 0])
    assert metrics["actor/adapted/clamped"] == 1


def test_what_verl_does_not_show_is_refused(monkeypatch) -> None:
    pytest.importorskip("verl")
    from verl.trainer.ppo.core_algos import get_policy_loss_fn

    config = SimpleNamespace(policy_loss={"loss_mode": "entropilot_repo"})
    tokens = torch.zeros(1, 2)
    with pytest.raises(UserError, match='repo changes with the entropy of every rollout.*"adaptive": false'):
        get_policy_loss_fn("entropilot_repo")(tokens, tokens, tokens, tokens, config=config)
    monkeypatch.setenv("ENTROPILOT_ADVANTAGE", '{"quantil": 0.6}')
    with pytest.raises(UserError, match="ENTROPILOT_ADVANTAGE: qae has no field 'quantil'; it has quantile"):
        advantages_of("entropilot_qae")
    for name in ("entrocraft", "entropy_target"):
        with pytest.raises(ValueError, match="Unsupported loss mode"):
            get_policy_loss_fn(f"entropilot_{name}")
