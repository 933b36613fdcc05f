"""Where a raw-text completion stops: the tokens that hold a character, in three kinds of tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402
from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402

from entropilot.inputs.messages import stop_ids  # noqa: E402
from entropilot.recipes.schema import Recipe  # noqa: E402
from entropilot.records import read_run  # noqa: E402
from entropilot.sandbox import weights_of  # noqa: E402


def byte_level() -> PreTrainedTokenizerFast:
    vocabulary = {"<end>": 0, "a": 1, "Ċ": 2, "ĊĊ": 3, "aĊ": 4, "Ġ": 5, ".": 6, ".Ċ": 7}  # Ċ is a line break
    inner = Tokenizer(models.BPE(vocabulary, [("Ċ", "Ċ"), ("a", "Ċ"), (".", "Ċ")]))
    inner.pre_tokenizer, inner.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")


def sentencepiece_style() -> PreTrainedTokenizerFast:
    vocabulary = {"<end>": 0, "▁a": 1, "a": 2, "<0x0A>": 3, "b": 4}
    inner = Tokenizer(models.BPE(vocabulary, [("▁", "a")][:0], byte_fallback=True))
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")


def test_every_token_that_holds_the_character() -> None:
    assert stop_ids(byte_level(), ["\n"]) == {2, 3, 4, 7}
    assert stop_ids(byte_level(), ["\n", "."]) == {2, 3, 4, 6, 7}
    assert stop_ids(sentencepiece_style(), ["\n"]) == {3}
    sandbox = AutoTokenizer.from_pretrained(weights_of("chains"))
    (semicolon,) = stop_ids(sandbox, [";"])
    assert sandbox.decode([semicolon]) == ";" and stop_ids(sandbox, []) == set()


def test_training_and_validation_stop_there(tmp_path: Path) -> None:
    from entropilot.training.stages import train

    path = tmp_path / "p.jsonl"
    rows = [
        {"prompt": f"<|user|>{i}+{i}+1=?<|assistant|>", "answer": str((2 * i + 1) % 10)} for i in range(5)
    ] * 4
    path.write_text("\n".join(json.dumps(row) for row in rows))
    data = {"source": str(path), "template": "none", "stop_strings": [";", "#"]}
    grpo = {
        "max_steps": 1,
        "per_device_train_batch_size": 16,
        "num_generations": 4,
        "max_completion_length": 24,
    }
    recipe = Recipe.model_validate(
        {
            "data": data,
            "reward": "exact",
            "grpo": grpo,
            "probe": {"tokens_every": 1},
            "validate": {"problems": 8, "data": data},
        }
    )
    train(recipe, tmp_path / "run")
    import pyarrow.parquet as pq

    (sample,) = (tmp_path / "run" / "tokens").glob("*.parquet")
    texts = ["".join(tokens) for tokens in pq.read_table(sample)["tokens"].to_pylist()]
    # The base model writes partial results, each ended by ";", then "#" and the answer: none gets past the first.
    assert len(texts) == 16 + 4 * 4  # of training, and of the fixed prompts
    assert all(text.count(";") + text.count("#") <= 1 for text in texts)
    assert sum(text[-1] in ";#" for text in texts) >= 14
    row = read_run(tmp_path / "run").rows[0]
    assert row["validation/length"] < 12 and row["completion/truncated"] <= 0.125
