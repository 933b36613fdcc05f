"""verl's FSDP engine on CPU: one choice of tokens, however the mini-batch is cut; verl's own loss beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from entropilot.errors import UserError

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cpu(tmp_path_factory: pytest.TempPathFactory):
    """The helpers, with this process as the only rank; the platform is set before verl's engines are imported."""
    pytest.importorskip("verl")
    import torch.distributed as dist
    import verl_on_cpu

    folder = tmp_path_factory.mktemp("verl")
    verl_on_cpu.start_ranks(0, 1, folder / "rendezvous")
    verl_on_cpu.model = verl_on_cpu.write_model(folder / "model")
    yield verl_on_cpu
    dist.destroy_process_group()


LOSSES, SCOPES = ("entropilot_kl_cov", "entropilot_clip_cov"), ("rollout", "update")


@pytest.fixture(scope="module")
def two_ranks(cpu, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """One update of every loss and scope on two gloo ranks: per rank, what came of it by "loss:scope"."""
    folder = tmp_path_factory.mktemp("ranks")
    jobs = [f"{loss}:{scope}" for loss in LOSSES for scope in SCOPES]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / "verl_on_cpu.py"), str(cpu.model), str(rank), str(folder), *jobs],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], errors
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def largest_gap(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of two gradients, as a share of the largest entry."""
    scale = max(float(gradient.abs().max()) for gradient in left.values())
    return max(float((left[name] - right[name]).abs().max()) for name in left) / scale


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("loss_mode", LOSSES)
def test_tokens_and_gradient_do_not_depend_on_how_the_mini_batch_is_cut(
    cpu, two_ranks, loss_mode, scope, monkeypatch
) -> None:
    monkeypatch.setenv("ENTROPILOT_METHOD", json.dumps({"scope": scope}))
    whole = cpu.one_update(cpu.model, loss_mode, micro=8)
    assert int(whole["selected"].sum()) == 2  # of 68 tokens, at a fraction of 0.04
    for micro in (4, 2, 1):
        part = cpu.one_update(cpu.model, loss_mode, micro)
        assert torch.equal(part["selected"], whole["selected"])
        assert largest_gap(part["gradients"], whole["gradients"]) < 1e-5
    first, second = (rank[f"{loss_mode}:{scope}"] for rank in two_ranks)
    assert torch.equal(torch.cat([first["selected"], second["selected"]]), whole["selected"])
    assert largest_gap(first["gradients"], whole["gradients"]) < 1e-5
    assert first["norm"] == pytest.approx(whole["norm"], rel=1e-5)


def test_stare_reweights_the_gradient_of_its_tokens(cpu, monkeypatch) -> None:
    """Linear in the weight: W = 3 lies half way between 1 and 5; and the same in micro-batches."""
    updates = {}
    for weight, micro in ((1.0, 8), (3.0, 8), (5.0, 8), (3.0, 2)):
        method = {"target": None, "fraction": 0.2, "weight_up": weight}
        monkeypatch.setenv("ENTROPILOT_METHOD", json.dumps(method))
        updates[weight, micro] = cpu.one_update(cpu.model, "entropilot_stare", micro=micro)["gradients"]
    one, three, five, cut = (updates[key] for key in ((1.0, 8), (3.0, 8), (5.0, 8), (3.0, 2)))
    assert largest_gap(three, one) > 0.05
    middle = {name: (one[name] + five[name]) / 2 for name in one}
    assert largest_gap(three, middle) < 1e-5
    assert largest_gap(three, cut) < 1e-5


def test_verls_own_losses_change_with_the_cut(cpu) -> None:
    """The bug that ours are there for (verl#7829): one token in one micro-batch of 8 rows, eight in eight of one."""
    gaps = {}
    for loss_mode in ("vanilla", "kl_cov", "clip_cov"):
        whole, cut = (cpu.one_update(cpu.model, loss_mode, micro) for micro in (8, 1))
        gaps[loss_mode] = largest_gap(cut["gradients"], whole["gradients"])
    assert gaps["vanilla"] < 1e-5  # the cut alone changes nothing
    # Which tokens verl draws depends on the machine (clip_cov draws at random), and so does the size of the gap.
    assert min(gaps["kl_cov"], gaps["clip_cov"]) > 1e-3


def test_at_the_current_policy_in_one_micro_batch_kl_cov_is_verls(cpu, monkeypatch) -> None:
    """Chosen where verl chooses, over what verl sees, ours has verl's gradient: formula, average and clip agree."""
    monkeypatch.setenv("ENTROPILOT_METHOD", '{"scope": "update"}')
    theirs = cpu.one_update(cpu.model, "kl_cov", micro=8)
    ours = cpu.one_update(cpu.model, "entropilot_kl_cov", micro=8)
    assert largest_gap(ours["gradients"], theirs["gradients"]) < 1e-5
    none = cpu.one_update(cpu.model, "entropilot_kl_cov", micro=8, policy_loss={"ppo_kl_coef": 0.0})
    assert largest_gap(none["gradients"], theirs["gradients"]) > 0.01


def test_the_chosen_tokens_are_those_of_the_formula(cpu) -> None:
    """KL-Cov's tokens from verl's batch, worked out here without entropilot: the two of largest covariance."""
    result = cpu.one_update(cpu.model, "entropilot_kl_cov", micro=2)
    logp, advantages = (
        result["data"][name].to_padded_tensor(0.0) for name in ("old_log_probs", "advantages")
    )
    mask = result["data"]["response_mask"].to_padded_tensor(0).bool()
    covariance = (logp - logp[mask].mean()) * (advantages - advantages[mask].mean())
    expected = torch.zeros_like(mask).flatten()
    expected[covariance.masked_fill(~mask, -torch.inf).flatten().topk(2).indices] = True
    assert torch.equal(result["selected"].bool(), expected.view_as(mask))
    assert result["metrics"]["actor/chosen/tokens"] == [2.0]
    assert result["metrics"]["actor/chosen/eligible"] == [68.0]


def test_rows_without_a_signal_are_not_chosen_from(cpu) -> None:
    data = cpu.mini_batch(micro=8)
    rows = [
        values * (row < 4) for row, values in enumerate(data["advantages"].unbind())
    ]  # the second prompt: all equal
    data["advantages"] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    result = cpu.one_update(cpu.model, "entropilot_kl_cov", micro=8, data=data)
    assert result["metrics"]["actor/chosen/eligible"] == [5.0 + 12 + 8 + 10]
    assert not result["selected"][4:].any()


def test_other_losses_are_bit_equal_to_verls_engine(cpu) -> None:
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    ours = cpu.one_update(cpu.model, "vanilla", micro=2)
    theirs = cpu.one_update(cpu.model, "vanilla", micro=2, engine_class=FSDPEngineWithLMHead)
    assert all(
        torch.equal(ours["gradients"][name], theirs["gradients"][name]) for name in theirs["gradients"]
    )


def test_without_our_engine_the_loss_refuses(cpu) -> None:
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    with pytest.raises(
        UserError, match="would be another method; set actor_rollout_ref.actor.strategy to fsdp"
    ):
        cpu.one_update(cpu.model, "entropilot_kl_cov", micro=8, engine_class=FSDPEngineWithLMHead)


def test_rounding_noise_in_a_rollouts_first_update_is_no_penalty(cpu) -> None:
    """While the weights are those of the old log-probs, KL-Cov's gradient is that of the same loss without a penalty."""
    fresh = cpu.one_update(cpu.model, "entropilot_kl_cov", micro=2, stale=False)
    without = cpu.one_update(
        cpu.model, "entropilot_kl_cov", micro=2, stale=False, policy_loss={"ppo_kl_coef": 0.0}
    )
    assert largest_gap(fresh["gradients"], without["gradients"]) == 0
    engine = cpu.new_engine(cpu.model, cpu.actor_config("entropilot_kl_cov"))
    data = cpu.score(engine, cpu.mini_batch(8))
    scored = engine._scored_at
    with engine.train_mode():
        engine.train_batch(data, cpu.ppo_loss_of(cpu.actor_config("entropilot_kl_cov")))
    assert (
        engine._version() != scored and engine._scored_at is None
    )  # the second update's log-probs are stale


def test_kl_cov_refuses_a_single_update_per_rollout(cpu) -> None:
    from verl.utils import tensordict_utils as tu

    config = cpu.actor_config("entropilot_kl_cov", micro=8)
    engine = cpu.new_engine(cpu.model, config)
    data = cpu.score(engine, cpu.mini_batch(8))
    tu.assign_non_tensor(data, update_lr_scheduler=True)  # verl's mark on the last mini-batch of a rollout
    with engine.train_mode(), pytest.raises(UserError, match="ppo_mini_batch_size to at most half"):
        engine.train_batch(data, cpu.ppo_loss_of(config))


def test_draws_go_on_where_a_resumed_optimiser_stands(cpu) -> None:
    engine = cpu.new_engine(cpu.model, cpu.actor_config("entropilot_clip_cov"))
    assert engine._updates() == 0
    data = cpu.score(engine, cpu.mini_batch(8))
    with engine.train_mode():
        engine.train_batch(data, cpu.ppo_loss_of(cpu.actor_config("entropilot_clip_cov")))
    assert engine._updates() == 1
