"""Sample completions with one random stream per (seed, problem, sample).

The only sampler: `evaluate`, validation while training, `prompts rank`, `logits` and the fixed prefixes all use it.

Each sample has its own stream of uniform numbers, made from the seed, the index of the problem in its data and the
number of the sample. Token t is the inverse of the cumulative distribution at the t-th number. So the order of the
problems, the batch size, the number of samples and the number of processes change nothing: a resumed evaluation draws
what the interrupted one would have drawn, the first 8 of 32 samples are those of an evaluation with 8, and two models
or two temperatures meet the same numbers. No global random state is read or changed.

What remains is rounding. A batch of another width gives logits that differ in the last bits, and a uniform number that
falls between the two cumulative sums gives another token (about one token in a million in float32, more in bfloat16).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from entropilot.errors import UserError
from entropilot.inputs.messages import end_ids, render_prompt
from entropilot.maths.entropy import token_entropy

TILE = 4_000_000  # logits worked on at once: 16 MB in float32 and 32 MB for the cumulative sums


class Sample(NamedTuple):
    """Hold one completion.

    Attributes:
        ids: its tokens, the end token included.
        text: without special tokens.
        entropy: mean over its tokens of the entropy of the model's distribution at T = 1, full vocabulary, nats; None
            where the engine does not tell.
        cut: it reached the length limit without an end token.
    """

    ids: list[int]
    text: str
    entropy: float | None
    cut: bool


def uniforms(seed: int, index: int, sample: int, count: int) -> np.ndarray:
    """Return the first `count` numbers in [0, 1) of one sample's stream; a longer stream begins with the same ones."""
    return np.random.default_rng([seed, index, sample]).random(count)


def choose(logits: Tensor, u: Tensor, temperature: float, top_p: float) -> Tensor:
    """Return the token at which the cumulative distribution passes u, (b,).

    Args:
        logits: (b, v).
        u: (b,) in [0, 1).
        temperature: above 0.
        top_p: the nucleus is the smallest set of likeliest tokens that holds at least this much probability.
    """
    wide = torch.float32 if logits.device.type == "mps" else torch.float64  # which has no float64
    probability = (logits.float() / temperature).softmax(-1).to(wide)
    order = None
    if top_p < 1.0:
        probability, order = probability.sort(dim=-1, descending=True, stable=True)
        before = probability.cumsum(-1) - probability
        probability = probability.masked_fill(before >= top_p, 0.0)
    total = probability.cumsum(-1)
    # In float32 a number just below 1 would be 1, behind the last token that has any probability.
    aim = u.to(total).clamp(max=1 - 2**-24).unsqueeze(-1) * total[:, -1:]
    place = torch.searchsorted(total, aim, right=True).clamp(max=total.shape[-1] - 1)
    return (place if order is None else order.gather(-1, place)).squeeze(-1)


class _Chooser(LogitsProcessor):
    """Puts each row's token first, and notes the entropy of what it was drawn from; generation then takes the maximum."""

    def __init__(self, u: Tensor | None, width: int, temperature: float, top_p: float) -> None:
        self.u, self.width, self.temperature, self.top_p = u, width, temperature, top_p
        self.entropy: list[Tensor] = []  # (b,) per step; never (b, t, v)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        step = input_ids.shape[1] - self.width
        rows = max(1, TILE // scores.shape[1])
        found = []
        for start in range(0, len(scores), rows):
            part = scores[start : start + rows]
            found.append(token_entropy(part))
            if self.u is not None:
                token = choose(part, self.u[start : start + rows, step], self.temperature, self.top_p)
                part.fill_(-torch.inf).scatter_(1, token.unsqueeze(1), 0.0)
        self.entropy.append(torch.cat(found).cpu())
        if not bool(self.entropy[-1].isfinite().all()):
            raise UserError(
                "The model's logits are not finite; check its weights, or choose another --dtype."
            )
        return scores


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    *,
    temperature: float,
    max_new_tokens: int,
    samples: int = 1,
    top_p: float = 1.0,
    batch_size: int = 256,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    report: Callable[[int], None] | None = None,
) -> list[list[Sample]]:
    """Sample completions of prompts; return samples_P_G.

    The model is left in the mode it was in, and no global random state is touched.

    Args:
        model: a causal language model of transformers; on several ranks the unwrapped one.
        tokenizer: its tokenizer, with a chat template where prompts are messages.
        prompts: strings or lists of messages.
        temperature: 0 is greedy.
        max_new_tokens: length limit of a completion.
        samples: per prompt.
        top_p: nucleus.
        batch_size: completions per forward pass.
        seed: of the sampling.
        indices: number of each problem in its data, 0 or more; by default 0, 1, 2, …. They choose the random numbers:
            a rank that draws a part of the problems passes their numbers in the whole.
        report: is called with the number of completions so far, after every batch.
    """
    numbers = range(len(prompts)) if indices is None else indices
    batches = Transformers(model, tokenizer, batch_size).draw(
        prompts,
        numbers,
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        seed=seed,
        report=report,
    )
    return [group for _, groups in batches for group in groups]


