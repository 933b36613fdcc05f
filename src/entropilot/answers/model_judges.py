"""Judges that ask a model whether two answers mean the same: an NLI classifier, an embedding, a causal LM."""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from typing import Any

import torch
import transformers
from torch import Tensor

from entropilot.answers.model_base import LETTERS, ModelJudge
from entropilot.errors import UserError

_CACHED = 16_384  # embeddings that a judge remembers, of some kB each


class Entailment(ModelJudge):
    """Two answers are equivalent where each implies the other, in the eyes of a natural-language-inference model.

    `strict`: entailment in both directions (the rule of the semantic-entropy and EMPO papers). `loose`: no contradiction
    in either direction, and not neutral in both (what the code of the semantic-entropy authors does unless told
    otherwise: jlko/semantic_uncertainty, `get_semantic_ids`, strict_entailment=False).
    The second direction is asked only where the first leaves the verdict open.

    Args:
        model: a folder or Hub id of a sequence classifier whose config names a label `entailment` (and, for the loose
            rule, `contradiction` and `neutral`), such as the cross-encoders trained on MNLI.
        rule: strict or loose.
        with_question: put the question in front of both answers, as the authors do with DeBERTa; short answers alone
            say too little.
        device: default: a GPU where there is one.
        batch_size: pairs per forward pass.
        max_length: tokens of both texts; longer ones lose their beginning, so that the answers stay.

    Raises:
        UserError: the model can't be loaded, has no label named entailment, or the rule does not exist.
    """

    name = "entailment"

    def __init__(
        self,
        *,
        model: str = "microsoft/deberta-large-mnli",
        rule: str = "strict",
        with_question: bool = True,
        device: str | None = None,
        batch_size: int = 64,
        max_length: int = 512,
    ) -> None:
        if rule not in ("strict", "loose"):
            raise UserError(f"entailment: the rule {rule!r} does not exist; choose strict or loose.")
        super().__init__(
            transformers.AutoModelForSequenceClassification, model, device, batch_size, max_length
        )
        self.rule, self.with_question = rule, with_question
        labels = {str(name).strip().lower(): int(i) for i, name in self.model.config.id2label.items()}
        self.labels = labels
        needed = ("entailment",) if rule == "strict" else ("entailment", "contradiction", "neutral")
        for label in needed:
            if label not in labels:
                raise UserError(
                    f"The entailment judge can't use {model} with the rule {rule}: no label of its config is named "
                    f"{label} (they are {', '.join(labels)}); choose a model that was trained on MNLI, or name them in "
                    "id2label of its config.json."
                )

    def _labels_of(self, pairs: list[tuple[str, str]]) -> list[int]:
        """Return the predicted label of (premise, hypothesis); −1 where the logits are not finite."""
        logits = self._forward(self._encode(pairs, "left"), lambda output, _: output.logits)
        finite = torch.isfinite(logits).all(-1)
        return torch.where(finite, logits.argmax(-1), -1).tolist()

    def _judge(self, items: list[tuple[str, str, str | None]]) -> list[bool]:
        texts = [
            (f"{question} {a}", f"{question} {b}") if self.with_question and question else (a, b)
            for a, b, question in items
        ]
        there = self._labels_of(texts)
        entails = self.labels["entailment"]
        if self.rule == "strict":
            open_ = [i for i, label in enumerate(there) if label == entails]
            back = self._labels_of([(texts[i][1], texts[i][0]) for i in open_])
            settled = {i for i, label in zip(open_, back, strict=True) if label == entails}
        else:
            bad, neutral = (-1, self.labels["contradiction"]), self.labels["neutral"]
            open_ = [i for i, label in enumerate(there) if label not in bad]
            back = self._labels_of([(texts[i][1], texts[i][0]) for i in open_])
            settled = {
                i
                for i, label in zip(open_, back, strict=True)
                if label not in bad and not label == there[i] == neutral
            }
        return [i in settled for i in range(len(items))]


