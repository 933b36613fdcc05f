"""Characters to tokens on three kinds of tokenizer: characters, byte-level BPE, SentencePiece style with bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from entropilot.inputs.token_spans import tokens_of
from entropilot.sandbox.tokenizer import build_tokenizer

CORPUS = ["the answer is 42, so the answer is 42", "answer 1234 answer", "die Antwort lautet 42"] * 20


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", clean_up_tokenization_spaces=False
    )


def sentence_piece() -> PreTrainedTokenizerFast:
    """Words begin with ▁, the first one's is taken off when decoding, and unknown characters are spelt in bytes."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "</s>"], show_progress=False)
    trained.train_from_iterator(CORPUS, trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary = dict(model["vocab"])
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    kept = {"unk_token": "<unk>", "eos_token": "</s>", "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **kept)


KINDS = {"characters": build_tokenizer, "byte-level BPE": byte_level, "SentencePiece": sentence_piece}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


def pieces(tokenizer: Any, text: str, wanted: str, end: bool = True) -> tuple[list[str], list[str]]:
    """Return the tokens chosen for the last occurrence of `wanted`, and all tokens."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] * end
    start = text.rfind(wanted)

    def decode(tokens: list[int]) -> str:
        return tokenizer.decode(tokens, skip_special_tokens=True)

    assert decode(ids) == text
    names = tokenizer.convert_ids_to_tokens(ids)
    return [names[i] for i in tokens_of(ids, decode, [(start, start + len(wanted))])], names


@pytest.mark.parametrize(
    "text", ["the answer is 42", "42", "so 42, the answer is 42.", "answer 1234 is 42\nanswer"]
)
def test_a_number_in_plain_text(tokenizer: Any, text: str) -> None:
    chosen, names = pieces(tokenizer, text, "42")
    assert "".join(chosen).replace("Ġ", "").replace("▁", "") == "42"
    assert not {"<|end|>", "</s>"} & set(chosen), "the end token is no part of the answer"
    assert len(chosen) < len(names)


def test_one_character_is_one_token_of_the_sandbox() -> None:
    assert pieces(build_tokenizer(), "3+4=7;#7", "7")[0] == ["7"]


def test_a_character_in_several_bytes_is_overlapped_by_all_of_their_tokens() -> None:
    # 四 is E5 9B 9B: three byte tokens, none of which is a character by itself; so is 二 after it.
    chosen, names = pieces(byte_level(), "is 四二", "四")
    assert names[-7:-1] == ["å", "Ľ", "Ľ", "ä", "º", "Į"] and chosen == ["å", "Ľ", "Ľ"]
    assert pieces(byte_level(), "is 四二", "二")[0] == ["ä", "º", "Į"]
    chosen, names = pieces(sentence_piece(), "is 四二", "四")
    assert names[-7:-1] == ["<0xE5>", "<0x9B>", "<0x9B>", "<0xE4>", "<0xBA>", "<0x8C>"]
    assert chosen == ["<0xE5>", "<0x9B>", "<0x9B>"]
    assert pieces(sentence_piece(), "is 四二三", "二")[0] == ["<0xE4>", "<0xBA>", "<0x8C>"]
    assert pieces(sentence_piece(), "é 四 42", "42")[0] in (["▁42"], ["▁", "42"], ["42"])


def test_a_token_that_only_touches_the_answer_is_chosen_whole() -> None:
    tokenizer = byte_level()
    chosen, names = pieces(tokenizer, "the answer is 42", "swer")
    assert "Ġanswer" in names and chosen == ["Ġanswer"]


def test_special_tokens_within_and_empty_spans_choose_nothing() -> None:
    tokenizer = byte_level()
    ids = [tokenizer.eos_token_id, *tokenizer("42")["input_ids"], tokenizer.eos_token_id]

    def decode(tokens: list[int]) -> str:
        return tokenizer.decode(tokens, skip_special_tokens=True)

    assert tokens_of(ids, decode, []) == [] and tokens_of(ids, decode, [(1, 1)]) == []
    places = tokens_of(ids, decode, [(0, 2)])
    assert places and 0 not in places and len(ids) - 1 not in places


def test_it_asks_for_few_texts_of_a_long_completion() -> None:
    asked: list[int] = []

    def decode(tokens: list[int]) -> str:
        asked.append(len(tokens))
        return "".join(map(chr, tokens))

    text = [97 + i % 26 for i in range(4096)]
    assert tokens_of(text, decode, [(4000, 4003)]) == [4000, 4001, 4002]
    assert len(asked) < 60
