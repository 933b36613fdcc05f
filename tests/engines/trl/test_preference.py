"""PPL on TRL: the loss by hand, its gradient, who wrote what, no reference, and a run."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from preference_helpers import F64, batch_of, make, rows, update, without
from trl import DPOConfig, DPOTrainer
from trl_helpers import distance, parameters, tiny_model

import entropilot
from entropilot.engines.trl.preference import DPO_ONLY, TRL_BETA, PPLTrainer
from entropilot.methods.cpl import CPL
from entropilot.methods.ppl import PPL
from entropilot.sandbox.tokenizer import build_tokenizer

# --- the formula, by hand ------------------------------------------------------------------------------------

T4 = [-1.0, -0.5, -2.0, -0.3]
REJECTED = [-0.7, -1.2]
NAN = math.nan
HAND = PPL(alpha=0.5, lam=0.5, gamma=0.9, look_ahead=2, window="sum")


def hand(trainer: Any, author: Any) -> tuple[float, dict[str, float]]:
    """Return loss and metrics of a pair in float64: prompts of 2 and 1 tokens, completions T4 and REJECTED, padding.

    The log-probs of TRL's head begin with the second token, so T4 lies in columns 1..4 and REJECTED in 0..1.
    """
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0]])
    logp = torch.zeros(2, 5, dtype=F64)
    logp[0, 1:], logp[1, :2] = torch.tensor(T4, dtype=F64), torch.tensor(REJECTED, dtype=F64)
    inputs = {
        "input_ids": torch.ones(2, 6, dtype=torch.long),
        "attention_mask": mask,
        "completion_mask": mask,
    }
    if author is not None:
        padded = torch.full((2, 6), NAN, dtype=F64)
        padded[0, 2:], padded[1, 1:3] = torch.tensor(author[0], dtype=F64), torch.tensor(author[1], dtype=F64)
        inputs["author_logp"] = padded

    def model(**_: Any) -> Any:
        ones = torch.ones(2, 5)
        return SimpleNamespace(
            log_probs=logp, entropy=ones, mean_logits=ones, is_top1=ones.bool(), aux_loss=torch.tensor(3.0)
        )

    trainer._metrics["train"].clear()
    trainer.model.train()
    loss = trainer.compute_loss(model, inputs)
    return loss.item(), {name: values[-1] for name, values in trainer._metrics["train"].items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A trainer that the tests by hand borrow."""
    return make(tmp_path_factory.mktemp("plain"), method=HAND)


# 1 + w_u at γ = 0.9, L = 2: 1, 1.9, 2.71, 2.71. T4: S⁺ = −1 − 0.95 − 5.42 − 0.813 = −8.183.
# REJECTED: S⁻ = −0.7 − 1.9·1.2 = −2.98.
# Authors: −Σ w_u·log π_b = 0.9·0.9 + 1.71·1.1 + 1.71·0.2 = 3.033, and 0.9·1.5 = 1.35.
BY_HAND = [
    (None, -8.183, -2.98, 0.0),
    (([NAN] * 4, [NAN] * 2), -8.183, -2.98, 0.0),
    (([-0.4, -0.9, -1.1, -0.2], [-0.6, -1.5]), -8.183 + 3.033, -2.98 + 1.35, 1.0),
    # The authors gave no log-prob for their end tokens: 0.9·0.9 + 1.71·1.1 = 2.691, and 0 (w_0 = 0).
    (([-0.4, -0.9, -1.1, NAN], [-0.6, NAN]), -8.183 + 2.691, -2.98, 4 / 6),
]


@pytest.mark.parametrize(("author", "chosen", "rejected", "share"), BY_HAND)
def test_the_loss_by_hand(plain, near, author, chosen, rejected, share):
    loss, metrics = hand(plain, author)
    near(loss, math.log1p(math.exp(-0.5 * (chosen - 0.5 * rejected))), "−log σ(α·(S⁺ − λ·S⁻))")
    near(metrics["rewards/chosen"], 0.5 * chosen, "α·S⁺")
    near(metrics["rewards/rejected"], 0.5 * rejected, "α·S⁻")
    near(metrics["rewards/margins"], 0.5 * (chosen - rejected), "the margin knows no λ")
    assert metrics["rewards/accuracies"] == 0.0
    near(metrics["logps/chosen"], sum(T4), "log π of the completion, as DPO logs it")
    near(metrics["logps/rejected"], sum(REJECTED), "the same")
    near(metrics["ppl/labelled_tokens"], share, "tokens with an author's log-prob", rtol=1e-6)
    if share == 1.0:
        # −0.4+1, −0.9+0.5, −1.1+2, −0.2+0.3, −0.6+0.7, −1.5+1.2 → 1.0 / 6
        near(metrics["ppl/kl"], 1.0 / 6, "mean of log π_b − log π_θ", rtol=1e-6)
    else:
        assert ("ppl/kl" in metrics) == (share > 0)


