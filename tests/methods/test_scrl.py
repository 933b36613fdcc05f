"""SCRL: every branch by hand on groups of eight, in both modes, and inside a training."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest

from entropilot.errors import UserError
from entropilot.methods.scrl import SCRL
from entropilot.rewards.groups import GroupReward
from entropilot.rewards.named import build_reward

# Five of a, two of b, one of c: shares 0.625, 0.25, 0.125. Entropies: a 0.2 each, b 0.5 and 0.7, c 0.9; mean
# (5·0.2 + 0.5 + 0.7 + 0.9)/8 = 3.1/8 = 0.3875.
GROUP = [0, 0, 0, 0, 0, 1, 1, 2]
HERE = [False] * 8
ENTROPY = [0.2] * 5 + [0.5, 0.7, 0.9]


def test_a_clear_vote_labels_and_a_rare_unsure_answer_is_negative() -> None:
    assert SCRL().labels(GROUP, HERE, ENTROPY) == (0, [2])
    assert SCRL().rewards(GROUP, HERE, ENTROPY) == [1.0] * 5 + [0.0, 0.0, -1.0]


def test_continuous_rewards_by_hand() -> None:
    found = SCRL(mode="continuous", a_plus=2.0, a_minus=3.0, entropy_coef=0.1).rewards(GROUP, HERE, ENTROPY)
    # a: 2·0.625 − 0.1·(0.2 − 0.3875); b: −0.1·(0.6 − 0.3875); c: −3·(0.15 − 0.125) − 0.1·(0.9 − 0.3875)
    expected = [1.25 + 0.01875] * 5 + [-0.02125] * 2 + [-0.075 - 0.05125]
    assert found == pytest.approx(expected, rel=1e-9)
    # Without entropies there is neither a negative nor the term.
    assert SCRL(mode="continuous").rewards(GROUP, HERE) == [0.625] * 5 + [0.0] * 3


def test_binary_rewards_take_both_scales() -> None:
    assert SCRL(a_plus=2.0, a_minus=0.5).rewards(GROUP, HERE, ENTROPY) == [2.0] * 5 + [0.0, 0.0, -0.5]


@pytest.mark.parametrize(
    ("labels", "positive", "why"),
    [
        ([0, 0, 0, 0, 1, 2, 3, 4], 0, "exactly τ_pos: 0.5 ≥ 0.5, margin 0.375"),
        ([0, 0, 0, 1, 2, 3, 4, 5], None, "0.375 lies below τ_pos"),
        ([0, 0, 0, 0, 1, 1, 1, 2], None, "the margin 0.125 does not exceed 0.15"),
        ([1, 1, 1, 1, 0, 0, 0, 0], None, "two equal ones have no margin"),
        ([0] * 8, 0, "the only answer"),
    ],
)
def test_when_there_is_a_positive_label(labels: list[int], positive: int | None, why: str) -> None:
    assert SCRL().labels(labels, HERE)[0] == positive, why


def test_a_margin_of_exactly_the_threshold_is_not_enough() -> None:
    # Shares 0.5 and 0.25: the margin is 0.25, exact in binary.
    labels = [0, 0, 0, 0, 1, 1, 2, 3]
    assert SCRL(tau_marg=0.25).labels(labels, HERE)[0] is None
    assert SCRL(tau_marg=0.2499).labels(labels, HERE)[0] == 0


def test_no_answer_is_never_a_label_and_costs_one() -> None:
    labels, missing = [0, 0, 1, 2, 3, 4, 5, 6], [False, False] + [True] * 6
    # a holds 2 of 8: missing ones count in G, so it is the only answer and still below τ_pos.
    assert SCRL().labels(labels, missing, [0.1] * 8) == (None, [])
    assert SCRL(tau_pos=0.25).labels(labels, missing, [0.1] * 8) == (0, [])
    assert SCRL(tau_pos=0.25).rewards(labels, missing, [0.1] * 8) == [1.0, 1.0] + [-1.0] * 6
    assert SCRL(mode="continuous").rewards(labels, missing, [0.1] * 8)[2:] == [-1.0] * 6
    assert SCRL().rewards(list(range(8)), [True] * 8, [0.1] * 8) == [-1.0] * 8


def test_a_rare_answer_is_negative_only_where_it_is_unsure() -> None:
    sure = [0.5] * 7 + [0.1]  # c is surer than the mean
    assert SCRL().labels(GROUP, HERE, sure) == (0, [])
    same = [0.5] * 8  # as unsure as the mean: H ≥ H̄ holds
    assert SCRL().labels(GROUP, HERE, same) == (0, [2])
    assert SCRL(tau_low=0.125).labels(GROUP, HERE, ENTROPY) == (0, []), (
        "the paper's τ_low, with eight samples"
    )
    assert SCRL(tau_low=0.3).labels(GROUP, HERE, ENTROPY) == (0, [1, 2])


def test_the_papers_thresholds_on_sixteen_votes() -> None:
    """Shares 7, 4, 2, 1, 1, 1 of 16: by the paper a is a label, and c, at exactly τ_low, is none; not so by the code."""
    labels, here = [0] * 7 + [1] * 4 + [2] * 2 + [3, 4, 5], [False] * 16
    unsure = [0.1] * 11 + [0.9] * 5
    assert SCRL(tau_pos=0.375, tau_marg=0.125, tau_low=0.125).labels(labels, here, unsure) == (0, [3, 4, 5])
    assert SCRL().labels(labels, here, unsure) == (None, [2, 3, 4, 5])


def test_negatives_do_not_need_a_positive() -> None:
    labels = [0, 0, 0, 1, 1, 1, 2, 3]
    assert SCRL().labels(labels, HERE, [0.1] * 6 + [0.9, 0.05]) == (None, [2])


@pytest.mark.parametrize("settings", [{"tau_pos": 50.0}, {"tau_marg": 1.5}, {"tau_low": -0.1}])
def test_settings_that_cannot_be(settings: dict[str, float]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(UserError, match=f"{name} = {value} is no share"):
        SCRL(**settings)


def test_an_unknown_mode_is_refused_in_a_recipe() -> None:
    with pytest.raises(UserError, match="mode"):
        build_reward("scrl", None, {"mode": "soft"})


def test_a_plain_trainer_hands_over_no_entropies_and_that_is_said_once(caplog: Any) -> None:
    reward = GroupReward(SCRL(), judge="exact", extract="whole", name="scrl_exact", num_generations=8)
    texts = list("aaaaabbc")
    with caplog.at_level(logging.WARNING, logger="entropilot"):
        for _ in range(2):
            assert reward(prompts=["p"] * 8, completions=texts) == [1.0] * 5 + [0.0] * 3
    assert [r.getMessage() for r in caplog.records] == [
        "scrl_exact gets no token entropies from this trainer, so it labels positives only; train with EntropyGRPOTrainer "
        "for its negatives."
    ]
    assert reward(prompts=["p"] * 8, completions=texts, mean_entropy=ENTROPY) == [1.0] * 5 + [0.0, 0.0, -1.0]


needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs the extra train")


@needs_trl
@pytest.mark.parametrize("on_policy", [False, True])
def test_the_trainer_hands_over_the_mean_entropy_of_each_completion(tmp_path: Path, on_policy: bool) -> None:
    import torch
    from trl_helpers import Recorded, make_trainer

    given: list[list[float]] = []
    texts: list[list[str]] = []

    class Spy(GroupReward):
        def __call__(self, *args: Any, **kwargs: Any) -> list[float | None]:
            given.append(kwargs["mean_entropy"])
            texts.append(kwargs["completions"])
            return super().__call__(*args, **kwargs)

    reward = Spy(SCRL(), judge="exact", extract=lambda text: str(len(text) % 3), name="scrl")
    trainer = make_trainer(
        tmp_path, recorded=Recorded(10), reward=reward,
        settings={"max_steps": 1, "gradient_accumulation_steps": 4 if on_policy else 1},
    )  # fmt: skip
    prompts = [row["prompt"] for row in next(iter(trainer.get_train_dataloader()))]
    ids, _ = Recorded(10).rows(0, 16)
    with torch.no_grad():
        expected = []
        for prompt, completion in zip(prompts, ids, strict=True):  # row by row, without padding
            before = trainer.processing_class(prompt, add_special_tokens=False)["input_ids"]
            logits = (
                trainer.model(torch.tensor([before + completion])).logits[0, len(before) - 1 : -1].double()
            )
            logp = logits.log_softmax(-1)
            expected.append(-(logp.exp() * logp).sum(-1).mean().item())
    trainer.train()
    assert given[0] == pytest.approx(expected, rel=1e-4)
    assert len(set(map(len, texts[0]))) > 2, "completions of different lengths, so that padding is at work"
