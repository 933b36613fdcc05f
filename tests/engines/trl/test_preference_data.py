"""Authors' log-probs beside TRL's tokens: columns, lengths, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset
from preference_helpers import batch_of, guess, make, rows, update, without

from entropilot.engines.trl.preference_data import accepted_lengths
from entropilot.errors import UserError
from entropilot.methods.cpl import CPL, cpl_kl
from entropilot.methods.ppl import PPL
from entropilot.sandbox.tokenizer import build_tokenizer

NAN = math.nan


# --- columns -------------------------------------------------------------------------------------------------


def repo_rows(ids: bool = False, **columns: Any) -> list[dict[str, Any]]:
    """Return `rows(3)` in the layout of RePO's JSONL."""
    tokenizer, found = build_tokenizer(), rows(3)
    for row in found:
        for side in ("chosen", "rejected"):
            logp = row.pop(f"{side}_logp")
            tokens = tokenizer(row[side] + "<|end|>", add_special_tokens=False)["input_ids"]
            given = {"tokens": tokens if ids else tokenizer.convert_ids_to_tokens(tokens), "logprobs": logp}
            row[f"{side}_logprob_with_token"] = None if logp is None else given
    found[1] |= columns
    return found


@pytest.mark.parametrize("ids", [False, True])
def test_repo_columns_are_ours(tmp_path, ids):
    ours, theirs = (batch_of(make(tmp_path, pairs))["author_logp"] for pairs in (rows(3), repo_rows(ids)))
    assert torch.equal(ours.nan_to_num(9.0), theirs.nan_to_num(9.0))
    assert (~ours.isnan()).sum() == 26


def test_authors_lie_at_their_tokens(tmp_path):
    batch = batch_of(make(tmp_path, rows(3)))
    mask, author = batch["completion_mask"].bool(), batch["author_logp"]
    for row, pair in enumerate(rows(3)):
        for place, side in ((row, "chosen"), (row + 4, "rejected")):
            found = author[place, mask[place]]
            if pair[f"{side}_logp"] is None:
                assert found.isnan().all()
            else:
                assert found.tolist() == pytest.approx(pair[f"{side}_logp"], rel=1e-6)
    assert author[~mask].isnan().all()


def test_cut_completions_keep_their_own_authors(tmp_path):
    """Row 1 is "40-7=" with "17;#7!" and an end token: of its 12 tokens TRL keeps 8."""
    batch = batch_of(make(tmp_path, rows(4), max_length=8))
    found = batch["author_logp"][5][batch["completion_mask"][5].bool()]
    assert found.tolist() == pytest.approx(guess("17;#7!", 0.3)[:3], rel=1e-6)


def test_the_end_token_may_be_left_out(tmp_path):
    pairs = rows(4, chosen_logp=guess("#3")[:-1])
    author = batch_of(make(tmp_path, pairs))["author_logp"][1]
    assert (~author.isnan()).sum() == 2
    _, short = update(tmp_path, pairs)
    _, zero = update(tmp_path, rows(4, chosen_logp=[*guess("#3")[:-1], 0.0]))
    assert torch.equal(short, zero), "an end token without a label is a Dirac, log π_b = 0"


def test_a_chat_template_may_add_a_blank_behind_the_end():
    tokenizer = build_tokenizer()
    ids = tokenizer("ab<|end|>\n", add_special_tokens=False)["input_ids"]
    special = frozenset(tokenizer.all_special_ids)
    assert accepted_lengths(ids, special, tokenizer.decode) == [2, 3, 4]
    assert accepted_lengths(ids[:3], special, tokenizer.decode) == [2, 3]
    assert accepted_lengths([*ids, ids[0]], special, tokenizer.decode) == [5], "text behind an end token"
    assert accepted_lengths(ids[:2], special, tokenizer.decode) == [2], "no end token"
    inside = tokenizer("a<|user|>b<|end|>", add_special_tokens=False)["input_ids"]
    assert accepted_lengths(inside, special, tokenizer.decode) == [3, 4], "the last special token ends it"


def test_a_conversation_is_aligned(tmp_path):
    turns = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
            **{name: row[name] for name in ("chosen_logp", "rejected_logp")},
        }
        for row in rows(4)
    ]
    author = batch_of(make(tmp_path, turns))["author_logp"]
    assert (~author.isnan()).sum() == 36
    turns[2]["rejected_logp"] = turns[2]["rejected_logp"] + [-0.1]
    with pytest.raises(UserError, match=r"row 2: rejected_logp has 4 log-probs, .* takes 2 or 3"):
        make(tmp_path, turns)


# --- what is refused -----------------------------------------------------------------------------------------