def test_the_balance_loss_of_experts_stays(plain, near):
    alone, _ = hand(plain, None)
    plain.aux_loss_enabled, plain.router_aux_loss_coef = True, 0.5
    try:
        near(hand(plain, None)[0], alone + 0.5 * 3.0, "TRL's term beside ours")
    finally:
        plain.aux_loss_enabled = False


@pytest.mark.filterwarnings("ignore:`return_outputs=True`, and the logits:FutureWarning")
def test_outputs_come_back_where_they_are_asked_for(tmp_path):
    trainer = make(tmp_path)
    loss, outputs = trainer.compute_loss(trainer.model, batch_of(trainer), return_outputs=True)
    assert loss.item() == trainer.compute_loss(trainer.model, batch_of(trainer)).item() > 0.1
    assert outputs.logits.ndim == 3


def test_constant_drop_is_the_dirac_label(plain):
    drop = PPL(alpha=0.5, lam=0.5, gamma=0.9, look_ahead=2, window="sum", constant="drop")
    dirac, _ = hand(plain, None)
    try:
        plain.method = drop
        assert hand(plain, BY_HAND[2][0])[0] == dirac
    finally:
        plain.method = HAND


# --- the gradient of an update -------------------------------------------------------------------------------


def token_logp(model: Any, prompt: str, text: str) -> torch.Tensor:
    """Return log π of a completion's tokens, seen alone and so without padding."""
    tokenizer = build_tokenizer()
    head, tail = (
        tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, text + "<|end|>")
    )
    logits = model(input_ids=torch.tensor([head + tail])).logits[0, len(head) - 1 : -1]
    return logits.double().log_softmax(-1)[torch.arange(len(tail)), torch.tensor(tail)]


def double_sum(logp: torch.Tensor, author: list[float] | None, reach: int, gamma: float) -> torch.Tensor:
    """The score as it is written, step by step: Σ_t {log π_t − Σ_l γ^l·(log π_b − log π)_{t+l}}, 0 for an unknown π_b."""
    score, steps = torch.zeros((), dtype=F64), len(logp)
    for t in range(steps):
        score = score + logp[t]
        for ahead in range(1, min(reach, steps - 1 - t) + 1):
            known = 0.0 if author is None else author[t + ahead]
            score = score - gamma**ahead * (known - logp[t + ahead])
    return score


@pytest.mark.parametrize("labelled", [0, 3, 4])
def test_an_update_is_the_formula_with_padding_and_several_lengths(tmp_path, labelled):
    model, twin = tiny_model(), tiny_model()
    trainer, gradient = update(tmp_path, rows(labelled), model=model, method=HAND)
    loss = torch.zeros((), dtype=F64)
    for row in rows(labelled):
        plus = double_sum(token_logp(twin, row["prompt"], row["chosen"]), row["chosen_logp"], 2, 0.9)
        minus = double_sum(token_logp(twin, row["prompt"], row["rejected"]), row["rejected_logp"], 2, 0.9)
        loss = loss + torch.nn.functional.softplus(-0.5 * (plus - 0.5 * minus)) / 4
    expected = torch.autograd.grad(loss, list(twin.parameters()))
    assert distance(gradient, torch.cat([g.flatten() for g in expected]).double()) < 2e-5
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    share = {0: 0.0, 3: 26 / 36, 4: 1.0}[labelled]
    assert trainer.state.log_history[0]["ppl/labelled_tokens"] == pytest.approx(share, abs=1e-6)


def test_without_look_ahead_ppl_is_cpl_to_the_bit(tmp_path):
    _, ppl = update(tmp_path, method=PPL(alpha=0.2, lam=1.0, look_ahead=0))
    _, cpl = update(tmp_path, method=CPL(alpha=0.2, lam=1.0))
    _, other = update(tmp_path, method=PPL(alpha=0.2, lam=1.0, look_ahead=1))
    assert torch.equal(ppl, cpl) and not torch.equal(ppl, other)


def test_authors_change_the_update_and_unknown_ones_do_not(tmp_path):
    _, with_authors = update(tmp_path, rows(4))
    _, none_known = update(tmp_path, rows(0))
    _, no_columns = update(tmp_path, without(rows(4)))
    assert torch.equal(none_known, no_columns)
    assert distance(with_authors, no_columns) > 0.01


