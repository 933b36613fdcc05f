"""Load and run a model for a judge: base class of all model judges, with batching and truncation.

All pairs of a call go through the model together, sorted by length, in batches; nothing is asked about identical
strings, which are equivalent, or about an empty one, which is equivalent to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import transformers
from torch import Tensor

from entropilot.errors import UserError
from entropilot.inputs.hub import check_model

LETTERS = 16  # characters that a token may stand for: longer texts are cut before they are tokenised


class ModelJudge:
    """Hold a model, its tokenizer, and its forward passes.

    Attributes:
        truncated: texts that were too long for the model so far, and were judged by a part of them.
        forward_passes: of the model so far.
    """

    name = "model"
    padding_side: Literal["left", "right"] = "right"
    _positions = False  # whether the model is told the place of every token, past the padding on the left
    _unused = ""  # part of the names of weights that make no difference

    def __init__(
        self, kind: Any, model: str, device: str | None, batch_size: int, max_length: int, **load: Any
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("max_length", max_length, 16)):
            if value < least:
                raise UserError(f"{self.name}: {name} = {value} is too small; set it to {least} or more.")
        check_model(model, f"The {self.name} judge's model", policy=False)
        self.model_name, self.batch_size = model, batch_size
        self.truncated = self.forward_passes = 0
        log = transformers.logging
        verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
        log.set_verbosity_error()  # what is missing in a checkpoint is told below, as an error
        log.disable_progress_bar()
        try:
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
            found, info = kind.from_pretrained(model, dtype=dtype, output_loading_info=True, **load)
            self.model: Any = found.to(self.device).eval()
        except Exception as error:  # the Hub, safetensors and configs raise a dozen kinds
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"The {self.name} judge can't load the model {model} ({reason}); check the path or the Hub id, "
                "and the device."
            ) from error
        finally:
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()
        # What the checkpoint does not hold was drawn at random.
        missing = sorted(key for key in info["missing_keys"] if not self._unused or self._unused not in key)
        if missing:
            raise UserError(
                f"The {self.name} judge can't use {model}: it was not trained for this, its checkpoint lacks "
                f"{missing[0]}; choose another model."
            )
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if self.tokenizer.pad_token_id is None:
            raise UserError(
                f"The {self.name} judge can't use {model}: its tokenizer has neither a padding nor an end token."
            )
        limit = getattr(found.config.get_text_config(), "max_position_embeddings", None) or max_length
        for name, module in found.named_modules():
            # RoBERTa and its kin count positions from behind the padding id.
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                limit -= module.padding_idx + 1
        self.max_length = int(min(max_length, limit, self.tokenizer.model_max_length))

    def _encode(self, texts: Sequence[Any], side: str) -> dict[str, list[list[int]]]:
        """Return the token ids of texts, or of pairs of them, cut at a side to the longest that the model takes."""
        if not texts:
            return {"input_ids": []}
        room = self.max_length * LETTERS
        pairs = [text if isinstance(text, tuple) else (text,) for text in texts]
        short = [tuple(part[:room] if side == "right" else part[-room:] for part in pair) for pair in pairs]
        columns = [list(column) for column in zip(*short, strict=True)]
        lengths = [len(ids) for ids in self.tokenizer(*columns, verbose=False)["input_ids"]]
        self.truncated += sum(
            length > self.max_length or pair != whole
            for length, pair, whole in zip(lengths, short, pairs, strict=True)
        )
        before, self.tokenizer.truncation_side = self.tokenizer.truncation_side, side
        try:
            cut = self.tokenizer(*columns, truncation="longest_first", max_length=self.max_length)
        finally:
            self.tokenizer.truncation_side = before
        return {name: cut[name] for name in ("input_ids", "token_type_ids") if name in cut}

    @torch.inference_mode()
    def _forward(
        self, columns: dict[str, list[list[int]]], head: Callable[[Any, Tensor], Tensor], **inputs: Any
    ) -> Tensor:
        """Return `head(output, mask)` of every row, float32 on the CPU, in the order given."""
        ids = columns["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        found: dict[int, Tensor] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            rows = {name: [values[row] for row in batch] for name, values in columns.items()}
            rows["attention_mask"] = [[1] * len(row) for row in rows["input_ids"]]
            padded = self.tokenizer.pad(rows, padding_side=self.padding_side, return_tensors="pt")
            mask = padded["attention_mask"]
            if self._positions:
                padded["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
            sent = {name: tensor.to(self.device) for name, tensor in padded.items()}
            values = head(self.model(**sent, **inputs), sent["attention_mask"]).float().cpu()
            self.forward_passes += 1
            found |= zip(batch, values, strict=True)
        return torch.stack([found[row] for row in range(len(ids))]) if ids else torch.empty(0, 1)

    def equivalent(
        self, pairs: Sequence[tuple[str, str]], questions: Sequence[str | None] | None = None
    ) -> list[bool]:
        """Return for each pair of answers whether they mean the same.

        Args:
            pairs: of answers.
            questions: what each pair answers; None where it is not known.
        """
        asked = [None] * len(pairs) if questions is None else list(questions)
        if len(asked) != len(pairs):
            raise ValueError(f"{len(pairs)} pairs, but {len(asked)} questions")
        found = [a == b and bool(a.strip()) for a, b in pairs]
        keys = [(a, b, question) for (a, b), question in zip(pairs, asked, strict=True)]
        items = {key: None for key in keys if key[0] != key[1] and key[0].strip() and key[1].strip()}
        texts = [(_whole(a), _whole(b), question and _whole(question)) for a, b, question in items]
        verdicts = dict(zip(items, self._judge(texts), strict=True)) if items else {}
        return [same or verdicts.get(key, False) for same, key in zip(found, keys, strict=True)]

    def _judge(self, items: list[tuple[str, str, str | None]]) -> list[bool]:
        raise NotImplementedError


def _whole(text: str) -> str:
    """Return text that a tokenizer takes: none takes half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8")
