"""Samples that depend on seed, problem and number alone; the inverse of the distribution; entropy on the way."""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TopPLogitsWarper

from entropilot.errors import UserError
from entropilot.evaluation.sampling.sampler import Transformers, choose, ignored_settings, sample, uniforms
from entropilot.evaluation.sampling.vllm import VLLM
from entropilot.inputs.messages import end_ids, render_prompt
from entropilot.sandbox import weights_of
from entropilot.sandbox.tasks import CHAINS

PROMPTS = [[{"role": "user", "content": p.prompt}] for p in CHAINS.problems("validation", 6)]


@pytest.fixture(scope="module")
def base() -> tuple:
    folder = weights_of("chains")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def draw(base: tuple, places=range(6), batch_size: int = 256, **settings: Any) -> dict[int, list[Any]]:
    """Return index → samples."""
    settings = {"samples": 3, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 24, "seed": 7} | settings
    engine = Transformers(*base, batch_size)
    found = engine.draw([PROMPTS[i] for i in places], list(places), **settings)
    return {index: group for indices, groups in found for index, group in zip(indices, groups, strict=True)}


# --- one token --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.35, 1e-6])
def test_the_token_is_where_the_cumulative_sum_passes_u(temperature: float, top_p: float) -> None:
    logits = torch.randn(300, 13, generator=torch.Generator().manual_seed(1)) * 2
    u = torch.rand(300, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    chosen = choose(logits, u, temperature, top_p).tolist()
    for row, (values, number) in enumerate(zip(logits.double().tolist(), u.tolist(), strict=True)):
        weights = [2.718281828459045 ** (value / temperature) for value in values]
        p = [weight / sum(weights) for weight in weights]
        order = range(13) if top_p == 1.0 else sorted(range(13), key=lambda token: -p[token])
        kept: list[int] = []
        for token in order:
            if top_p < 1.0 and sum(p[other] for other in kept) >= top_p:
                break
            kept.append(token)
        rest = number * sum(p[token] for token in kept)
        for token in kept:
            rest -= p[token]
            if rest < 0:
                break
        assert chosen[row] == token


def test_shares_of_tokens_are_their_probabilities() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    counts = choose(logits.expand(10_000, 4), u, 0.5, 1.0).bincount(minlength=4) / 10_000
    torch.testing.assert_close(counts, (logits / 0.5).softmax(-1), atol=2e-4, rtol=0)


def test_the_nucleus_is_that_of_transformers() -> None:
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(3)) * 2
    kept = TopPLogitsWarper(0.7)(torch.zeros(50, 1, dtype=torch.long), logits.clone()).isfinite()
    for u in (0.0, 0.5, 0.999999):
        chosen = choose(logits, torch.full((50,), u, dtype=torch.float64), 1.0, 0.7)
        assert kept.gather(1, chosen[:, None]).all()
    last = choose(logits, torch.full((50,), 1 - 1e-9, dtype=torch.float64), 1.0, 0.7)
    least = logits.masked_fill(~kept, torch.inf).argmin(-1)
    assert torch.equal(last, least)


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(3, 5)
    u = torch.tensor(
        [0.0, 0.4999, 1.0], dtype=torch.float64
    )  # 1 is what rounding may make of the last number below
    assert choose(logits, u, 1.0, 1.0).tolist() == [1, 1, 3]


def test_streams_differ_and_begin_alike() -> None:
    assert uniforms(0, 3, 1, 5).tolist() == uniforms(0, 3, 1, 50)[:5].tolist()
    others = [
        uniforms(*key, 5).tolist()
        for key in ((0, 3, 1), (1, 3, 1), (0, 4, 1), (0, 3, 0), (3, 0, 1), (0, 2, 2))
    ]
    assert len({tuple(values) for values in others}) == 6
    assert ((uniforms(0, 0, 0, 1000) >= 0) & (uniforms(0, 0, 0, 1000) < 1)).all()