def test_accumulated_micro_batches_are_the_whole_batch(tmp_path):
    _, whole = update(tmp_path)
    _, cut = update(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert distance(cut, whole) < 1e-5


# --- the seam ------------------------------------------------------------------------------------------------


def counted(monkeypatch, model: Any) -> list[dict[str, Any]]:
    """Return a list that grows with every forward pass through the model's backbone."""
    calls: list[dict[str, Any]] = []
    model.base_model.register_forward_pre_hook(lambda *_: calls.append({}))
    return calls


def test_there_is_no_reference_and_one_pass_per_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", lambda *_: pytest.fail("a reference pass"))
    model = tiny_model()
    calls = counted(monkeypatch, model)
    trainer = make(tmp_path, model=model, max_steps=3, eval_dataset=Dataset.from_list(rows()))
    assert trainer.ref_model is None and calls == []
    assert trainer.precompute_ref_logps is False, (
        "else TRL refuses new data after a step, for want of a reference"
    )
    trainer.train()
    assert len(calls) == 3
    trainer.evaluate()
    assert len(calls) == 4


def test_trl_reads_what_we_hand_it(tmp_path):
    """With a reference of 0 and its own weight, TRL's loss on our inputs is CPL's at λ = 1."""
    trainer = make(tmp_path, method=CPL(alpha=0.3, lam=1.0))
    batch = batch_of(trainer)
    zeros = {"ref_chosen_logps": torch.zeros(4), "ref_rejected_logps": torch.zeros(4)}
    ours = trainer.compute_loss(trainer.model, batch)
    trainer.loss_weights, trainer.precompute_ref_logps = [1.0], True
    theirs = DPOTrainer.compute_loss(trainer, trainer.model, batch | zeros)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6) and ours.item() > 0.01
    trainer.loss_weights = [0.0]
    assert DPOTrainer.compute_loss(trainer, trainer.model, batch | zeros).item() == 0.0


def test_the_names_of_trl_that_we_lean_on(tmp_path):
    fresh = DPOConfig(output_dir=str(tmp_path), bf16=False)
    assert {name: getattr(fresh, name) for name in DPO_ONLY} == DPO_ONLY
    assert fresh.beta == TRL_BETA
    for name, expected in {
        "compute_loss": ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
        "_prepare_dataset": ["self", "dataset", "processing_class", "args", "dataset_name"],
        "_precompute_ref_logps": ["self", "dataset", "name", "batch_size"],
        "_set_signature_columns_if_needed": ["self"],
    }.items():
        assert list(inspect.signature(getattr(DPOTrainer, name)).parameters) == expected


def test_what_is_logged_is_what_dpo_logs_and_the_labels(tmp_path):
    trainers = [update(tmp_path, without(rows()), cls=DPOTrainer, precompute_ref_log_probs=True)[0]]
    trainers += [update(tmp_path)[0], update(tmp_path, method=CPL())[0]]
    dpo, ppl, cpl = (set(trainer.state.log_history[0]) for trainer in trainers)
    assert ppl == dpo | {"ppl/labelled_tokens", "ppl/kl"}
    assert cpl == dpo


def test_a_data_set_can_be_measured_after_training(tmp_path):
    trainer, _ = update(tmp_path)
    before = parameters(trainer)
    found = trainer.evaluate(Dataset.from_list(rows(4)))
    assert found["eval_ppl/labelled_tokens"] == 1.0
    assert found["eval_loss"] == pytest.approx(trainer.evaluate(trainer.train_dataset)["eval_loss"], rel=0.5)
    assert torch.equal(parameters(trainer), before)


def test_the_users_settings_are_not_touched(tmp_path):
    args = DPOConfig(output_dir=str(tmp_path), bf16=False, report_to="none", use_cpu=True)
    before = args.to_dict()
    data = Dataset.from_list(rows())
    trainer = PPLTrainer(tiny_model(), args, train_dataset=data, processing_class=build_tokenizer())
    assert args.to_dict() == before and trainer.method == PPL()
    assert data.column_names == list(rows()[0])


# --- runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [0, 4])
def test_three_steps_move_the_policy_towards_the_chosen(tmp_path, labelled):
    trainer = make(tmp_path, rows(labelled), max_steps=3, save_strategy="steps", save_steps=3)
    before = trainer.evaluate(Dataset.from_list(rows(labelled)))
    trainer.train()
    after = trainer.evaluate(Dataset.from_list(rows(labelled)))
    for name, least in (("rewards/margins", 0.5), ("logps/chosen", 3.0)):
        assert after[f"eval_{name}"] - before[f"eval_{name}"] > least, name
    assert after["eval_loss"] < before["eval_loss"] - 0.1
    card = (tmp_path / "README.md").read_text()
    assert "PPL" in card and "2305.18290" not in card, "the card names the method, not DPO's paper"


def test_lora_trains_its_adapters_in_one_pass(tmp_path, monkeypatch):
    from peft import LoraConfig

    model = tiny_model()
    calls = counted(monkeypatch, model)
    trainer = make(tmp_path, model=model, peft_config=LoraConfig(r=2, task_type="CAUSAL_LM"), max_steps=2)
    assert trainer.ref_model is None
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert len(calls) == 2
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all("lora_" in name for name in moved)


def test_the_public_name():
    assert entropilot.PPLTrainer is PPLTrainer


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning")
def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    page = Path(__file__).parents[3] / "docs" / "how-to" / "preferences.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(code, str(page), "exec"), found)
    logged = found["trainer"].state.log_history
    assert logged[-1]["step"] == 3 and (tmp_path / "out").is_dir()