class Transformers:
    """Sample with `transformers`' own generation.

    Its continuous batching is not used: it has a random stream of its own, and on two CPU cores it took 25 times as
    long on the sandbox model (docs/how-to/evaluate.md).
    """

    name = "transformers"

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 256) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.ends = end_ids(model, tokenizer)

    def draw(
        self,
        prompts: Sequence[Any],
        indices: Sequence[int],
        *,
        samples: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
        report: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[list[int], list[list[Sample]]]]:
        """Yield (indices, samples_P_G) of one batch of whole problems after the other.

        Args:
            prompts: strings or lists of messages.
            indices: of the problems, not negative; they choose the random numbers.
            samples: per problem; greedy (temperature 0) draws one.
            temperature, top_p, max_new_tokens, seed: of the sampling.
            report: is called with the number of completions after every batch.
        """
        per_batch = max(1, self.batch_size // samples)
        done = 0
        for start in range(0, len(prompts), per_batch):
            here = list(indices[start : start + per_batch])
            rows = [(text, i, k) for text, i in zip(
                [render_prompt(prompt, self.tokenizer) for prompt in prompts[start : start + per_batch]], here,
                strict=True) for k in range(samples)]  # fmt: skip
            found: list[Sample] = []
            for first in range(0, len(rows), self.batch_size):
                part = rows[first : first + self.batch_size]
                found += self._batch(part, temperature, top_p, max_new_tokens, seed)
                done += len(part)
                if report is not None:
                    report(done)
            yield here, [found[row : row + samples] for row in range(0, len(found), samples)]

    @torch.no_grad()
    def _batch(
        self, rows: list[tuple[str, int, int]], temperature: float, top_p: float, limit: int, seed: int
    ) -> list[Sample]:
        model, tokenizer = self.model, self.tokenizer
        prompts = tokenizer([text for text, _, _ in rows], add_special_tokens=False)["input_ids"]
        width = max(map(len, prompts))
        # Padded here: a tokenizer without a padding token can't, and what stands behind the mask is never read.
        pad = next((i for i in (tokenizer.pad_token_id, *sorted(self.ends)) if i is not None), 0)
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts], device=model.device)
        mask = torch.tensor(
            [[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=model.device
        )
        u = None
        if temperature > 0:
            u = torch.from_numpy(np.stack([uniforms(seed, index, k, limit) for _, index, k in rows]))
            u = u.to(model.device, torch.float32 if model.device.type == "mps" else None)
        chooser = _Chooser(u, width, temperature, top_p)
        config = GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=sorted(self.ends) or None,
            disable_compile=True,
        )
        with _as_it_is(model):
            full = model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList([chooser]),
            )
        drawn = []
        entropy = torch.stack(chooser.entropy, dim=1).double()
        for row, tokens in enumerate(full[:, width:].tolist()):
            stop = next((i + 1 for i, token in enumerate(tokens) if token in self.ends), len(tokens))
            drawn.append((tokens[:stop], entropy[row, :stop].mean().item()))
        texts = tokenizer.batch_decode([tokens for tokens, _ in drawn], skip_special_tokens=True)
        return [
            Sample(tokens, text, mean, len(tokens) >= limit and tokens[-1] not in self.ends)
            for (tokens, mean), text in zip(drawn, texts, strict=True)
        ]


@contextmanager
def _as_it_is(model: Any) -> Iterator[None]:
    """Generate in evaluation mode and without the model's generation config; both are as before afterwards.

    transformers fills what is not set from that config: a repetition penalty, for one. A model with adapters has it
    twice, on the wrapper and on the base.
    """
    owners = [model, *([model.get_base_model()] if hasattr(model, "get_base_model") else [])]
    configs = [owner.generation_config for owner in owners]
    was_training = model.training
    model.eval()
    for owner in owners:
        owner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for owner, config in zip(owners, configs, strict=True):
            owner.generation_config = config
        model.train(was_training)


def ignored_settings(model: Any) -> dict[str, Any]:
    """Return what the model's generation config asks for and an evaluation does not do (a penalty, top_k, …)."""
    config = getattr(model, "generation_config", None)
    if config is None:
        return {}
    neutral = {
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "min_p": None,
        "top_k": None,
        "typical_p": 1.0,
    }
    neutral |= {"suppress_tokens": None, "forced_bos_token_id": None, "min_new_tokens": None, "min_length": 0}
    found = {name: getattr(config, name, None) for name in neutral}
    return {
        name: value
        for name, value in found.items()
        if value is not None and value != neutral[name] and not (name == "top_k" and value in (0, 50))
    }