# --- whole completions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.8, "temperature": 0.7}, {"temperature": 0.0}])
def test_nothing_but_seed_problem_and_number_decides(base: tuple, settings: dict[str, Any]) -> None:
    whole = {index: [s.ids for s in group] for index, group in draw(base, **settings).items()}
    for batch_size in (1, 7):
        again = draw(base, batch_size=batch_size, **settings)
        assert {index: [s.ids for s in group] for index, group in again.items()} == whole
    some = draw(base, places=[4, 1], **settings)  # an evaluation that was taken up again
    assert {index: [s.ids for s in group] for index, group in some.items()} == {i: whole[i] for i in (4, 1)}
    fewer = draw(base, samples=2, **settings)
    assert {index: [s.ids for s in group] for index, group in fewer.items()} == {
        i: g[:2] for i, g in whole.items()
    }
    if settings.get("temperature") != 0.0:
        other = draw(base, seed=8, **settings)
        assert {index: [s.ids for s in group] for index, group in other.items()} != whole
        assert any(group[0] != group[1] for group in whole.values())


def test_greedy_is_the_greedy_of_transformers(base: tuple) -> None:
    found = draw(base, temperature=0.0, samples=1)
    for index, prompt in enumerate(PROMPTS):
        ids = base[1](render_prompt(prompt, base[1]), return_tensors="pt").input_ids
        (whole,) = base[0].generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24
        )
        assert found[index][0].ids == whole[ids.shape[1] :].tolist()


def test_all_at_once_is_the_same_as_batch_by_batch(base: tuple) -> None:
    settings = {"samples": 3, "temperature": 1.0, "max_new_tokens": 24, "seed": 7}
    groups = sample(*base, PROMPTS, batch_size=4, **settings)
    by_batch = draw(base)
    assert [[s.ids for s in group] for group in groups] == [[s.ids for s in by_batch[i]] for i in range(6)]
    part = sample(*base, [PROMPTS[4], PROMPTS[1]], indices=[4, 1], **settings)
    assert [[s.ids for s in group] for group in part] == [[s.ids for s in groups[i]] for i in (4, 1)]


def test_entropy_is_that_of_the_whole_distribution_at_T_1(base: tuple) -> None:
    model, tokenizer = base
    for drawn in draw(base, places=[0, 3], temperature=0.5, top_p=0.9).values():
        place = next(
            i for i in (0, 3) if draw(base, places=[i], temperature=0.5, top_p=0.9)[i][0].ids == drawn[0].ids
        )
        prompt = tokenizer(render_prompt(PROMPTS[place], tokenizer), return_tensors="pt").input_ids
        for found in drawn:
            ids = torch.cat([prompt, torch.tensor([found.ids])], dim=1)
            with torch.no_grad():
                p = model(ids).logits[0, prompt.shape[1] - 1 : -1].double().softmax(-1)
            expected = -(p * p.log()).sum(-1).mean().item()
            assert found.entropy == pytest.approx(expected, rel=1e-4)
            assert found.text == tokenizer.decode(found.ids, skip_special_tokens=True)


def test_the_settings_of_the_model_do_not_reach_the_samples(base: tuple) -> None:
    model, _ = base
    expected, own = draw(base), model.generation_config
    changed = type(own).from_dict(
        own.to_dict() | {"repetition_penalty": 5.0, "top_k": 1, "min_new_tokens": 20}
    )
    model.generation_config = changed
    try:
        assert draw(base) == expected
        assert model.generation_config is changed
        assert ignored_settings(model) == {"repetition_penalty": 5.0, "top_k": 1, "min_new_tokens": 20}
    finally:
        model.generation_config = own
    assert ignored_settings(model) == {} == ignored_settings(SimpleNamespace())


def test_what_was_random_before_is_as_it_was(base: tuple) -> None:
    model, _ = base
    torch.manual_seed(3)
    state, python = torch.random.get_rng_state(), random.getstate()
    model.train()
    try:
        draw(base, places=[0])
        assert model.training
    finally:
        model.eval()
    assert torch.equal(torch.random.get_rng_state(), state) and random.getstate() == python


def test_a_model_without_an_end_token_runs_to_the_limit(base: tuple) -> None:
    model, tokenizer = base
    bare = SimpleNamespace(eos_token_id=None)
    assert end_ids(SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None)), bare) == set()  # type: ignore[arg-type]
    engine = Transformers(model, tokenizer)
    engine.ends = set()
    ((_, groups),) = engine.draw(
        PROMPTS[:2], [0, 1], samples=2, temperature=1.0, top_p=1.0, max_new_tokens=30, seed=0
    )
    assert all(s.cut and len(s.ids) == 30 for group in groups for s in group)


