"""Scope rollout: however a rollout of 64 rows is cut into passes, the same tokens, the same loss, the same gradient.

The completions are recorded. With num_iterations = 2 one rollout is used for two updates, each over all of it: the
first with log-ratio 0, the second off-policy, where the penalty acts. In TRL's float32, its fused head included. Only
vespo, which weighs a row by a power of the product of all its ratios, magnifies rounding up to 1.2e-6 and is run in
float64 from full logits. bnpo is left out: its weights depend on the cut by definition.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest
from torch import Tensor
from trl import GRPOTrainer
from trl_helpers import LOSS_TYPES, Gradients, Recorded, Spied, chosen_of, distance, make_trainer, tiny_model

from entropilot.methods import ClipCov, KLCov
from entropilot.methods.entrocraft import Entrocraft
from entropilot.methods.entropy_target import EntropyTarget
from entropilot.methods.qae import QAE
from entropilot.methods.repo import REPO
from entropilot.methods.stare import STARE
from entropilot.methods.w_reinforce import WReinforce

ROWS, CUTS = 64, (64, 16, 4, 1)
TOLERANCE = 1e-6  # global relative L2
EXACT = ("vespo",)
METHODS = {
    "KL-Cov": KLCov(fraction=0.03),
    "Clip-Cov": ClipCov(fraction=0.03, cov_low=0.1, cov_high=6.0),  # more candidates than its quota: it draws
    "KL-Cov, restrain": KLCov(restrain=0.9),
    "Clip-Cov, restrain": ClipCov(restrain=0.9),
    "STARE": STARE(fraction=0.2, two_sided=True, weight_up=3.0, weight_down=0.2, target=None),
    "entropy on target, REPO, STARE": [EntropyTarget(target="1.1×start"), REPO(zeta=0.05), STARE()],
    # These change advantages and choose no tokens; what is chosen goes by what they made of them.
    "QAE, Clip-Cov": [QAE(), ClipCov(restrain=0.9)],
    "W-REINFORCE, KL-Cov": [WReinforce(), KLCov(fraction=0.03)],
    "Entrocraft, Clip-Cov": [Entrocraft(low=1.0, high=2.0), ClipCov(restrain=0.9)],
}
QUICK = {
    ("grpo", "Clip-Cov"),
    ("grpo", "entropy on target, REPO, STARE"),
}  # the others in `make test-distributed`
# Small passes are many, up to 64 an update: every loss and every method once, and every pair of them in four passes.
ALL_CUTS = {(loss, "KL-Cov") for loss in LOSS_TYPES} | {("dapo", method) for method in METHODS}
CASES = [
    pytest.param(loss, name, marks=() if (loss, name) in QUICK else pytest.mark.trajectory)
    for loss in LOSS_TYPES
    if loss != "bnpo"
    for name in METHODS
]


def plain_scores(
    self: Any, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *_: Any, **__: Any
) -> tuple[Tensor, Tensor, None]:
    """Return (logp, entropy, None) as TRL's wrapper does, from full logits in the model's own precision."""
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
    table = logits[:, -logits_to_keep - 1 : -1].log_softmax(-1)
    logp = table.gather(2, input_ids[:, -logits_to_keep:].unsqueeze(2)).squeeze(2)
    return logp, -(table.exp() * table).sum(-1), None


def train(out, loss_type: str, method: Any, size: int) -> dict[str, Any]:
    gradients = Gradients()
    model = tiny_model().double() if loss_type in EXACT else tiny_model()
    passes = ROWS // size
    trainer = make_trainer(
        out,
        cls=Spied,
        model=model,
        recorded=Recorded(12, seed=1, group=8),
        method=method,
        callbacks=[gradients],
        settings={
            "per_device_train_batch_size": size,
            "steps_per_generation": passes,
            "gradient_accumulation_steps": passes,
            "num_iterations": 2,
            "max_steps": 2,
            "num_generations": 8,
            "loss_type": loss_type,
            "gradient_checkpointing": False,  # a third of the time, and the same numbers
            "optim": "sgd",
            "learning_rate": 0.02 if loss_type in ("luspo", "vespo") else 0.1,
        },
    )
    trainer.train()
    losses = [sum(seen["loss"].item() for seen in trainer.passes if seen["update"] == u) for u in (0, 1)]
    return {"chosen": chosen_of(trainer.passes), "losses": losses, "gradients": gradients.updates}


@pytest.mark.parametrize(("loss_type", "method"), CASES)
def test_a_rollout_is_the_same_however_it_is_cut(tmp_path, monkeypatch, loss_type, method, record_property):
    if loss_type in EXACT:
        # `score` reads the parameters' names, so the replacement carries TRL's signature.
        plain = wraps(GRPOTrainer._get_per_token_logps_and_entropies)(plain_scores)
        monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", plain)
    whole = train(tmp_path, loss_type, METHODS[method], CUTS[0])
    assert len(whole["chosen"]) >= 6, "too few tokens are chosen to tell anything"
    worst = 0.0
    for size in CUTS[1:] if (loss_type, method) in ALL_CUTS else CUTS[1:2]:
        cut = train(tmp_path, loss_type, METHODS[method], size)
        assert cut["chosen"] == whole["chosen"], (
            f"passes of {size} rows choose other tokens than one of {ROWS}"
        )
        # A loss is a sum of terms of either sign, each of them up to 5.
        assert cut["losses"] == pytest.approx(whole["losses"], rel=1e-6, abs=1e-6)
        apart = [distance(a, b) for a, b in zip(cut["gradients"], whole["gradients"], strict=True)]
        assert max(apart) <= TOLERANCE, (
            f"passes of {size} rows: the gradients of the updates are {apart} apart"
        )
        worst = max(worst, *apart)
    record_property("worst", worst)