class Embedding(ModelJudge):
    """Two answers are equivalent where the cosine of their embeddings is at least a threshold.

    The relation is symmetric, and blind to the question. Numbers lie close to each other in every sentence embedding:
    use it for answers in words.

    Args:
        model: a folder or Hub id of an encoder; of an encoder-decoder the encoder is used.
        threshold: of the cosine; there is none that fits all models, so look at pairs of yours.
        pooling: mean (of the last hidden states) or cls (the first of them).
        device: default: a GPU where there is one.
        batch_size: texts per forward pass.
        max_length: tokens of a text; longer ones lose their end.

    Raises:
        UserError: the model can't be loaded, or a setting is out of range.
    """

    name = "embedding"
    _unused = "pooler"

    def __init__(
        self,
        *,
        model: str = "sentence-transformers/all-MiniLM-L6-v2",
        threshold: float = 0.9,
        pooling: str = "mean",
        device: str | None = None,
        batch_size: int = 128,
        max_length: int = 512,
    ) -> None:
        if pooling not in ("mean", "cls"):
            raise UserError(f"embedding: the pooling {pooling!r} does not exist; choose mean or cls.")
        if not -1 <= threshold <= 1:
            raise UserError(
                f"embedding: threshold = {threshold:g} is no cosine; set it between -1 and 1, such as 0.9."
            )
        super().__init__(transformers.AutoModel, model, device, batch_size, max_length)
        if self.model.config.is_encoder_decoder:
            self.model = self.model.get_encoder()
        self.threshold, self.pooling = threshold, pooling
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    def _pool(self, output: Any, mask: Tensor) -> Tensor:
        states = output.last_hidden_state.float()
        if self.pooling == "cls":
            return states[:, 0]
        weights = mask[..., None].float()
        return (states * weights).sum(1) / weights.sum(1)

    def _judge(self, items: list[tuple[str, str, str | None]]) -> list[bool]:
        texts = dict.fromkeys(text for a, b, _ in items for text in (a, b))
        known = {text: self._known[text] for text in texts if text in self._known}
        new = [text for text in texts if text not in known]
        vectors = self._forward(self._encode(new, "right"), self._pool)
        known |= zip(new, torch.nn.functional.normalize(vectors, dim=-1), strict=True)
        for text in texts:
            self._known[text] = known[text]
            self._known.move_to_end(text)
        while len(self._known) > _CACHED:
            self._known.popitem(last=False)
        # A cosine that is not finite compares as not equivalent.
        return [float(known[a] @ known[b]) >= self.threshold for a, b, _ in items]


