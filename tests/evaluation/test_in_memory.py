"""Accuracy of a model: the estimator against counting, and sampling that disturbs nothing."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig  # noqa: E402

from entropilot.analysis.passk import pass_at_k  # noqa: E402
from entropilot.errors import UserError  # noqa: E402
from entropilot.evaluation.in_memory import Evaluation, evaluate  # noqa: E402
from entropilot.evaluation.sampling.sampler import sample  # noqa: E402
from entropilot.inputs.messages import render_prompt  # noqa: E402
from entropilot.sandbox import weights_of  # noqa: E402
from entropilot.sandbox.tasks import CHAINS  # noqa: E402


@pytest.fixture(scope="module")
def base() -> tuple:
    folder = weights_of("chains")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [
        {"prompt": [{"role": "user", "content": p.prompt}], "answer": p.answer}
        for p in CHAINS.problems("validation", 12)
    ]


def reward(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    return [CHAINS.score(c[0]["content"], gold) for c, gold in zip(completions, answer, strict=True)]


# --- pass@k -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n: int) -> None:
    for right in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations(range(n), k))
            share = Fraction(sum(any(i < right for i in subset) for subset in subsets), len(subsets))
            assert pass_at_k(n, right, k) == pytest.approx(float(share), rel=1e-12, abs=1e-15)


def test_pass_at_k_by_hand() -> None:
    # 5 samples, 2 right, 3 drawn: 1 − C(3,3)/C(5,3) = 1 − 1/10
    assert pass_at_k(5, 2, 3) == pytest.approx(0.9)
    assert pass_at_k(10_000, 1, 5000) == pytest.approx(0.5)  # no overflow
    assert (pass_at_k(4, 0, 4), pass_at_k(4, 4, 1)) == (0.0, 1.0)


@pytest.mark.parametrize(("n", "k"), [(3, 4), (3, 0), (3, -1), (0, 1)])
def test_pass_at_k_needs_k_samples(n: int, k: int) -> None:
    with pytest.raises(UserError, match=rf"pass@{k} can't be estimated from {n} samples"):
        pass_at_k(n, 0, k)


def test_measures_of_an_evaluation_by_hand() -> None:
    result = Evaluation(
        scores=[[1.0, 0.0, 0.0], [0.5, 0.51, 1.0]],
        completions=[["a"] * 3] * 2,
        lengths=[[1] * 3] * 2,
        cut=[[True, False, False], [True, True, False]],
    )
    assert result.accuracy == pytest.approx(3.01 / 6)
    assert result.truncated == pytest.approx(0.5)
    # 1/2 is no pass: 1 of 3 and 2 of 3 right
    assert result.pass_at(1) == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert result.pass_at(2) == pytest.approx((2 / 3 + 1) / 2)
    empty = Evaluation([], [], [], [])
    assert (empty.accuracy, empty.truncated, empty.pass_at(1)) == (0.0, 0.0, 0.0)


# --- sampling ---------------------------------------------------------------------------------------------


def draw(base: tuple, rows: list[dict[str, Any]], **settings: Any) -> list[list[list[int]]]:
    settings = {"temperature": 1.0, "max_new_tokens": 40} | settings
    groups = sample(*base, [row["prompt"] for row in rows], **settings)
    return [[completion.ids for completion in group] for group in groups]


def test_greedy_is_the_argmax_of_every_step(base: tuple, rows) -> None:
    model, tokenizer = base
    ((completion,),) = draw(base, rows[:1], temperature=0.0)
    ids = tokenizer(render_prompt(rows[0]["prompt"], tokenizer), return_tensors="pt").input_ids
    with torch.no_grad():
        for token in completion:
            assert model(ids).logits[0, -1].argmax().item() == token
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    assert completion[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_greedy_does_not_depend_on_the_batch_size_or_the_seed(base: tuple, rows, batch_size: int) -> None:
    expected = draw(base, rows, temperature=0.0)
    assert draw(base, rows, temperature=0.0, batch_size=batch_size, seed=batch_size) == expected


def test_sampling_depends_on_the_seed_alone(base: tuple, rows) -> None:
    first = draw(base, rows, samples=2, seed=1)
    torch.manual_seed(12345)
    assert draw(base, rows, samples=2, seed=1) == first
    assert draw(base, rows, samples=2, seed=2) != first
    assert [len(group) for group in first] == [2] * len(rows)
    assert any(one != other for one, other in first)  # the samples of a problem differ


def test_the_global_random_state_is_untouched(base: tuple, rows) -> None:
    torch.manual_seed(7)
    state, python = torch.random.get_rng_state(), random.getstate()
    for temperature in (0.0, 1.0):
        draw(base, rows, temperature=temperature)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert random.getstate() == python


def test_a_sharp_temperature_comes_close_to_greedy_and_top_p_cuts(base: tuple, rows) -> None:
    greedy = draw(base, rows, temperature=0.0)
    assert draw(base, rows, temperature=1e-4) == greedy
    assert draw(base, rows, top_p=1e-6) == greedy
    assert draw(base, rows) != greedy


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode_and_its_config(base: tuple, rows, training: bool) -> None:
    model, _ = base
    before = model.generation_config.to_dict()
    model.train(training)
    try:
        draw(base, rows)
        assert model.training is training
        assert model.generation_config.to_dict() == before
        assert all(p.grad is None for p in model.parameters())
    finally:
        model.eval()


def test_progress_is_reported_after_every_batch(base: tuple, rows) -> None:
    heard: list[int] = []
    draw(base, rows, samples=2, batch_size=10, report=heard.append)
    assert heard == [10, 20, 24]


def test_ranks_that_share_the_problems_draw_what_one_process_draws(base: tuple, rows) -> None:
    settings = {"temperature": 1.0, "max_new_tokens": 40, "samples": 2, "seed": 3}
    whole = evaluate(*base, rows, reward, **settings)
    assert 0 < whole.accuracy < 1
    for world in (2, 3):
        for rank in range(world):
            numbers = range(len(rows))[rank::world]
            part = evaluate(*base, [rows[i] for i in numbers], reward, indices=numbers, **settings)
            assert part.completions == [whole.completions[i] for i in numbers]
    alone = evaluate(*base, rows[1::2], reward, **settings)  # other numbers, other samples
    assert alone.completions != whole.completions[1::2]


def test_a_penalty_of_the_model_does_not_reach_validation(base: tuple, rows) -> None:
    model, own = base[0], base[0].generation_config
    expected = draw(base, rows)
    model.generation_config = type(own).from_dict(own.to_dict() | {"repetition_penalty": 5.0, "top_k": 1})
    try:
        assert draw(base, rows) == expected
        assert model.generation_config.repetition_penalty == 5.0
    finally:
        model.generation_config = own


def test_a_model_with_adapters_keeps_both_of_its_configs(base: tuple, rows) -> None:
    from peft import LoraConfig, get_peft_model

    copied = AutoModelForCausalLM.from_pretrained(weights_of("chains"), dtype=torch.float32)
    adapted = get_peft_model(copied, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.generation_config.repetition_penalty = 5.0
    before = (adapted.generation_config, adapted.get_base_model().generation_config)
    assert draw((adapted, base[1]), rows) == draw(base, rows)  # fresh adapters change nothing
    after = (adapted.generation_config, adapted.get_base_model().generation_config)
    assert all(one is other for one, other in zip(before, after, strict=True))


class Scripted:
    """A model that "generates" what a test wrote."""

    device = torch.device("cpu")
    training = False

    def __init__(self, completions: list[list[int]], eos: int | list[int] | None) -> None:
        self.completions, self.generation_config = completions, GenerationConfig(eos_token_id=eos)

    def train(self, mode: bool) -> None: ...
    def eval(self) -> None: ...

    def generate(self, input_ids, logits_processor: Any, **_: Any):
        for token in torch.tensor(self.completions).T:
            logits_processor(input_ids, torch.zeros(len(input_ids), 16))
            input_ids = torch.cat([input_ids, token[:, None]], dim=1)
        return input_ids


@pytest.mark.parametrize(
    ("eos", "expected"),
    [
        (2, [[7, 8, 2], [7, 8, 9, 7], [2]]),  # the end token stays, what follows it goes
        ([2, 9], [[7, 8, 2], [7, 8, 9], [2]]),  # every end token of the generation config counts
        (None, [[7, 8, 2], [7, 8, 9, 7], [2]]),  # none given: the tokenizer's
    ],
)
def test_a_completion_ends_with_its_first_end_token(base: tuple, eos, expected) -> None:
    model = Scripted([[7, 8, 2, 0], [7, 8, 9, 7], [2, 2, 0, 0]], eos)
    assert base[1].eos_token_id == 2
    found = sample(model, base[1], ["a", "bc", "d"], temperature=1.0, max_new_tokens=4)
    assert [group[0].ids for group in found] == expected


def test_truncated_counts_what_hit_the_limit_without_an_end(base: tuple) -> None:
    # Four tokens allowed: an end token as the fourth is no truncation.
    model = Scripted([[7, 8, 9, 7], [7, 8, 9, 2], [2, 0, 0, 0], [9, 9, 9, 9]], eos=2)
    rows = [{"prompt": "x"} for _ in range(4)]
    result = evaluate(
        model, base[1], rows, lambda completions, **_: [1.0] * 4, temperature=1, max_new_tokens=4
    )
    assert result.cut == [[True], [False], [False], [True]]
    assert result.lengths == [[4], [4], [1], [4]]
    assert result.truncated == 0.5


def test_truncation_of_the_base_model(base: tuple, rows) -> None:
    result = evaluate(*base, rows, reward, temperature=0.0, max_new_tokens=3)
    assert result.truncated == 1.0 and result.accuracy == 0.0
    assert {length for group in result.lengths for length in group} == {3}


def test_one_token_is_a_completion(base: tuple, rows) -> None:
    result = evaluate(*base, rows, reward, temperature=1.0, max_new_tokens=1, samples=2)
    assert all(length == 1 for group in result.lengths for length in group)


# --- scoring ----------------------------------------------------------------------------------------------


def test_one_greedy_sample_is_the_accuracy(base: tuple, rows) -> None:
    result = evaluate(*base, rows, reward, temperature=0.0, max_new_tokens=40)
    texts = base[1].batch_decode(
        [group[0] for group in draw(base, rows, temperature=0.0)], skip_special_tokens=True
    )
    right = sum(CHAINS.score(text, row["answer"]) for text, row in zip(texts, rows, strict=True))
    assert result.accuracy == right / len(rows) == result.pass_at(1)
    assert [group[0] for group in result.completions] == texts
    with pytest.raises(UserError, match="pass@2 can't be estimated from 1 samples"):
        result.pass_at(2)


def test_columns_reach_the_reward_once_per_sample(base: tuple) -> None:
    seen = SimpleNamespace()

    def look(prompts, completions, completion_ids, **columns: Any) -> list[float | None]:
        seen.prompts, seen.completions, seen.ids, seen.columns = prompts, completions, completion_ids, columns
        return [None, 1.0, 0.25, 1.0]

    rows = [{"prompt": "1+1=", "answer": "2", "extra": 5}, {"prompt": "2+2=", "answer": "4", "extra": None}]
    result = evaluate(*base, rows, look, temperature=1.0, max_new_tokens=5, samples=2)
    assert seen.prompts == ["1+1=", "1+1=", "2+2=", "2+2="]
    assert seen.columns == {"answer": ["2", "2", "4", "4"], "extra": [5, 5, None, None]}
    assert all(isinstance(text, str) for text in seen.completions)  # a plain prompt, a plain completion
    assert [len(ids) for ids in seen.ids] == [length for group in result.lengths for length in group]
    assert result.scores == [[0.0, 1.0], [0.25, 1.0]]  # what nothing scored counts as 0
    assert result.accuracy == pytest.approx(2.25 / 4)


def test_a_chat_prompt_gets_a_chat_completion(base: tuple, rows) -> None:
    def look(completions, **_: Any) -> list[float]:
        assert all(c[0]["role"] == "assistant" and len(c) == 1 for c in completions)
        return [1.0] * len(completions)

    assert evaluate(*base, rows[:2], look, temperature=1.0, max_new_tokens=5).accuracy == 1.0


def test_nothing_to_evaluate_is_an_error(base: tuple) -> None:
    with pytest.raises(UserError, match="no problems to evaluate on"):
        evaluate(*base, [], reward, temperature=1.0, max_new_tokens=5)
