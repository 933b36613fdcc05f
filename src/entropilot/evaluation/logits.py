"""Sample from a model and measure the logits behind every generated token: `entropilot logits`.

The text is the model's own. It is scored once more, one completion at a time, with a cache and at most `CHUNK` positions
at once, so that logits of shape (CHUNK, v) are the largest that exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from entropilot.analysis.logits import TOP, Histogram, ModelLogits, Moments, PromptLogits
from entropilot.errors import UserError
from entropilot.evaluation.sampling.sampler import sample
from entropilot.inputs.messages import render_prompt
from entropilot.inputs.models import context_room, load_model, quiet
from entropilot.inputs.problems import fit_prompts, load_problems
from entropilot.recipes.schema import Data, Recipe

Scores = Literal["raw", "processed"]
CHUNK = 128


def study(
    model_name: str,
    data: Data,
    *,
    scores: Scores = "raw",
    samples: int = 1,
    temperature: float = 0.6,
    top_p: float = 1.0,
    top_k: int = 50,
    max_new_tokens: int = 500,
    floor: float = 0.01,
    batch_size: int = 64,
    seed: int = 0,
    on_start: Callable[[int], None] | None = None,
    report: Callable[[int], None] | None = None,
) -> ModelLogits:
    """Return the pooled logits of a model at the positions that it generates.

    The authors' logits_shift.py differs in more than the scores: it renders prompts without the opening of the answer,
    cuts all completions to the shortest one, and drops values that are exactly 0 with those that are not finite.

    Args:
        model_name: sandbox, a folder, or a Hub id.
        data: the problems.
        scores: "raw" are the model's logits over its vocabulary. "processed" are divided by `temperature` and cut to the
            `top_k` (and `top_p`) largest, as the authors' script takes them from `generate`: what is pooled then is not
            the vocabulary, and the distribution that mass and entropy are of is the cut one.
        samples: completions per prompt.
        temperature: of the sampling; 0 is greedy. The authors' is 0.6.
        top_p: of the sampling, and of processed scores.
        top_k: of processed scores only; 50 is what the authors' script had by default. 0 keeps all.
        max_new_tokens: length limit; the authors' is 500.
        floor: probability from which a token is a candidate.
        batch_size: completions that are sampled at once.
        seed: of the sampling.
        on_start: is called with the number of completions.
        report: is called with the number of completions measured so far.

    Raises:
        UserError: model or data can't be used, or processed scores of greedy sampling.
    """
    if scores == "processed" and temperature == 0:
        raise UserError(
            "Processed scores are logits divided by the temperature, which is 0; set one above 0."
        )
    quiet()
    model, tokenizer = load_model(Recipe(model=model_name, data=data))
    room = context_room(model, max_new_tokens)
    prompts = fit_prompts(load_problems(data), tokenizer, data, room)["prompt"]
    if on_start is not None:
        on_start(len(prompts) * samples)
    model.eval()
    groups = sample(
        model,
        tokenizer,
        prompts,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        samples=samples,
        top_p=top_p,
        batch_size=batch_size,
        seed=seed,
    )
    change = _processed(temperature, top_k, top_p) if scores == "processed" else _raw
    found = ModelLogits(model_name)
    for row, (prompt, completions) in enumerate(zip(prompts, groups, strict=True)):
        ids = tokenizer(render_prompt(prompt, tokenizer), add_special_tokens=False)["input_ids"]
        kept = PromptLogits()
        for completion in completions:
            for logits in _behind(model, ids, completion.ids):
                kept.add(len(logits), *measure(change(logits), found.histogram, floor))
        found.prompts.append(kept)
        if report is not None:
            report((row + 1) * samples)
    return found


def study_models(names: Sequence[str], data: Data, **settings: Any) -> list[ModelLogits]:
    """Study several models one after the other; a name that repeats gets a number.

    Args:
        names: see `study`.
        data: the problems.
        settings: of `study`, the same for all.
    """
    studies = []
    for position, name in enumerate(names):
        one = study(name, data, **settings)
        again = names[:position].count(name)
        one.name = f"{name} ({again + 1})" if again else name
        studies.append(one)
    return studies


@torch.no_grad()
def _behind(model: Any, prompt: list[int], completion: list[int]) -> Iterator[Tensor]:
    """Yield the logits that each token of a completion was drawn from, (≤ CHUNK, v) at a time."""
    ids = torch.tensor([prompt + completion[:-1]], device=model.device)
    out = model(input_ids=ids[:, : len(prompt)], use_cache=True, logits_to_keep=1)
    yield out.logits[0]
    for start in range(len(prompt), ids.shape[1], CHUNK):
        out = model(
            input_ids=ids[:, start : start + CHUNK], past_key_values=out.past_key_values, use_cache=True
        )
        yield out.logits[0]


def _raw(logits: Tensor) -> Tensor:
    return logits.float()


def _processed(temperature: float, top_k: int, top_p: float) -> Callable[[Tensor], Tensor]:
    """Return what `generate` does to logits before it draws."""
    steps: list[Any] = [TemperatureLogitsWarper(temperature)]
    steps += [TopKLogitsWarper(top_k)] if top_k > 0 else []
    steps += [TopPLogitsWarper(top_p)] if top_p < 1 else []

    def change(logits: Tensor) -> Tensor:
        scores = logits.float()
        for step in steps:
            scores = step(None, scores)
        return scores

    return change


def measure(logits: Tensor, histogram: Histogram, floor: float) -> tuple[Moments, dict[str, float]]:
    """Return the moments of finite logits (t, v) and the sums over positions; the histogram takes the values in.

    In float64, on the device of the logits where it has that.
    """
    logits = (logits.cpu() if logits.device.type == "mps" else logits).double()
    logp = logits.log_softmax(-1)
    p = logp.exp()
    largest = p.topk(min(max(TOP), p.shape[-1]), dim=-1).values
    sums = {
        "entropy": -(p * logp.clamp(min=-1e30)).sum().item(),
        "candidates": float((p >= floor).sum()),
    } | {f"top{k}": largest[:, :k].sum().item() for k in TOP}
    values = logits[logits.isfinite()]  # filtered scores are −inf; a banned word is, too
    if values.numel() == 0:
        return Moments(), sums
    histogram.fit(values.min().item(), values.max().item())
    bins = (values / histogram.width).floor().long() - histogram.first
    histogram.counts += torch.bincount(bins, minlength=histogram.counts.size).cpu().numpy()
    mean = values.mean()
    d = values.sub_(mean)
    square = d * d
    powers = torch.stack([mean, square.sum(), (square * d).sum(), (square * square).sum()]).tolist()
    return Moments(values.numel(), *powers), sums
