"""The answer mask: the gradient by hand, the denominator, and a training in which only the reasoning moves."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from entropilot.errors import UserError
from entropilot.maths.tokens import TokenBatch, reduce_tokens
from entropilot.methods import AnswerMask
from entropilot.methods.empo import EMPO
from entropilot.methods.policy_loss import policy_loss
from entropilot.rewards.groups import GroupReward

F64 = torch.float64


def batch(logp: torch.Tensor | None = None, span: Any = ((0, 0, 1), (0, 1, 1))) -> TokenBatch:
    old = torch.tensor([[-1.0, -2.0, -0.5], [-0.3, -1.2, -9.0]], dtype=F64)
    return TokenBatch(
        old_logp=old,
        logp=old.clone() if logp is None else logp,
        advantages=torch.tensor([1.5, -0.5], dtype=F64),
        mask=torch.tensor([[1, 1, 1], [1, 1, 0]]),
        span=None if span is None else torch.tensor(span, dtype=torch.bool),
    )


def test_it_chooses_the_answers_tokens_inside_of_the_mask() -> None:
    chosen = AnswerMask().select(batch(), torch.Generator())
    assert chosen.tolist() == [[False, False, True], [False, True, False]]


def test_the_gradient_by_hand_and_the_denominator_of_all_tokens() -> None:
    logp = torch.tensor([[-1.0, -2.0, -0.5], [-0.3, -1.2, -9.0]], dtype=F64, requires_grad=True)
    tokens, method = batch(logp), AnswerMask()
    steering = method.steer(tokens, method.select(tokens, torch.Generator()))
    ratio = torch.exp(steering.applied(logp) - tokens.old_logp)
    loss = reduce_tokens(-ratio * tokens.advantages, tokens.mask, "sequence_mean")
    # Rows of 3 and 2 tokens: −1.5·(1/3)/2 = −0.25 each, and +0.5·(1/2)/2 = 0.125; the value keeps all five tokens.
    assert loss.item() == pytest.approx((-1.5 + 0.5) / 2, rel=1e-12)
    loss.backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == [[-0.25, -0.25, 0.0], [0.125, 0.0, 0.0]]


def test_it_composes_with_the_loss_of_ones_own_loop() -> None:
    logp = batch().logp.clone().requires_grad_()
    policy_loss(batch(logp), method=AnswerMask()).backward()
    assert logp.grad is not None
    assert logp.grad[0, 2] == 0 and logp.grad[1, 1] == 0 and (logp.grad[0, :2] != 0).all()


def test_an_engine_without_places_is_refused() -> None:
    with pytest.raises(UserError, match="EntropyGRPOTrainer"):
        AnswerMask().select(batch(span=None), torch.Generator())


def test_a_span_of_another_shape_and_rewards_per_token_are_refused() -> None:
    # In the tests jaxtyping's check comes first (TypeCheckError, a TypeError); without it the batch's own does.
    two = torch.zeros(2, 3)
    with pytest.raises((TypeError, ValueError), match="span"):
        batch(span=((1, 1), (1, 1)))
    for name, value in (("rewards", two), ("group", torch.zeros(3, dtype=torch.long))):
        with pytest.raises((TypeError, ValueError), match=name):
            TokenBatch(two, two, two, two, **{name: value})


needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs the extra train")


@needs_trl
def test_in_a_training_the_answers_are_masked_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    from trl_helpers import SELECTED, Recorded, Spied, make_trainer

    from entropilot.recording.probe import Probe

    rows: list[dict[str, Any]] = []
    probe = Probe(on_row=lambda step, row: rows.append(row))
    # The answer is the last but one character of texts of even length; of others it is a word that is nowhere in them.
    extract = lambda text: text[-2:-1] if len(text) % 2 == 0 else "nowhere at all"  # noqa: E731
    reward = GroupReward(EMPO(), judge="exact", extract=extract, name="empo")
    trainer = make_trainer(
        tmp_path, cls=Spied, recorded=Recorded(12), reward=reward, method=AnswerMask(), observer=probe,
        settings={"max_steps": 4},
    )  # fmt: skip
    trainer.train()
    masked = located = tokens = 0
    for seen in trainer.passes:
        for ids, mask, chosen in zip(
            seen["completion_ids"], seen["completion_mask"], seen[SELECTED], strict=True
        ):
            text = trainer.processing_class.decode(ids[mask.bool()], skip_special_tokens=True)
            where = chosen.nonzero().flatten().tolist()
            if len(text) % 2 == 0 and text[-2:-1].strip():
                located += 1
                assert where in (
                    [len(text) - 2],
                    [],
                )  # a character is a token; [] in a group without contrast
            else:
                assert where == []
            masked, tokens = masked + len(where), tokens + int(mask.sum())
    first = rows[0]
    assert located and masked and 0 < first["answer/masked"] < 0.2
    assert 0 < first["answer/unlocated"] < 1
    assert first["chosen/tokens"] <= first["answer/masked"] * tokens + 1e-6
    assert {"answer/masked", "answer/unlocated"} <= set(
        __import__("entropilot.metrics", fromlist=["METRICS"]).METRICS
    )


@needs_trl
def test_what_a_method_may_read_of_a_row(tmp_path: Path) -> None:
    from trl_helpers import Recorded, make_trainer

    from entropilot.methods import KLCov

    class Seen(KLCov):
        def select(self, batch: TokenBatch, generator: torch.Generator) -> torch.Tensor:
            batches.append(batch)
            return super().select(batch, generator)

    batches: list[TokenBatch] = []
    trainer = make_trainer(
        tmp_path, recorded=Recorded(8), method=Seen(fraction=0.04), settings={"max_steps": 1}
    )
    trainer.train()
    (whole,) = batches
    assert whole.span is None, "nobody asked for it"
    assert whole.group is not None and whole.group.tolist() == [i // 4 for i in range(16)]
    assert whole.rewards is not None and whole.rewards.tolist() == Recorded(8).rows(0, 16)[1]


@needs_trl
def test_the_methods_own_rule_of_extraction_goes_before_the_rewards() -> None:
    from entropilot.engines.trl.spans import answer_spans, extraction_of
    from entropilot.sandbox.tokenizer import build_tokenizer

    reward = GroupReward(EMPO(), judge="exact", extract="boxed")
    assert extraction_of(AnswerMask(extract="strict"), [reward]) == ("strict", True)
    assert extraction_of(AnswerMask(extract="whole"), [reward]) == ("whole", False)
    assert extraction_of(AnswerMask(), [len, reward]) == (reward.extract, True)
    own = GroupReward(EMPO(), judge="exact", extract=str.strip)
    assert extraction_of(AnswerMask(), [own]) == (str.strip, False), "a function gets the text as it is"
    assert extraction_of(AnswerMask(), [len]) == ("auto", True)
    tokenizer = build_tokenizer()
    texts = [
        r"so 5 is \boxed{5}",
        "no idea",
        [{"role": "assistant", "content": r"\boxed{12}"}],
        r"x\boxed{7}",
    ]
    spelt = [texts[0], texts[1], r"\boxed{12}", "not what was written"]
    rows = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in spelt]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    span, lost = answer_spans(texts, ids, ids != 0, tokenizer, "boxed")
    assert lost == 1, "the last text is not what its tokens spell"
    assert [row.nonzero().flatten().tolist() for row in span] == [[15], [], [7, 8], []]
    # An example in the prompt that the model copies is no answer of its own: the reward passes over it, and so does this.
    question = texts[0] + ", is it?"
    copied = [question + " no idea", question + r" it is \boxed{7}"]
    rows = [tokenizer(text)["input_ids"] for text in copied]
    ids = torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])
    span, lost = answer_spans(copied, ids, ids != 0, tokenizer, "boxed", [question] * 2)
    assert lost == 0 and not span[0].any()
    assert tokenizer.decode(ids[1][span[1]]) == "7"