def test_an_end_token_as_the_last_allowed_is_no_cut(base: tuple) -> None:
    whole = draw(base, places=[0], samples=1)[0][0]
    assert not whole.cut and whole.ids[-1] == base[1].eos_token_id
    limit = len(whole.ids)
    assert draw(base, places=[0], samples=1, max_new_tokens=limit)[0][0] == whole
    short = draw(base, places=[0], samples=1, max_new_tokens=limit - 1)[0][0]
    assert short.cut and short.ids == whole.ids[:-1]


def test_an_empty_generation_is_a_completion_of_one_token(base: tuple) -> None:
    model, tokenizer = base
    head = model.get_input_embeddings().weight
    kept = head.data.clone()
    hook = model.lm_head.register_forward_hook(
        lambda module, args, output: output.index_fill(-1, torch.tensor([tokenizer.eos_token_id]), 1e4)
    )
    try:
        found = draw(base, places=[0], samples=2)[0]
    finally:
        hook.remove()
        head.data.copy_(kept)
    assert [(s.ids, s.text, s.cut) for s in found] == [([tokenizer.eos_token_id], "", False)] * 2
    assert found[0].entropy == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_an_error(base: tuple, temperature: float) -> None:
    hook = base[0].lm_head.register_forward_hook(lambda module, args, output: output * torch.nan)
    try:
        with pytest.raises(UserError, match="logits are not finite"):
            draw(base, places=[0], temperature=temperature)
    finally:
        hook.remove()


def test_many_rows_of_a_large_vocabulary_go_in_tiles(base: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = draw(base)
    monkeypatch.setattr("entropilot.evaluation.sampling.sampler.TILE", 100)  # one or two rows at a time
    assert draw(base) == expected


# --- vLLM ---------------------------------------------------------------------------------------------------------


def test_vllm_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="--engine vllm needs vLLM, which is not installed"):
        VLLM("some/model")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="takes no adapters"):
        VLLM(str(tmp_path))


def test_vllm_is_asked_for_each_sample_with_its_own_seed(
    base: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a stand-in that records what it is asked; vLLM itself is not here."""
    asked: list[Any] = []

    class LLM:
        llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=128))

        def __init__(self, **settings: Any) -> None:
            self.settings = settings

        def get_tokenizer(self) -> Any:
            return base[1]

        def generate(self, prompts: list[Any], params: list[Any], use_tqdm: bool) -> list[Any]:
            asked.extend(zip(prompts, params, strict=True))
            return [
                SimpleNamespace(outputs=[SimpleNamespace(token_ids=(5, 2), text="x", finish_reason="length")])
                for _ in prompts
            ]

    fake = SimpleNamespace(LLM=LLM, SamplingParams=lambda **settings: settings)
    monkeypatch.setitem(sys.modules, "vllm", fake)  # type: ignore[arg-type]
    engine = VLLM("some/model", "bfloat16", 3)
    assert engine.llm.settings == {
        "model": "some/model", "dtype": "bfloat16", "seed": 3, "generation_config": "vllm"
    }  # fmt: skip
    assert engine.context() == 128
    settings = {"samples": 2, "temperature": 0.6, "top_p": 0.9, "max_new_tokens": 9, "seed": 3}
    told: list[int] = []
    monkeypatch.setattr("entropilot.evaluation.sampling.vllm.BLOCK", 4)
    blocks = list(engine.draw(PROMPTS[:3], [5, 6, 9], report=told.append, **settings))
    assert [indices for indices, _ in blocks] == [[5, 6], [9]] and told == [4, 6]
    assert blocks[0][1][0][0] == ([5, 2], "x", None, True)
    whole = list(asked)
    ids = base[1](render_prompt(PROMPTS[2], base[1]), add_special_tokens=False)["input_ids"]
    assert whole[4][0] == {"prompt_token_ids": ids}
    assert whole[4][1] | {"seed": 0} == {"temperature": 0.6, "top_p": 0.9, "max_tokens": 9, "seed": 0}
    assert len({params["seed"] for _, params in whole}) == 6
    asked.clear()
    list(engine.draw(PROMPTS[2:3], [9], **settings))
    assert asked == whole[4:]