class Verifier(ModelJudge):
    """Two answers are equivalent where a causal LM, asked whether they agree, finds Yes likelier than No.

    One forward pass per pair, and the probabilities of the next token: p("Yes") is summed over the spellings that the
    tokenizer has (with a blank in front and without, capital or not), as is p("No"). The fields stand in the order that
    TIGER-Lab/general-verifier was trained on: question, ground truth answer, student answer. How this differs from the
    EMPO authors' `GeneralVerifier`: the prompt ends in "Final Decision:" without a blank, which theirs put there while
    they compared tokens that begin with one; each word is encoded on its own, and not as one half of a text pair; pairs
    go in batches; both directions are available; and an answer stays on one line, without the tokenizer's special
    tokens, so that it can't pose as another field or turn.

    Args:
        model: a folder or Hub id of a causal LM.
        both_ways: ask with the answers exchanged too, and believe two times Yes only. Off, as the authors have it: then
            the verdict depends on which answer stands first.
        chat: use the tokenizer's chat template; default: where it has one. `False` gives the plain text of the model card.
        device: default: a GPU where there is one.
        batch_size: pairs per forward pass.
        max_length: tokens of a prompt; a question or an answer that leaves no room loses its end.

    Raises:
        UserError: the model can't be loaded, or its tokenizer does not tell Yes from No.
    """

    name = "verifier"
    padding_side = (
        "left"  # so that the last position of each row is the next token's, and only its logits are made
    )

    def __init__(
        self,
        *,
        model: str = "TIGER-Lab/general-verifier",
        both_ways: bool = False,
        chat: bool | None = None,
        device: str | None = None,
        batch_size: int = 32,
        max_length: int = 2048,
    ) -> None:
        super().__init__(transformers.AutoModelForCausalLM, model, device, batch_size, max_length)
        if chat and self.tokenizer.chat_template is None:
            raise UserError(
                f"verifier: the tokenizer of {model} has no chat template; leave chat out, or set it to False."
            )
        self.both_ways = both_ways
        self.chat = self.tokenizer.chat_template is not None if chat is None else chat
        takes = inspect.signature(self.model.forward).parameters
        self._positions = "position_ids" in takes
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        added = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        special = sorted(added | set(self.tokenizer.all_special_tokens), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        yes, no = self._tokens_of("yes"), self._tokens_of("no")
        self.yes, self.no = sorted(yes - no), sorted(no - yes)  # what both may begin with is a blank
        if not self.yes or not self.no:
            raise UserError(
                f"The verifier judge can't use {model}: its tokenizer does not begin Yes and No with tokens of their own."
            )
        scaffold = len(self._ids([self._prompt("", "", "")])["input_ids"][0])
        self._room = (self.max_length - scaffold - 8) // 4  # 8: where two fields meet, tokens may differ
        if self._room < 8:
            raise UserError(
                f"verifier: the question to the model takes {scaffold} tokens, and max_length = {self.max_length} leaves "
                "no room for answers; raise it, or choose a model with a longer context."
            )

    def _tokens_of(self, word: str) -> set[int]:
        """Return the tokens that say a word: those that are it, or, where none is, those that it begins with."""
        spellings = [blank + form for form in (word.capitalize(), word) for blank in (" ", "")]
        encoded = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in spellings]
        whole = {ids[0] for ids in encoded if len(ids) == 1}
        return (whole or {ids[0] for ids in encoded if ids}) - {self.tokenizer.unk_token_id}

    def _ids(self, texts: list[str]) -> dict[str, list[list[int]]]:
        # A chat template has written the special tokens already.
        ids = self.tokenizer(texts, add_special_tokens=not self.chat, verbose=False)["input_ids"]
        return {"input_ids": ids}

    def _field(self, text: str, limit: int) -> str:
        """Return a field on one line, without special tokens, cut to a number of tokens."""
        text = self._special.sub(" ", text[: limit * LETTERS])
        short = text = " ".join(text.split())
        while (
            tokens := len(self.tokenizer(short, add_special_tokens=False, verbose=False)["input_ids"])
        ) > limit:
            short = short[: min(len(short) - 1, len(short) * limit // tokens)]
        return short

    def _prompt(self, question: str | None, truth: str, student: str) -> str:
        asked = f"### Question: {question}\n\n" if question is not None else ""
        text = (
            f"{asked}### Ground Truth Answer: {truth}\n\n### Student Answer: {student}\n\n"
            "Does the student's answer mean the same as the ground truth answer? Only compare the two, do not solve the "
            'question. Output "Final Decision: Yes" if they are equivalent, and "Final Decision: No" if they are not.'
        )
        if not self.chat:
            return f"User: {text}\nAssistant: Final Decision:"
        turn = [{"role": "user", "content": text}]
        opened = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        return f"{opened}Final Decision:"

    def _agree(self, items: list[tuple[str, str, str | None]]) -> list[bool]:
        fields: dict[tuple[str, int], str] = {}
        for a, b, question in items:
            fields |= {(a, 1): "", (b, 1): "", **({(question, 2): ""} if question else {})}
        for text, share in fields:
            fields[text, share] = self._field(text, share * self._room)
            self.truncated += len(fields[text, share]) < len(" ".join(self._special.sub(" ", text).split()))
        prompts = [
            self._prompt(fields[question, 2] if question else None, fields[a, 1], fields[b, 1])
            for a, b, question in items
        ]

        def margin(output: Any, _: Tensor) -> Tensor:
            logp = output.logits[:, -1].float().log_softmax(-1)
            return logp[:, self.yes].logsumexp(-1) - logp[:, self.no].logsumexp(-1)

        return (self._forward(self._ids(prompts), margin, **self._last) > 0).tolist()

    def _judge(self, items: list[tuple[str, str, str | None]]) -> list[bool]:
        there = self._agree(items)
        if not self.both_ways:
            return there
        open_ = [i for i, yes in enumerate(there) if yes]
        back = self._agree([(items[i][1], items[i][0], items[i][2]) for i in open_])
        settled = {i for i, yes in zip(open_, back, strict=True) if yes}
        return [i in settled for i in range(len(items))]