GIVEN = {"tokens": ["#", "3"], "logprobs": [-0.1, -0.2]}
BAD = [
    (
        {"chosen_logp": guess("#3") + [-0.1]},
        "row 1: chosen_logp has 4 log-probs, the completion .* takes 2 or 3",
    ),
    ({"chosen_logp": guess("#3")[:-2]}, "row 1: chosen_logp has 1 log-probs"),
    ({"rejected_logp": []}, "row 1: rejected_logp has 0 log-probs, .* takes 6 or 7"),
    (
        {"chosen_logp": [-0.1, NAN, -0.2]},
        "row 1: log-prob 1 of chosen_logp is nan; it must be finite and at most 0",
    ),
    ({"chosen_logp": [-0.1, -math.inf, -0.2]}, "row 1: log-prob 1 of chosen_logp is -inf"),
    ({"rejected_logp": [0.3] * 7}, "row 1: log-prob 0 of rejected_logp is 0.3"),
    ({"chosen_logp": [-0.1, None, -0.2]}, "row 1: chosen_logp is no list of numbers"),
    ({"chosen_logp": None}, "row 1: chosen_logp is missing and rejected_logp is not"),
    ({"rejected_logp": None}, "row 1: rejected_logp is missing and chosen_logp is not"),
]
BAD_REPO = [
    (
        {"chosen_logprob_with_token": {"tokens": ["#"], "logprobs": [-0.1, -0.2]}},
        "with two lists of one length",
    ),
    ({"chosen_logprob_with_token": {"tokens": ["#", "3"], "logprobs": None}}, "with two lists of one length"),
    (
        {"chosen_logprob_with_token": {"tokens": ["#"], "logprobs": [-0.1]}},
        "has 1 log-probs, .* takes 2 or 3",
    ),
    ({"chosen_logprob_with_token": None}, "row 1: chosen_logprob_with_token is missing"),
    ({"chosen_logprob_with_token": GIVEN | {"logprobs": [-0.1, 0.2]}}, "log-prob 1 of .* is 0.2"),
]


@pytest.mark.parametrize(("columns", "message"), BAD)
def test_log_probs_that_do_not_fit(tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        make(tmp_path, rows(4, **columns))


@pytest.mark.parametrize(("columns", "message"), BAD_REPO)
def test_repo_columns_that_do_not_fit(tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        make(tmp_path, repo_rows(**columns))


def test_repo_token_ids_are_compared(tmp_path):
    pairs = repo_rows(ids=True)
    pairs[2]["rejected_logprob_with_token"]["tokens"][1] += 1
    with pytest.raises(
        UserError, match=r"rows 2\); row 2: token 1 of rejected_logprob_with_token has the id"
    ):
        make(tmp_path, pairs)


def test_repo_columns_of_another_kind(tmp_path):
    pairs = [row | {name: 1.0 for name in row if "logprob" in name} for row in repo_rows()]
    with pytest.raises(UserError, match="4 of 4 rows .* is no {"):
        make(tmp_path, pairs)


def test_all_bad_rows_are_named_by_their_place_in_the_data(tmp_path):
    """Row 0 is left out by TRL, because its prompt fills max_length; the others keep their numbers."""
    pairs = rows(4)
    pairs[0]["prompt"] = "1" * 20
    pairs[1]["chosen_logp"] = pairs[3]["chosen_logp"] = [-0.1] * 9
    with pytest.raises(UserError, match=r"2 of 3 rows of the train data set .* \(rows 1, 3\); row 1: "):
        make(tmp_path, pairs, max_length=20)
    with pytest.raises(UserError, match="of the eval data set"):
        make(tmp_path, eval_dataset=Dataset.from_list(pairs))


def test_rounding_above_zero_is_no_mistake(tmp_path):
    make(tmp_path, rows(4, chosen_logp=[-0.1, 1e-6, -0.2]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("rejected_logp",), "has chosen_logp but not rejected_logp"),
        (("chosen_logp",), "has rejected_logp but not chosen_logp"),
    ],
)
def test_half_of_a_pair_of_columns(tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        make(tmp_path, Dataset.from_list(rows()).remove_columns(list(columns)))


def test_both_pairs_of_columns(tmp_path):
    both = [one | other for one, other in zip(rows(), repo_rows(), strict=True)]
    with pytest.raises(UserError, match="chosen_logp and chosen_logprob_with_token; remove one"):
        make(tmp_path, both)


def test_a_stream_has_no_authors_to_check(tmp_path):
    stream = IterableDataset.from_generator(lambda: iter(rows(4)))
    with pytest.raises(UserError, match="is a stream, whose chosen_logp can't be checked"):
        make(tmp_path, stream)
    trainer = make(tmp_path, IterableDataset.from_generator(lambda: iter(without(rows()))))
    trainer.train()
    assert trainer.state.log_history[0]["ppl/labelled_tokens"] == 0.0


def test_cpl_reads_no_authors(tmp_path):
    make(tmp_path, rows(4, chosen_logp=[0.5]), method=CPL())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": ["ipo"]}, r"loss_type=\['ipo'\] is a setting of DPO's loss"),
        ({"label_smoothing": 0.1}, "label_smoothing=0.1 .* leave it at 0.0"),
        ({"ld_alpha": 0.5}, "ld_alpha=0.5"),
        ({"use_weighting": True}, "use_weighting=True"),
        ({"precompute_ref_log_probs": True}, "precompute_ref_log_probs=True"),
        ({"beta": 0.5}, r"beta=0.5 is DPO's; PPL has its own factor, so set method=PPL\(alpha=0.5\)"),
        ({"method": cpl_kl()}, "PPLTrainer keeps no reference model, with which CPL-KL"),
        ({"method": "ppl"}, "method='ppl' is no loss of segments"),
        ({"ref_model": object()}, "PPL has no reference model; remove ref_model"),
    ],
)
def test_settings_that_would_do_nothing(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        make(tmp_path, **settings)


def test_beta_may_say_what_alpha_says(tmp_path):
    make(tmp_path, beta=0.5, method=PPL(alpha=0.5))


@pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode is deprecated:FutureWarning")
def test_a_beginning_that_is_cut_is_refused(tmp_path):
    with pytest.raises(UserError, match="truncation_mode='keep_end' cuts a segment at its beginning"):
        make(tmp_path, truncation_mode="keep_end")


def test_images_are_refused(tmp_path):
    with pytest.raises(UserError, match="images"):
        make(tmp_path, [row | {"images": []} for row in rows()])
